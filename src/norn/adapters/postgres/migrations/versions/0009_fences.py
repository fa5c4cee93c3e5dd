"""The fence of a claim is higher than every earlier one of the app: what runs the app can compare them, too."""

from alembic import op

revision = "0009"
down_revision = "0008"

# By the clock as well: a database that was restored from a backup goes on above what it has given out since, which the
# runtime may have seen.
SCHEMA = """
CREATE INDEX operations_fences ON operations (app, fence DESC);
CREATE FUNCTION next_fence(of_app text) RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT greatest((extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
                    (SELECT max(fence) + 1 FROM operations WHERE app = of_app))
$$;
COMMENT ON COLUMN operations.fence IS 'of the last claim; microseconds since 1970, or more';
"""


def upgrade() -> None:
    op.execute(SCHEMA)
