"""Operations with their steps, deployments, quarantine, snapshots, events, servers."""

from alembic import op

revision = "0001"
down_revision = None

SCHEMA = """
CREATE TABLE servers (
    id         text PRIMARY KEY,
    host       text NOT NULL,
    boot_id    text NOT NULL,
    pid        integer NOT NULL,
    pid_start  bigint NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE operations (
    id           text PRIMARY KEY,
    seq          bigint GENERATED ALWAYS AS IDENTITY,
    app          text NOT NULL,
    kind         text NOT NULL,
    status       text NOT NULL CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    params       jsonb NOT NULL,
    state        jsonb NOT NULL DEFAULT '{}',
    result       jsonb,
    error        jsonb,
    cancel       jsonb,
    accepted     boolean NOT NULL DEFAULT false,
    committed    boolean NOT NULL DEFAULT false,
    undoing      boolean NOT NULL DEFAULT false,
    requested_by text NOT NULL,
    reason       text NOT NULL DEFAULT '',
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at   timestamptz,
    finished_at  timestamptz,
    owner        text,
    fence        bigint NOT NULL DEFAULT 0,
    claims       integer NOT NULL DEFAULT 0,
    lease_until  timestamptz,
    CHECK ((status IN ('queued', 'running')) = (finished_at IS NULL)),
    CHECK ((status = 'running') = (lease_until IS NOT NULL))
);
CREATE UNIQUE INDEX operations_one_running_per_app ON operations (app) WHERE status = 'running';
CREATE INDEX operations_queue ON operations (seq) WHERE status = 'queued';
CREATE INDEX operations_leases ON operations (lease_until) WHERE status = 'running';
CREATE INDEX operations_of_app ON operations (app, seq DESC);

CREATE TABLE operation_steps (
    operation_id text NOT NULL REFERENCES operations ON DELETE CASCADE,
    ordinal      integer NOT NULL,
    step         text NOT NULL,
    status       text NOT NULL CHECK (status IN ('running', 'done', 'failed', 'undone')),
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at  timestamptz,
    output       text NOT NULL DEFAULT '',
    PRIMARY KEY (operation_id, ordinal)
);

CREATE TABLE deployments (
    id                   text PRIMARY KEY REFERENCES operations,
    seq                  bigint GENERATED ALWAYS AS IDENTITY,
    app                  text NOT NULL,
    kind                 text NOT NULL CHECK (kind IN ('deploy', 'rollback')),
    status               text NOT NULL CHECK (status IN ('queued', 'building', 'testing', 'snapshotting', 'migrating',
                             'deploying', 'baking', 'deployed', 'failed', 'cancelled', 'rolled_back')),
    image_tag            text NOT NULL,
    digest               text,
    commit_sha           text NOT NULL,
    commit_subject       text NOT NULL DEFAULT '',
    origin_seq           bigint NOT NULL,
    from_deployment_id   text,
    from_image_tag       text,
    target_deployment_id text,
    template             jsonb,
    target               jsonb,
    verdict              jsonb,
    error                jsonb,
    snapshot             text,
    requested_by         text NOT NULL,
    reason               text NOT NULL DEFAULT '',
    requested_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at           timestamptz,
    finished_at          timestamptz,
    rolled_out_at        timestamptz,
    proven_at            timestamptz,
    live_from            timestamptz,
    live_until           timestamptz,
    rolled_back_at       timestamptz,
    rolled_back_by       text,
    CHECK (live_until IS NULL OR live_from IS NOT NULL)
);
CREATE UNIQUE INDEX deployments_seq ON deployments (seq);
CREATE INDEX deployments_of_app ON deployments (app, seq DESC);
CREATE INDEX deployments_of_commit ON deployments (app, commit_sha text_pattern_ops);
CREATE UNIQUE INDEX deployments_one_live_per_app ON deployments (app)
    WHERE live_from IS NOT NULL AND live_until IS NULL;

CREATE TABLE quarantine (
    app           text NOT NULL,
    image_tag     text NOT NULL,
    digest        text,
    commit_sha    text NOT NULL,
    deployment_id text NOT NULL,
    why           text NOT NULL,
    since         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (app, image_tag)
);

CREATE TABLE snapshots (
    name          text PRIMARY KEY,
    app           text NOT NULL,
    database      text NOT NULL,
    commit_sha    text NOT NULL,
    operation_id  text NOT NULL,
    reason        text NOT NULL,
    size_bytes    bigint NOT NULL,
    taken_at      timestamptz NOT NULL
);
CREATE INDEX snapshots_of_app ON snapshots (app, taken_at DESC);

CREATE TABLE idempotency_keys (
    key          text PRIMARY KEY,
    request_hash text NOT NULL,
    operation_id text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

CREATE SEQUENCE event_numbers;
CREATE TABLE events (
    seq          bigint PRIMARY KEY,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    app          text NOT NULL,
    operation_id text,
    type         text NOT NULL,
    data         jsonb NOT NULL
);
CREATE INDEX events_of_app ON events (app, seq);
CREATE INDEX events_of_operation ON events (operation_id, seq);
CREATE INDEX events_by_age ON events (at);
"""


def upgrade() -> None:
    op.execute(SCHEMA)
