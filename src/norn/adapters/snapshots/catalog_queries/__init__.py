"""The queries that read a schema: each gives kind, name, definition, OID, column number and facts of some kinds.

They count on `search_path` being `pg_catalog`: then every name in a definition is qualified. Left out is what a dump
does not carry. Lists of options and privileges are in alphabetical order, since theirs means nothing. Texts are in the
order of their bytes, since that of a database's own collation may differ.
"""

from psycopg import sql

from norn.adapters.snapshots.catalog_queries import access, others, tables

_QUERIES = (*tables.QUERIES, *others.QUERIES, *access.QUERIES)
TABLES = tables.TABLES

__all__ = ["TABLES", "queries"]


def queries(*, positions: bool) -> tuple[sql.Composed, ...]:
    """All of them; with how far each sequence is."""
    return (*_QUERIES, tables.sequences(positions=positions))
