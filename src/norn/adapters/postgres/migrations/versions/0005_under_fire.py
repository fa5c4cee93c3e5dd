"""Health as it was seen, where an operation can be worked on, and which servers are there."""

from alembic import op

revision = "0005"
down_revision = "0004"

SCHEMA = """
CREATE TABLE health_checks (
    app         text NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    wanted      integer NOT NULL,
    ready       integer NOT NULL,
    restarts    integer NOT NULL,
    response_ms real,
    message     text NOT NULL
);
CREATE INDEX health_checks_of_app ON health_checks (app, at DESC);
CREATE INDEX health_checks_by_age ON health_checks (at);

ALTER TABLE operations ADD COLUMN place text;
COMMENT ON COLUMN operations.place IS 'The only place with what it needs; null: anywhere';
ALTER TABLE servers ADD COLUMN number integer GENERATED ALWAYS AS IDENTITY, ADD COLUMN place text NOT NULL DEFAULT '',
    ADD COLUMN holds boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN servers.holds IS 'It has held its lock: that the lock is gone means something';
"""


def upgrade() -> None:
    op.execute(SCHEMA)
