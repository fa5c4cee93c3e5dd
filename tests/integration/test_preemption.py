"""A rollback does not wait behind a deploy of the same app: whatever step that is at is stopped, and undone.

Each deploy here is held up for real, and would be for minutes. The steps `test` and `migrate` are in tests/runtimes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer, until

LOOKS = frozenset({b"git", b"pg_dump", b"pg_restore"})

pytestmark = pytest.mark.xdist_group("preemption")

DUMPING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'norn-snapshot'"
SESSIONS = "SELECT application_name, query FROM pg_stat_activity WHERE datname = %s AND application_name <> ''"
"""Those of a test have no name."""


@pytest.fixture(scope="module")
def server(shared_norn: NornServer) -> NornServer:
    return shared_norn


def declared(app: App, more: str = "", timeout: str = "") -> None:
    """It has a database and migrations, so that there is something to be done in each step."""
    database = f"services: {{postgres: {{database: {app.name}}}}}\nmigrations: {{command: 'true'}}\n"
    app.spec(f"{database}{more}", timeout=timeout)


# ---- how each step is held up -------------------------------------------------------------------------------------


@contextmanager
def a_disk_that_does_not_answer(app: App) -> Iterator[Callable[[], bool]]:
    """git waits for ever where it reads the new server.py."""
    app.commit("three")
    blob = app.git("rev-parse", "HEAD:server.py")
    stored = app.path / ".git" / "objects" / blob[:2] / blob[2:]
    stored.unlink()
    os.mkfifo(stored)
    try:
        yield lambda: any(b"archive" in words for words in processes(app.path).values())
    finally:
        with suppress(OSError):  # whoever still waits gets an end of the file
            os.close(os.open(stored, os.O_WRONLY | os.O_NONBLOCK))
        stored.unlink()


@contextmanager
def a_build_that_does_not_end(app: App) -> Iterator[Callable[[], bool]]:
    """Two processes, neither of which minds being asked to end."""
    declared(app, """build: {command: [sh, -c, 'trap "" TERM; sleep 4713 & sleep 4714']}\n""")
    app.commit("three")
    directory = app.server.home / "images" / app.name
    yield lambda: sum(words[0] == b"sleep" for words in processes(directory).values()) == 2


@contextmanager
def a_table_that_is_locked(app: App) -> Iterator[Callable[[], bool]]:
    """pg_dump waits for it."""
    app.commit("three")
    with app.database() as owner, app.database() as onlooker:
        owner.execute("BEGIN; LOCK TABLE books")
        yield lambda: bool(onlooker.execute(f"{DUMPING} AND wait_event_type = 'Lock'").fetchall())


@contextmanager
def a_version_that_does_not_become_healthy(app: App) -> Iterator[Callable[[], bool]]:
    declared(app, timeout="10m")
    app.commit("three", extra="print('not yet', flush=True); time.sleep(600)")
    began = len(processes(app.server.home / "images" / app.name))
    yield lambda: len(processes(app.server.home / "images" / app.name)) > began


HELD_UP = {
    "clone": a_disk_that_does_not_answer,
    "build": a_build_that_does_not_end,
    "snapshot": a_table_that_is_locked,
    "deploy": a_version_that_does_not_become_healthy,
}


def processes(below: Path) -> dict[int, list[bytes]]:
    """The command lines of what works in that directory, or below it; PostgreSQL's own processes are not meant."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            there = f"{(process / 'cwd').readlink()}/".startswith(f"{below}/")
            named = any(os.fsencode(below) in word for word in words[1:])
            postgres = words[0].rpartition(b"/")[2].startswith(b"postgres")
            if (there or named) and words[0] and not postgres:
                found[int(process.name)] = words
    return found


def at_rest(below: Path) -> dict[int, list[bytes]]:
    """The same, at a moment when the server itself asks nobody: it looks at repositories and dumps now and then.

    What it has begun that very moment still has the server's own command line: it is gone at a second look.
    """
    found: dict[int, list[bytes]] = {}

    def rests() -> bool:
        nonlocal found
        before, found = found, processes(below)
        return found == before and not any(words[0].rpartition(b"/")[2] in LOOKS for words in found.values())

    until(rests, "a moment of rest")
    return found


# ---- what is stopped ----------------------------------------------------------------------------------------------


@dataclass
class Stopped:
    """An app with two good versions, the second one live, whose third deploy was stopped by a rollback."""

    app: App
    step: str
    one: str
    two: str
    deploy: dict[str, Any]
    """The operation, as it ended."""
    back: dict[str, Any]
    """What `norn rollback` answered."""
    ran_before: dict[int, list[bytes]]
    """The processes of the server and of its apps before the deploy."""

    @property
    def server(self) -> NornServer:
        return self.app.server


@pytest.fixture(scope="module", params=HELD_UP)
def stopped(server: NornServer, request: pytest.FixtureRequest) -> Iterator[Stopped]:
    step = str(request.param)
    app = App(server, f"in-{step}")
    declared(app)
    one = app.deploy("one")
    with app.database() as connection:
        connection.execute("CREATE TABLE books (id int)")
    two = app.deploy("two")
    before = at_rest(server.directory)
    with ExitStack() as obstacle:
        under_way = obstacle.enter_context(HELD_UP[step](app))
        deploy = server.api("POST", f"/api/apps/{app.name}/deploy").body["id"]
        server.step_begun(deploy, step)
        until(under_way, f"work in {step}")
        back = server.norn("rollback", app.name, "--timeout", "60s")
        assert back.exit_status == 0, back.err
        server.ended(back.json()["id"])
        yield Stopped(app, step, one, two, server.operation(deploy), back.json(), before)


