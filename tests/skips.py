"""A run that lets no test be skipped but those it names: pytest hooks, for conftest.py.

XTALK_EXPECTED_SKIPS holds the ids of the tests that may be skipped, separated by spaces; where it is set, as
in `.ci/run`, any other skipped test fails the run.
"""

import os

import pytest

VARIABLE = "XTALK_EXPECTED_SKIPS"


def unexpected(config: pytest.Config) -> list[str]:
    """The ids of skipped tests that were not to be skipped."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if VARIABLE not in os.environ or reporter is None:
        return []
    skipped = {report.nodeid for report in reporter.stats.get("skipped", [])}
    return sorted(skipped - set(os.environ[VARIABLE].split()))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and unexpected(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for test in unexpected(config):
        terminalreporter.write_line(f"SKIPPED BUT NOT IN {VARIABLE}: {test}", red=True)
