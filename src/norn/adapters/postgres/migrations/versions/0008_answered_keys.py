"""An Idempotency-Key may be bound to what was there already, and not only to what it has made."""

from alembic import op

revision = "0008"
down_revision = "0007"

SCHEMA = """
ALTER TABLE idempotency_keys ADD COLUMN unchanged boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN idempotency_keys.unchanged IS 'the operation was asked for by somebody else, or live already';
"""


def upgrade() -> None:
    op.execute(SCHEMA)