def test_the_deploy_is_stopped_in_that_step_and_says_for_what(stopped: Stopped) -> None:
    error = stopped.deploy["error"]
    assert (stopped.deploy["status"], error["code"]) == ("cancelled", "cancelled")
    assert (stopped.deploy["steps"][-1]["step"], stopped.deploy["steps"][-1]["status"]) == (stopped.step, "failed")
    assert error["preemptedBy"] == stopped.back["id"]
    assert f"rolls back to {stopped.two}" in error["message"]
    assert "undoErrors" not in error


def test_what_was_live_is_the_target_and_answers(stopped: Stopped) -> None:
    live = stopped.server.status(stopped.app.name)["live"]
    assert (stopped.back["imageTag"], live["imageTag"], stopped.app.get()) == (stopped.two, stopped.two, "two")


def test_the_history_says_so(stopped: Stopped) -> None:
    history = stopped.server.history(stopped.app.name)
    assert [(item["kind"], item["status"]) for item in history] == [
        ("rollback", "deployed"),
        ("deploy", "cancelled"),
        ("deploy", "deployed"),
        ("deploy", "deployed"),
    ]
    assert [item["id"] for item in history[:2]] == [stopped.back["id"], stopped.deploy["id"]]


def test_the_version_that_was_live_is_so_without_a_break(stopped: Stopped) -> None:
    second = stopped.server.history(stopped.app.name)[2]
    assert (second["imageTag"], second["liveUntil"]) == (stopped.two, None)
    live = [item for item in stopped.server.history(stopped.app.name) if item["liveFrom"] and not item["liveUntil"]]
    assert live == [second]


def test_the_same_processes_run_as_before_and_none_of_the_deploys(stopped: Stopped) -> None:
    until(lambda: processes(stopped.server.directory) == stopped.ran_before, "what ran before, and that alone")


def test_nothing_is_left_in_the_work_directory(stopped: Stopped) -> None:
    assert list((stopped.server.home / "work").iterdir()) == []


def test_of_an_image_there_is_all_or_nothing(stopped: Stopped) -> None:
    """One that was built to its end harms nobody, and is there when the commit is deployed again."""
    built = [stopped.one, stopped.two]
    if stopped.step not in ("clone", "build"):
        built.append(stopped.app.tag(stopped.app.git("rev-parse", "HEAD")))
    names = {tag.rpartition(":")[2] for tag in built}
    directory = stopped.server.home / "images" / stopped.app.name
    assert {path.name for path in directory.iterdir()} == names | {f"{name}.json" for name in names}


def test_each_file_of_a_snapshot_is_in_the_records(stopped: Stopped) -> None:
    recorded = stopped.server.api("GET", f"/api/apps/{stopped.app.name}/snapshots").body["snapshots"]
    files = (stopped.server.home / "snapshots").glob(f"{stopped.app.name}_*")
    assert {path.name for path in files if path.suffix != ".json"} == {one["name"] for one in recorded if one["exists"]}


def test_no_session_is_left_in_its_database(stopped: Stopped) -> None:
    with stopped.app.database("postgres") as connection:
        # The server itself looks there now and then, for the verdict of the next rollback.
        until(lambda: not connection.execute(SESSIONS, [stopped.app.name]).fetchall(), "the end of all sessions")


def test_what_was_stopped_is_not_quarantined_and_no_target_later_on(stopped: Stopped) -> None:
    assert stopped.server.norn("quarantine", "list", stopped.app.name).json()["quarantine"] == []
    plan = stopped.server.norn("rollback", stopped.app.name, "--dry-run")
    assert plan.json()["imageTag"] == stopped.one


# ---- a bake -------------------------------------------------------------------------------------------------------


Baking = tuple[App, dict[str, Any], dict[str, Any]]
"""An app whose third version was rolled back while it still baked, the deploy of that, and the rollback."""


@pytest.fixture(scope="module")
def baking(server: NornServer) -> Baking:
    app = App(server, "in-bake")
    app.deploy("one")
    app.deploy("two")
    app.spec(bake="10m")
    app.commit("three")
    deploy = server.api("POST", f"/api/apps/{app.name}/deploy").body["id"]
    server.step_begun(deploy, "bake")
    until(lambda: app.get() == "three", "the third version")
    back = server.norn("rollback", app.name, "--timeout", "60s")
    assert back.exit_status == 0, back.err
    return app, server.operation(deploy), back.json()


def test_a_bake_is_stopped_and_the_version_before_answers(baking: Baking) -> None:
    app, deploy, back = baking
    assert (deploy["status"], deploy["steps"][-1]["step"]) == ("cancelled", "bake")
    assert (back["imageTag"], app.get()) == (app.server.history(app.name)[2]["imageTag"], "two")


def test_a_version_that_rolled_out_is_rolled_back_and_not_cancelled(baking: Baking) -> None:
    app, deploy, back = baking
    rollback, third, _, _ = app.server.history(app.name)
    assert (rollback["id"], third["id"]) == (back["id"], deploy["id"])
    assert (third["status"], third["rolledBackBy"]) == ("rolled_back", back["id"])


def test_a_version_that_was_left_in_its_bake_is_quarantined(baking: Baking) -> None:
    app, _, _ = baking
    listed = app.server.norn("quarantine", "list", app.name).json()["quarantine"]
    assert [item["imageTag"] for item in listed] == [app.server.history(app.name)[1]["imageTag"]]


def test_of_a_bake_that_was_stopped_no_file_and_no_process_is_left(baking: Baking) -> None:
    app, _, _ = baking
    assert list((app.server.home / "work").iterdir()) == []
    words = [b"server.py" in line for line in processes(app.server.home / "images" / app.name).values()]
    assert words == [True], "one process of the version that answers"
