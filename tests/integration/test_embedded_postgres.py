"""The embedded PostgreSQL: made once, found again, never root, and clear words where it cannot start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.fixtures.norn import until

from norn.adapters import accounts
from norn.adapters.postgres import clients, embedded
from norn.adapters.postgres.embedded import EmbeddedPostgres
from norn.adapters.processes import start_time
from norn.errors import ProgramMissing, Unavailable

MAJOR = 18


class Home:
    """A directory for one server, and what can be asked of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "postgres" / "norn"

    def server(self, *, keep_port: bool = False, major: int = MAJOR) -> EmbeddedPostgres:
        return EmbeddedPostgres(
            self.directory, account=accounts.for_database(), major=major, keep_port=keep_port, settings={"fsync": "off"}
        )

    def start(self, *, keep_port: bool = False, major: int = MAJOR) -> str:
        return asyncio.run(self.server(keep_port=keep_port, major=major).start())

    def stop(self) -> None:
        asyncio.run(self.server().stop())

    @property
    def postmaster(self) -> int:
        return int((self.directory / "data" / "postmaster.pid").read_text().splitlines()[0])

    def kill(self) -> None:
        pid = self.postmaster
        os.kill(pid, signal.SIGKILL)
        until(lambda: start_time(pid) is None, "its end")


@pytest.fixture
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="norn-test-") as name:
        Path(name).chmod(0o755)
        found = Home(Path(name))
        try:
            yield found
        finally:
            found.stop()


def query(url: str, statement: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return str(row[0]) if row else ""


def test_a_second_start_finds_the_running_server(home: Home) -> None:
    url = home.start()
    pid = home.postmaster
    assert home.start() == url
    assert home.postmaster == pid


def test_what_was_committed_is_there_after_a_kill(home: Home) -> None:
    url = home.start()
    query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    home.kill()
    assert query(home.start(), "SELECT answer FROM kept") == "42"


def test_it_listens_on_loopback_alone_and_wants_a_password(home: Home) -> None:
    url = home.start()
    assert query(url, "SHOW listen_addresses") == "127.0.0.1"
    assert query(url, "SHOW unix_socket_directories") == ""
    wrong = url.replace(url.split(":")[2].split("@")[0], "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user")
def test_where_norn_is_root_it_runs_as_another_user(home: Home) -> None:
    home.start()
    assert Path(f"/proc/{home.postmaster}").stat().st_uid != 0


def test_what_an_interrupted_initdb_left_is_made_anew(home: Home) -> None:
    half_done = home.directory / "data.part"
    half_done.mkdir(parents=True)
    (half_done / "PG_VERSION").write_text("18\n")
    assert query(home.start(), "SELECT 1") == "1"
    assert not half_done.exists()


def test_norns_own_moves_to_another_port_where_its_own_is_taken(home: Home) -> None:
    home.start()
    home.stop()
    port = int((home.directory / "port").read_text())
    with socket.create_server(("127.0.0.1", port)):
        url = home.start()
    assert f":{port}/" not in url
    assert query(url, "SELECT 1") == "1"


def test_the_apps_own_keeps_its_port_and_says_who_is_in_the_way(home: Home) -> None:
    home.start(keep_port=True)
    home.stop()
    port = int((home.directory / "port").read_text())
    with socket.create_server(("127.0.0.1", port)), pytest.raises(Unavailable) as refused:
        home.start(keep_port=True)
    assert (str(port) in refused.value.message, "ss -ltnp" in refused.value.hint) == (True, True)


def test_a_data_directory_keeps_its_major_version(home: Home) -> None:
    home.start(major=16)
    home.stop()
    assert query(home.start(major=18), "SHOW server_version").startswith("16.")


def test_a_data_directory_of_a_version_that_is_not_here_is_left_alone(home: Home) -> None:
    data = home.directory / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("14\n")
    with pytest.raises(ProgramMissing, match="PostgreSQL 14"):
        home.start()
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user")
def test_programs_below_a_private_directory_are_copied_to_where_that_user_can_reach_them(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = clients.bundled()[MAJOR]
    monkeypatch.setattr(embedded, "can_reach", lambda path, _account: private not in path.parents)
    assert query(home.start(), "SELECT 1") == "1"
    program = Path(f"/proc/{home.postmaster}/exe").resolve()
    assert program.is_relative_to(home.directory.parent / "programs")


def test_one_that_does_not_start_says_so_with_the_end_of_its_log(home: Home) -> None:
    home.start()
    home.stop()
    (home.directory / "data" / "global" / "pg_control").unlink()
    with pytest.raises(Unavailable) as refused:
        home.start()
    assert "pg_control" in str(refused.value.facts["output"])


def test_two_servers_that_start_at_once_start_one(home: Home) -> None:
    async def both() -> list[str]:
        return list(await asyncio.gather(home.server().start(), home.server().start()))

    urls = asyncio.run(both())
    assert urls[0] == urls[1]
