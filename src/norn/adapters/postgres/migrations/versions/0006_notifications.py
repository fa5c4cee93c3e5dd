"""Notifications, and their deliveries to each receiver."""

from alembic import op

revision = "0006"
down_revision = "0005"

SCHEMA = """
CREATE TABLE notifications (
    id           text PRIMARY KEY,
    operation_id text NOT NULL REFERENCES operations,
    app          text NOT NULL,
    event        text NOT NULL,
    at           timestamptz NOT NULL,
    payload      json NOT NULL,
    attempts     integer NOT NULL DEFAULT 0,
    next_at      timestamptz DEFAULT clock_timestamp(),
    last_error   text NOT NULL DEFAULT ''
);
CREATE INDEX notifications_by_age ON notifications (at);
CREATE INDEX notifications_unaddressed ON notifications (next_at) WHERE next_at IS NOT NULL;

CREATE TABLE deliveries (
    notification_id text NOT NULL REFERENCES notifications ON DELETE CASCADE,
    url             text NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    next_at         timestamptz DEFAULT clock_timestamp(),
    claimed_until   timestamptz,
    delivered_at    timestamptz,
    last_error      text NOT NULL DEFAULT '',
    PRIMARY KEY (notification_id, url),
    CHECK (delivered_at IS NULL OR next_at IS NULL)
);
CREATE INDEX deliveries_due ON deliveries (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_undelivered ON deliveries (notification_id) WHERE delivered_at IS NULL;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
