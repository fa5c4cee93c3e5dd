"""Says how far the model has come."""

import pytest
from tests.fixtures.model.progress import Progress


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    cache = config.cache
    passed = Progress(cache).passed if cache is not None else 0
    if passed:
        terminalreporter.write_line(f"model of the operations: {passed:,} runs with no invariant broken, on this code")
