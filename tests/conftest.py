"""Fixtures are in tests/fixtures, by subject."""

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.fixtures.norn", "tests.fixtures.postgres", "tests.fixtures.browser"]

# How long an example takes says something of the machine: any that is busy stands still for 0.2 s now and then.
settings.register_profile("norn", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("norn")


def _turn(item: pytest.Item) -> tuple[bool, bool, bool]:
    on_cluster, alone, grouped = (item.get_closest_marker(m) for m in ("cluster", "cluster_alone", "xdist_group"))
    return on_cluster is None, alone is not None, grouped is None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Some tests stop what others use: better none at all than those of one group beside each other.

    Those on the cluster wait for each other (`cluster_in_use`), and that counts as their own time. They begin first,
    and those that want it alone are the last of them: nobody is left to wait. Those of no group fill what time is left.
    """
    items.sort(key=_turn)
    for item in items:
        if item.get_closest_marker("cluster") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))
    if getattr(config.option, "loadgroup", False):
        for item in items:
            group = item.get_closest_marker("xdist_group")
            if group and not item.nodeid.endswith(f"@{group.args[0]}"):
                raise pytest.UsageError(f"pytest {pytest.__version__} and this xdist do not keep groups together")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if terminal := config.pluginmanager.getplugin("terminalreporter"):
        config.pluginmanager.register(FailuresAtOnce(terminal))


class FailuresAtOnce:
    """What fails is told as it fails: of a run that is ended from outside, that is all that is left."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            last_words = "\n".join(report.longreprtext.rstrip().splitlines()[-12:])
            self._terminal.write(f"\n{report.when} of {report.nodeid} failed:\n{last_words}\n")
