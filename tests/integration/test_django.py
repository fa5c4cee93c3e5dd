"""A real Django project (examples/notes): gunicorn, its own migrations, PostgreSQL; three commits, then back."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import TupleRow
from tests.fixtures.norn import NornServer, free_port, served

EXAMPLE = Path(__file__).parents[2] / "examples" / "notes"
PACKAGES = (
    "django", "gunicorn", "asgiref", "sqlparse", "packaging", "psycopg", "psycopg_binary", "psycopg_binary.libs",
    "typing_extensions.py",
)  # fmt: skip


def copy_packages(into: Path) -> Path:
    """What requirements.txt asks for, out of the tests' own environment instead of an index."""
    installed = Path(sysconfig.get_path("purelib"))
    into.mkdir(mode=0o755)
    described = [path.name for path in installed.glob("*.dist-info") if path.name.partition("-")[0] in PACKAGES]
    for name in [*PACKAGES, *described]:
        if (installed / name).is_dir():
            shutil.copytree(installed / name, into / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(installed / name, into / name)
    return into


pytestmark = pytest.mark.xdist_group("django")  # the story is told once


class Notes:
    """The project in a git repository of its own, and its visitors."""

    def __init__(self, server: NornServer) -> None:
        self.server = server
        self.port = free_port()
        self.path = server.apps_dir / "notes"
        shutil.copytree(EXAMPLE, self.path, ignore=shutil.ignore_patterns("versions", "__pycache__"))
        packages = copy_packages(server.directory / "packages")
        python = Path(sys.executable).resolve()  # the one the packages were made for
        spec = self.path / "infraspec.yaml"
        text = spec.read_text().replace("port: 8081", f"port: {self.port}").replace("bake: 10s", "bake: 1s")
        text = text.replace(
            "python3 -m pip install --quiet --target deps -r requirements.txt", f"cp -r {packages} deps"
        )
        spec.write_text(text.replace("python3", str(python)))
        self.git("init", "-q", "-b", "main", ".")

    def git(self, *arguments: str) -> None:
        who = ("-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *who, *arguments], cwd=self.path, check=True, capture_output=True)

    def deploy(self, version: str = "") -> dict[str, Any]:
        if version:
            self.git("apply", str(EXAMPLE / "versions" / f"{version}.patch"))
        self.git("add", "-A")
        self.git("commit", "-qm", version or "as it is")
        return self.server.deploy("notes")

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, json.dumps(body) if body else None)
        answer = connection.getresponse()
        found = (answer.status, answer.read().decode())
        connection.close()
        return found

    def notes(self) -> Any:
        status, text = self.ask("GET", "/notes")
        assert status == 200, text
        return json.loads(text)["notes"]

    def texts(self, database: str = "") -> set[str]:
        """Of all notes there are, in another database of the server if need be."""
        with self.database() as connection:
            name = database or connection.info.dbname
            found = psycopg.connect(connection.info.dsn, password=connection.info.password, dbname=name)
            with found as other:
                return {text for (text,) in other.execute("SELECT text FROM notes_note")}

    def database(self) -> psycopg.Connection[TupleRow]:
        """As the app itself is told to connect: by the DATABASE_URL of a process of it."""
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                lines = (process / "environ").read_bytes().decode().split("\0")
                variables = dict(line.split("=", 1) for line in lines if "=" in line)
                if "NORN_INSTANCE" in variables and variables.get("HOME", "").startswith(f"{self.server.home}/"):
                    return psycopg.connect(variables["DATABASE_URL"])
        raise AssertionError("no process of the app is told a DATABASE_URL")


@pytest.fixture(scope="module")
def story() -> Iterator[tuple[Notes, list[dict[str, Any]], dict[str, Any]]]:
    """Three deploys with a note written in each, the third one broken, and the rollback."""
    with served() as server:
        notes = Notes(server)
        assert server.norn("secrets", "set", "notes", "SECRET_KEY", stdin="not-a-secret-at-all").exit_status == 0
        first = notes.deploy()
        assert notes.ask("POST", "/notes", {"text": "one"})[0] == 201
        second = notes.deploy("2-authors")
        assert notes.ask("POST", "/notes", {"text": "two", "author": "ada"})[0] == 201
        third = notes.deploy("3-pinned")
        assert notes.ask("GET", "/notes")[0] == 500, "the third version is broken in a way that users see"
        back = server.norn("rollback", "notes", "--reason", "the list is broken")
        assert back.exit_status == 0, back.err
        yield notes, [first, second, third], back.json()


Story = tuple[Notes, list[dict[str, Any]], dict[str, Any]]


def test_the_rollback_brings_the_second_version_back_with_all_notes(story: Story) -> None:
    notes, deploys, back = story
    assert back["target"]["deploymentId"] == deploys[1]["id"]
    assert notes.notes() == [{"text": "one", "author": None}, {"text": "two", "author": "ada"}]


def test_the_version_that_is_back_can_write_on_the_newer_schema(story: Story) -> None:
    notes, _, _ = story
    assert notes.ask("POST", "/notes", {"text": "three", "author": "bob"})[0] == 201
    assert {"text": "three", "author": "bob"} in notes.notes()


def test_a_rollback_reverts_code_not_data(story: Story) -> None:
    notes, _, back = story
    with notes.database() as connection:
        applied = [row[0] for row in connection.execute("SELECT name FROM django_migrations ORDER BY id")]
    assert applied == ["0001_initial", "0002_author", "0003_pinned_at"]
    assert back["verdict"]["level"] == "safe", "a nullable column is in nobody's way"
    assert [finding["code"] for finding in back["verdict"]["findings"]] == ["schema_compatible", "rows_written"]


def test_each_snapshot_has_the_schema_from_before_its_migration(story: Story, tmp_path: Path) -> None:
    notes, deploys, _ = story
    names = [deploy["snapshot"] for deploy in deploys]
    listed = notes.server.api("GET", "/api/apps/notes/snapshots").body["snapshots"]
    assert [item["name"] for item in listed] == names[:0:-1], "nothing was live at the first one: it is not kept"
    assert "author" not in table_of_contents(notes, names[1], tmp_path)
    assert "author" in table_of_contents(notes, names[2], tmp_path)
    assert "pinned_at" not in table_of_contents(notes, names[2], tmp_path)


def table_of_contents(notes: Notes, name: str, tmp_path: Path) -> str:
    """The dump as SQL, by the pg_restore that came with Norn."""
    from norn.adapters.postgres.clients import bundled

    program = bundled()[18] / "bin" / "pg_restore"
    script = tmp_path / f"{name}.sql"
    subprocess.run([program, "-f", script, notes.server.home / "snapshots" / name], check=True)
    return script.read_text()


def test_the_secret_reaches_the_app_and_no_log_or_reply(story: Story) -> None:
    notes, deploys, _ = story
    assert "not-a-secret-at-all" not in notes.server.log.read_text()
    assert "not-a-secret-at-all" not in json.dumps(deploys)
    assert "not-a-secret-at-all" not in notes.server.norn("logs", "notes").out


class Visitor(threading.Thread):
    """Writes notes, one after the other, and knows which of them were taken."""

    def __init__(self, notes: Notes, name: str) -> None:
        super().__init__(daemon=True)
        self.notes, self.who = notes, name
        self.taken: list[str] = []
        self.enough = threading.Event()

    def run(self) -> None:
        for number in itertools.count():
            if self.enough.is_set():
                return
            text = f"{self.who} {number}"
            with suppress(OSError, HTTPException):
                if self.notes.ask("POST", "/notes", {"text": text, "author": self.who})[0] == 201:
                    self.taken.append(text)

    def end(self) -> list[str]:
        self.enough.set()
        self.join()
        return self.taken


def test_a_destructive_migration_is_taken_back_with_its_data_while_visitors_write_and_that_is_undone(
    story: Story,
) -> None:
    notes, _, last = story
    notes.server.ended(last["id"])
    before = notes.notes()
    visitors = [Visitor(notes, name) for name in ("eve", "mallory")]
    for visitor in visitors:
        visitor.start()
    notes.deploy("4-anonymous")
    assert notes.notes()[0] == {"text": "one"}, "the authors are gone"

    back = notes.server.norn("rollback", "notes", "--restore-snapshot", "--yes")
    assert back.exit_status == 0, back.err
    assert notes.notes()[: len(before)] == before, "the authors are back"
    loss = back.json()["result"]["loss"]["tables"]
    (lost,) = [table for table in loss if table["table"] == "public.notes_note"]
    former = back.json()["result"]["former"]
    assert 0 < lost["written"] <= len(notes.texts(former) - notes.texts()) + 1

    notes.server.ended(back.json()["id"])
    undone = notes.server.norn("snapshots", "undo", "notes", "--yes")
    assert undone.exit_status == 0, undone.err
    taken = {text for visitor in visitors for text in visitor.end()}
    assert "author" not in notes.notes()[0]
    assert taken <= notes.texts() | notes.texts(undone.json()["result"]["former"]), "nothing that was taken is gone"
