"""Fixtures are in tests/fixtures, by subject."""

pytest_plugins = ["tests.fixtures.norn", "tests.fixtures.postgres"]
