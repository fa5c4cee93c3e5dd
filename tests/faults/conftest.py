"""Says how far the model has come."""

import pytest
from tests.fixtures.model.progress import Progress


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    passed = Progress(config).passed
    if passed:
        terminalreporter.write_line(f"model of the operations: {passed:,} runs with no invariant broken, on this code")
