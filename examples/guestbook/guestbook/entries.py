"""The entries, in PostgreSQL."""

import os

import psycopg
from psycopg.rows import dict_row


def connect():
    return psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, row_factory=dict_row, connect_timeout=5)


def sign(connection, visitor):
    connection.execute("INSERT INTO entries (visitor) VALUES (%s)", (visitor,))


def summary(connection):
    """All visitors, newest first, and how many there are."""
    visitors = [row["visitor"] for row in connection.execute("SELECT visitor FROM entries ORDER BY id DESC")]
    return {"visitors": visitors, "total": len(visitors)}
