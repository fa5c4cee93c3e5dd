"""Fixtures are in tests/fixtures, by subject."""

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.fixtures.norn", "tests.fixtures.postgres", "tests.fixtures.browser"]

# How long an example takes says something of the machine: any that is busy stands still for 0.2 s now and then.
settings.register_profile("norn", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("norn")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Some tests stop what others use: better none at all than those of one group beside each other.

    Those on the cluster wait for each other (`cluster_in_use`), and that counts as their own time.
    """
    for item in items:
        if item.get_closest_marker("cluster") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))
    if getattr(config.option, "loadgroup", False):
        for item in items:
            group = item.get_closest_marker("xdist_group")
            if group and not item.nodeid.endswith(f"@{group.args[0]}"):
                raise pytest.UsageError(f"pytest {pytest.__version__} and this xdist do not keep groups together")
