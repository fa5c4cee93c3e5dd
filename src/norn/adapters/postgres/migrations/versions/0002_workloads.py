"""What a runtime writes down of a version that rolled out; adopted versions."""

from alembic import op

revision = "0002"
down_revision = "0001"

SCHEMA = """
ALTER TABLE deployments ADD COLUMN workload jsonb;
ALTER TABLE deployments DROP CONSTRAINT deployments_kind_check;
ALTER TABLE deployments ADD CONSTRAINT deployments_kind_check CHECK (kind IN ('deploy', 'rollback', 'adopt')) NOT VALID;
ALTER TABLE deployments VALIDATE CONSTRAINT deployments_kind_check;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
