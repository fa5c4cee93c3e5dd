"""Tokens, the sessions of browsers, and the audit."""

from alembic import op

revision = "0007"
down_revision = "0006"

SCHEMA = """
CREATE TABLE tokens (
    id           text PRIMARY KEY,
    name         text NOT NULL,
    hash         bytea NOT NULL UNIQUE,
    role         text NOT NULL CHECK (role IN ('viewer', 'operator', 'deployer', 'admin')),
    apps         text[],
    home         boolean NOT NULL DEFAULT false,
    created_by   text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz,
    last_used_at timestamptz,
    revoked_at   timestamptz,
    revoked_by   text
);
COMMENT ON COLUMN tokens.apps IS 'null: all';
COMMENT ON COLUMN tokens.home IS 'in the file of a NORN_HOME, for the command line beside the server';
CREATE UNIQUE INDEX tokens_by_name ON tokens (name) WHERE revoked_at IS NULL;

CREATE TABLE sessions (
    hash       bytea PRIMARY KEY,
    token_id   text NOT NULL REFERENCES tokens ON DELETE CASCADE,
    address    text NOT NULL,
    begun_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_by_token ON sessions (token_id);

CREATE TABLE audit (
    seq     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor   text NOT NULL,
    token   text NOT NULL,
    action  text NOT NULL,
    app     text,
    subject text NOT NULL,
    address text NOT NULL,
    reason  text NOT NULL DEFAULT '',
    outcome text NOT NULL,
    before  jsonb,
    after   jsonb
);
CREATE INDEX audit_of_app ON audit (app, seq);
CREATE INDEX audit_of_secrets ON audit (seq) WHERE action IN ('secret.set', 'secret.unset');

CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only';
END $$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
"""


def upgrade() -> None:
    op.execute(SCHEMA)
