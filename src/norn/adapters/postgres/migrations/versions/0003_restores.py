"""Restores and their former databases; what is known of a snapshot; operations that ask before they go on."""

from alembic import op

revision = "0003"
down_revision = "0002"

SCHEMA = """
ALTER TABLE operations ADD COLUMN asks jsonb, ADD COLUMN confirmed jsonb;

ALTER TABLE snapshots ADD COLUMN kept boolean NOT NULL DEFAULT false, ADD COLUMN host text NOT NULL DEFAULT '',
    ADD COLUMN sha256 text, ADD COLUMN verified_at timestamptz, ADD COLUMN verification jsonb,
    ADD COLUMN removed_at timestamptz, ADD COLUMN removed_why text;

CREATE TABLE restores (
    id            text PRIMARY KEY REFERENCES operations,
    seq           bigint GENERATED ALWAYS AS IDENTITY,
    app           text NOT NULL,
    database      text NOT NULL,
    former        text NOT NULL,
    snapshot      text,
    undoes        text REFERENCES restores,
    moment        jsonb,
    restored_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    undone_by     text,
    dropped_at    timestamptz
);
CREATE TABLE images (
    app        text NOT NULL,
    image_tag  text NOT NULL,
    digest     text NOT NULL,
    built_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    removed_at timestamptz,
    PRIMARY KEY (app, image_tag, digest)
);
CREATE INDEX restores_of_app ON restores (app, seq DESC);
CREATE INDEX restores_with_former ON restores (restored_at) WHERE dropped_at IS NULL;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
