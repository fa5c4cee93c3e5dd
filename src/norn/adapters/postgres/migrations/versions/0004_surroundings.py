"""What was around a version: its database before and after the migration, and its configuration."""

from alembic import op

revision = "0004"
down_revision = "0003"

SCHEMA = """
CREATE TABLE surroundings (
    deployment_id text NOT NULL REFERENCES deployments,
    moment        text NOT NULL CHECK (moment IN ('before', 'after')),
    app           text NOT NULL,
    at            timestamptz NOT NULL,
    database      bytea,
    configuration jsonb,
    database_id   text NOT NULL,
    losses        jsonb NOT NULL,
    rewritten     jsonb NOT NULL,
    PRIMARY KEY (deployment_id, moment)
);
CREATE TABLE installation (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    key    bytea NOT NULL
);
CREATE INDEX operations_on_databases ON operations (seq DESC)
    WHERE kind IN ('deploy', 'restore') OR kind = 'rollback' AND params ? 'withData';
CREATE INDEX surroundings_of_app ON surroundings (app, at DESC);
"""


def upgrade() -> None:
    op.execute(SCHEMA)
