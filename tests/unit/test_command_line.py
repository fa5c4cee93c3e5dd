"""The command line itself, without a server."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from norn.cli import about
from norn.cli.context import _actor
from norn.cli.main import COMMANDS, parse, parser_for
from norn.cli.output import table
from norn.cli.transport import parse_url, quote
from norn.errors import SettingInvalid

TOO_HEAVY = {
    "fastapi", "starlette", "uvicorn", "pydantic", "psycopg", "yaml", "rich", "http.client", "urllib.request", "ssl",
    "email", "asyncio", "requests", "httpx", "structlog",
    "norn.domain", "norn.operations", "norn.adapters", "norn.http",
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_examples(name: str) -> None:
    text = parser_for(name).format_help()
    assert "examples:" in text or name == "version"
    for option in ("--output", "--url", "--token", "--ca", "--quiet"):
        assert option in text


@pytest.mark.parametrize(
    "argv",
    [
        ["deploy", "shop", "3f2a91c", "--force"],
        ["deploy", "shop", "--force", "3f2a91c"],
        ["deploy", "--force", "shop", "3f2a91c"],
    ],
)
def test_an_option_may_stand_before_between_and_after_the_names(argv: list[str]) -> None:
    args = parse(argv)
    assert (args.app, args.ref, args.force) == ("shop", "3f2a91c", True)


def test_apps_may_be_named_on_both_sides_of_an_option() -> None:
    args = parse(["rollback", "shop", "--reason", "checkout answers 500", "pay", "mail"])
    assert (args.apps, args.reason) == (["shop", "pay", "mail"], "checkout answers 500")


@pytest.mark.parametrize("argv", [["deploy"], ["deploy", "shop", "--force", "3f2a91c", "main"], ["status", "--nope"]])
def test_what_is_missing_or_too_much_is_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(argv)
    assert exit_.value.code == 2
    assert f"hint: `norn {argv[0]} --help` has examples." in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["rollback", "myapp", "--no-wait"],
        ["rollback", "shop", "mail"],
        ["rollback", "--all"],
        ["deploy", "myapp"],
        ["status"],
    ],
)
def test_a_command_imports_nothing_heavy(argv: list[str]) -> None:
    assert TOO_HEAVY & imported_by(argv) == set()


def test_a_rollback_of_one_app_imports_nothing_of_what_several_need() -> None:
    assert (
        imported_by(["rollback", "myapp"]) & {"threading", "norn.cli.group_rollback", "norn.cli.side_by_side"} == set()
    )


def imported_by(argv: list[str]) -> set[str]:
    """What a command has imported when it has found no server."""
    program = (
        "import sys\nfrom norn.cli.main import main\n"
        f"status = main({[*argv, '--url', 'http://127.0.0.1:9', '-o', 'text']!r})\n"
        "print(status, *sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    status, *modules = done.stdout.split()
    assert status == "7", done.stderr
    return set(modules)


@pytest.mark.parametrize(
    ("argv", "exit_status", "word"),
    [
        ([], 2, "commands:"),
        (["--help"], 0, "commands:"),
        (["rolback"], 2, "rollback"),
        (["rollback"], 2, "--help"),
        (["rollback", "a", "--to", "b", "--further"], 2, "not allowed with"),
        (["rollback", "--all", "a"], 2, "without names"),
        (["rollback", "a", "b", "--to", "c"], 2, "--to can be said of a single app only"),
        (["rollback", "a", "b", "--to", ""], 2, "--to can be said"),
        (["rollback", "a", "b", "--from", "c"], 2, "--from can be said"),
        (["rollback", "a", "b", "--restore-snapshot", "--yes"], 2, "--restore-snapshot and --yes can be said"),
        (["rollback", "a", "b", "--affects", "c"], 2, "--affects can be said"),
        (["rollback", "--all", "--direct"], 2, "--direct can be said"),
        (["rollback", "--all", "--to", "c"], 2, "--to can be said"),
        (["rollback", "a", "b", "--timeout", "soon"], 2, "not a duration"),
        (["version"], 0, "0."),
        (["deploy", "a", "--url", "ftp://x"], 2, "not the URL"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_right(argv: list[str], exit_status: int, word: str) -> None:
    done = subprocess.run([sys.executable, "-m", "norn", *argv], capture_output=True, text=True, check=False)
    assert done.returncode == exit_status
    assert word in done.stdout + done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(shell: str) -> None:
    script = about.script(shell)
    assert all(name in script for name in COMMANDS)
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8800", (False, "127.0.0.1", 8800, "")),
        ("https://norn.example.com", (True, "norn.example.com", 443, "")),
        ("https://example.com/norn/", (True, "example.com", 443, "/norn")),
        ("http://[::1]:9000/x", (False, "::1", 9000, "/x")),
        ("http://[::1]", (False, "::1", 80, "")),
    ],
)
def test_a_servers_url(url: str, address: tuple[bool, str, int, str]) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize("url", ["", "localhost:8800", "ftp://x", "http://", "http://user:pw@host", "http://h:x"])
def test_what_is_no_servers_url(url: str) -> None:
    with pytest.raises(SettingInvalid):
        parse_url(url)


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("shop", "shop"),
        ("a/b", "a%2Fb"),
        ("..", "%2E%2E"),
        ("v1.2", "v1.2"),
        ("a b\n?#", "a%20b%0A%3F%23"),
        ("ä", "%C3%A4"),
    ],
)
def test_a_name_stays_one_segment_of_the_path(name: str, quoted: str) -> None:
    assert quote(name) == quoted


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(["A", "LONG"], [["wide", 1], ["x", None]]) == "A     LONG\nwide  1\nx     -"


@pytest.mark.parametrize(("user", "said"), [("ada", "ada"), ("norn", f"norn@{os.uname().nodename}")])
def test_a_user_called_as_norn_itself_says_on_which_machine(
    monkeypatch: pytest.MonkeyPatch, user: str, said: str
) -> None:
    monkeypatch.setenv("SUDO_USER", user)
    assert _actor() == said
