"""What an app prints of its secrets, at whatever moment, is nowhere to be seen: not in what Norn keeps, says, logs."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer, served, until
from tests.fixtures.visitor import Visitor

from norn.adapters.accounts import can_reach, for_apps
from norn.domain.scrubbing import MARK

pytestmark = pytest.mark.xdist_group("secrets")

KEY = "hunter2-and-two"
LINES = "first-line-of-the-key\nsecond-line-of-the-key\n"
NOTIFY_KEY = f"whsec_{base64.b64encode(b'n' * 32).decode()}"

PRINTS = """\
import base64, os, sys, time
key = "hunter2-" + "and-two"
print("as it is", key, "from", sys.argv[1])
print("base64", base64.b64encode(("user:" + key).encode()).decode())
for name in ("SMTP_KEY", "LINES", "DATABASE_URL"):
    print(name, os.environ.get(name, "none"))
sys.stdout.flush()
sys.stdout.write("in halves hunter2-")
sys.stdout.flush()
time.sleep(0.6)
print("and-two; https://ada:geheimnis@example.com/x")
sys.stdout.flush()
sys.exit(int(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[NornServer]:
    if not can_reach(Path(App.psql), for_apps()):
        pytest.skip("programs are where apps cannot reach them")
    with served(NORN_NOTIFY_KEY=NOTIFY_KEY) as server:
        yield server


@pytest.fixture(scope="module")
def ids(server: NornServer) -> list[str]:
    """An app that prints what it should not: in a deploy that succeeds, and in one whose migration fails."""
    app = App(server, "shop")
    server.norn("secrets", "set", "shop", "SMTP_KEY", stdin=KEY)
    server.norn("secrets", "set", "shop", "LINES", stdin=LINES)

    def spec(status: int) -> None:
        app.spec(
            "secrets: [SMTP_KEY, LINES]\n"
            "build: {command: python3 prints.py build 0, test: python3 prints.py test 0}\n"
            "services: {postgres: {database: shop}}\n"
            f"migrations: {{command: python3 prints.py migration {status}}}\n"
        )

    spec(0)
    app.deploy("one", extra="print(os.environ, flush=True)", files={"prints.py": PRINTS})
    spec(1)
    app.commit("two")
    failed = server.norn("deploy", "shop", "--reason", f"the key is {KEY}, the token {server.token}")
    assert failed.exit_status == 1
    return [deployment["id"] for deployment in server.history("shop")]


@pytest.fixture(scope="module")
def hidden(server: NornServer, ids: list[str]) -> list[str]:
    """What must not be seen anywhere."""
    password = (server.home / "postgres-passwords" / "shop").read_text()
    encoded = base64.b64encode(f"user:{KEY}".encode()).decode()[8:]
    return [KEY, encoded, *LINES.split(), password, "geheimnis", server.token, NOTIFY_KEY.removeprefix("whsec_")]


def seen(hidden: list[str], text: str) -> list[str]:
    return [value for value in hidden if value in text]


def test_the_output_of_every_step_is_there_without_them(server: NornServer, ids: list[str], hidden: list[str]) -> None:
    text = json.dumps([server.operation(id_) for id_ in ids], ensure_ascii=False)
    assert seen(hidden, text) == []
    for step in ("build", "test", "migration"):
        assert f"as it is {MARK} from {step}" in text
    assert f"in halves {MARK}; https://ada:{MARK}@example.com/x" in text
    assert "DATABASE_URL postgresql://" in text


def test_events_are_without_them(server: NornServer, ids: list[str], hidden: list[str]) -> None:
    text = "".join(server.norn("watch", id_).out for id_ in ids)
    assert MARK in text
    assert seen(hidden, text) == []


def test_the_error_of_a_failed_deploy_is_without_them(server: NornServer, ids: list[str], hidden: list[str]) -> None:
    error = server.operation(ids[0])["error"]
    assert (error["code"], MARK in error["output"]) == ("migration_failed", True)
    shown = server.norn("deploy", "shop")
    assert seen(hidden, shown.out + shown.err + json.dumps(error)) == []


def test_what_the_app_prints_is_shown_without_them(server: NornServer, ids: list[str], hidden: list[str]) -> None:
    def printed() -> str:
        text: str = server.norn("logs", "shop", "-o", "text").out
        return text if "SMTP_KEY" in text else ""

    text = until(printed, "what the app prints")
    assert seen(hidden, text) == []


def test_no_page_shows_them(server: NornServer, ids: list[str], hidden: list[str]) -> None:
    visitor = Visitor(server)
    pages = {
        path: visitor.get(path)
        for path in (
            "/", "/parts/apps", "/apps/shop", "/apps/shop/parts/head", "/apps/shop/parts/history",
            "/apps/shop/parts/health", "/apps/shop/rollback", "/apps/shop/snapshots", "/apps/shop/retention", "/audit",
            *(f"/operations/{id_}" for id_ in ids), *(f"/operations/{id_}/parts/progress" for id_ in ids),
            *(f"/operations/{id_}/output/{n}" for id_ in ids for n, _ in enumerate(server.operation(id_)["steps"])),
        )
    }  # fmt: skip
    assert {path: page.status for path, page in pages.items() if page.status != 200} == {}
    assert any(MARK in page.source for page in pages.values())
    assert {path: found for path, page in pages.items() if (found := seen(hidden, page.source))} == {}


def test_a_password_in_a_url_that_is_refused_is_shown_to_nobody(server: NornServer) -> None:
    directory = server.apps_dir / "wrong"
    directory.mkdir()
    url = "postgresql+psycopg://wrong:hunter2-in-a-url@db/wrong"
    (directory / "infraspec.yaml").write_text(
        f"app: wrong\nrole: worker\ncommand: run\nservices: {{postgres: {{database: wrong, url: '{url}'}}}}\n"
    )
    visitor = Visitor(server)
    texts = [visitor.get(path).source for path in ("/", "/apps/wrong", "/apps/wrong/retention")]
    texts += [json.dumps(server.api("GET", path).body) for path in ("/api/apps", "/api/apps/wrong")]
    assert all("services.postgres.url" in text for text in texts)
    assert [text for text in texts if "hunter2" in text] == []


def test_nothing_of_them_is_in_norns_own_database(server: NornServer, ids: list[str], hidden: list[str]) -> None:
    text = dump(server)
    assert "deploy.failed" in text
    assert MARK in text
    assert seen(hidden, text) == []


def test_nothing_of_them_is_in_the_log_of_the_server(server: NornServer, ids: list[str], hidden: list[str]) -> None:
    server.api("GET", f"/api/deployments/{KEY}")
    assert seen(hidden, server.log.read_text(encoding="utf-8")) == []


def dump(server: NornServer) -> str:
    """Every row of every table of Norn's own database."""
    directory = server.home / "postgres" / "norn"
    port, password = ((directory / name).read_text() for name in ("port", "password"))
    rows: list[Any] = []
    with psycopg.connect(host="127.0.0.1", port=port, user="norn", password=password, dbname="norn") as connection:
        for (table,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall():
            query = sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(table))
            rows += [text for (text,) in connection.execute(query).fetchall()]
    return "\n".join(rows)
