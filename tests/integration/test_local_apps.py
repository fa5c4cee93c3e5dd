"""Apps as processes of this machine: nothing lost, nothing left over, well looked after."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from itertools import pairwise
from pathlib import Path

import pytest
from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer, until

from norn.adapters.local.instances import Tuning

CLIENTS = 20


@pytest.fixture(scope="module")
def server(shared_norn: NornServer) -> NornServer:
    return shared_norn


def processes(app: App, words: str = "server.py") -> set[int]:
    """The app's own processes (not their shims)."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            variables = (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes().split(b"\0")
            if f"HOME={app.home}".encode() in variables and words.encode() in command:
                found.add(int(process.name))
    return found


def parent(pid: int) -> int:
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text.rpartition(")")[2].split()[1])


@contextmanager
def visitors(app: App) -> Iterator[Counter[str]]:
    """Clients that ask over kept connections until the block ends; what they got, by answer."""
    seen: Counter[str] = Counter()
    stop = threading.Event()

    def visit() -> None:
        connection = HTTPConnection("127.0.0.1", app.port, timeout=20)
        while not stop.is_set():
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                text = answer.read().decode()
                seen[text if answer.status == 200 else f"lost: {answer.status}"] += 1
            except (OSError, HTTPException) as error:
                seen[f"lost: {error!r}"] += 1
                connection.close()
        connection.close()

    threads = [threading.Thread(target=visit) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def lost(seen: Counter[str]) -> list[str]:
    return [text for text in seen if text.startswith("lost")]


def test_no_request_is_lost_in_a_deploy_a_restart_and_a_rollback(server: NornServer) -> None:
    app = App(server, "busy", more="replicas: 2\n", timeout="2m")  # the visitors take all there is
    app.deploy("one")
    with visitors(app) as seen:
        app.deploy("two")
        assert server.norn("restart", "busy").exit_status == 0
        back = server.norn("rollback", "busy")
        assert back.exit_status == 0, back.err
        until(lambda: seen["one"], "the first version again")
    assert lost(seen) == []
    assert set(seen) == {"one", "two"}


def test_replicas_are_processes_and_a_restart_replaces_each(server: NornServer) -> None:
    app = App(server, "pair", more="replicas: 2\n")
    app.deploy("one")
    before = processes(app)
    assert len(before) == 2
    assert server.norn("restart", "pair").exit_status == 0
    after = processes(app)
    assert (len(after), before & after) == (2, set())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs apps as somebody else")
def test_where_norn_is_root_apps_are_not(server: NornServer) -> None:
    app = App(server, "modest")
    app.deploy("one")
    assert app.get("/uid") == "65534"
    (pid,) = processes(app)
    assert Path(f"/proc/{pid}").stat().st_uid == 65534


def test_a_process_that_ends_is_started_again_and_counted(server: NornServer) -> None:
    app = App(server, "fragile")
    app.deploy("one")
    (before,) = processes(app)
    app.get("/exit")
    until(lambda: processes(app) - {before}, "another process")
    until(lambda: app.get() == "one", "the app")
    until(lambda: server.status("fragile")["health"]["restarts"] == 1, "the note of it")


def test_a_process_that_ends_again_and_again_is_started_with_growing_delays(server: NornServer) -> None:
    note = 'open(os.environ["HOME"] + "/starts", "a").write(f"{time.monotonic()}\\n")'
    app = App(server, "hopeless")
    app.deploy("one", extra=f'{note}\nif os.path.exists(os.environ["HOME"] + "/sick"): os._exit(3)')
    (app.home / "sick").touch()
    (app.home / "starts").write_text("")
    app.get("/exit")
    until(lambda: len((app.home / "starts").read_text().split()) == 4, "four attempts")
    starts = [float(line) for line in (app.home / "starts").read_text().split()]
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    delays = [Tuning().backoff_first_s * 2**number for number in (1, 2, 3)]  # before the first start there was one
    assert all(gap >= delay for gap, delay in zip(gaps, delays, strict=True)), gaps
    assert server.status("hopeless")["health"]["restarts"] >= 3


def test_where_a_shim_is_killed_its_process_ends_and_another_takes_over(server: NornServer) -> None:
    app = App(server, "orphaned")
    app.deploy("one")
    (before,) = processes(app)
    os.kill(parent(before), signal.SIGKILL)
    until(lambda: processes(app) and before not in processes(app), "another process")
    until(lambda: app.get() == "one", "the app")
    assert len(processes(app)) == 1


def test_a_killed_proxy_is_there_again(server: NornServer) -> None:
    app = App(server, "fronted")
    app.deploy("one")
    status = (app.home.parent / "proxy" / str(app.port) / "status.json").read_text()
    pid = int(re.findall(r'"pid": (\d+)', status)[-1])
    assert b"norn.adapters.local.proxy" in Path(f"/proc/{pid}/cmdline").read_bytes()
    os.kill(pid, signal.SIGKILL)
    until(lambda: app.get() == "one", "the app")


def test_a_log_is_kept_within_bounds_and_its_end_is_shown(server: NornServer) -> None:
    app = App(server, "flood", timeout="2m")  # it prints before it serves
    app.deploy("one", extra='for number in range(400_000): print("x" * 100, number)\nsys.stdout.flush()')
    until(lambda: "serving one" in server.norn("logs", "flood").out, "the last line")
    kept = sum(path.stat().st_size for path in (app.home.parent / "instances").glob("*/log*"))
    assert kept < 32 * 1024 * 1024, "40 MB were printed"


def test_another_app_on_the_same_port_is_refused_and_the_first_one_goes_on(server: NornServer) -> None:
    first = App(server, "first")
    first.deploy("one")
    second = App(server, "second")
    second.port = first.port
    second.spec()
    second.commit("two")
    refused = server.norn("deploy", "second")
    assert (refused.exit_status, refused.json()["code"]) == (1, "port_in_use")
    assert first.get() == "one"


WORKER = "app: {name}\nrole: worker\ncommand: python3 -u server.py\nrollback: {{bake: 0s}}\n"
WORK = """\
import os, signal, sys, time
with open(os.environ["HOME"] + "/version", "w") as file:
    file.write("{version}")
print("working as {version}, port", os.environ.get("PORT"))
signal.pause()
"""


def works_as(app: App) -> str:
    with suppress(FileNotFoundError):
        return (app.home / "version").read_text()
    return ""


def test_a_worker_is_deployed_and_rolled_back_without_a_port(server: NornServer) -> None:
    app = App(server, "toiler")
    (app.path / "infraspec.yaml").write_text(WORKER.format(name="toiler"))
    for version in ("one", "two"):
        (app.path / "server.py").write_text(WORK.format(version=version))
        app.git("add", "-A")
        app.git("commit", "-qm", version)
        server.deploy("toiler")
    until(lambda: works_as(app) == "two", "its beginning")  # it has been up, and may not have come to that yet
    back = server.norn("rollback", "toiler")
    assert back.exit_status == 0, back.err
    until(lambda: works_as(app) == "one", "the first version")
    until(lambda: server.norn("logs", "toiler").out == "working as one, port None\n", "what it prints")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", app.port), 5)


def test_a_server_that_was_killed_and_started_again_adopts_the_same_processes(norn: NornServer) -> None:
    app = App(norn, "adopted", more="replicas: 2\n")
    app.deploy("one")
    before = processes(app)
    norn.kill()
    norn.start()
    until(lambda: norn.status("adopted")["health"]["ready"] == 2, "both")
    assert processes(app) == before
