"""The first view of an app with 10,000 deployments and a day of health checks: how long, and how many bytes.

A real server with an app that runs; its history is filled by SQL. The first view is the page with its style, scripts
and icon, packed as they come over the wire, headers included. Counted is the time of the server for the page, as a
client on the same machine sees it; the way back, which may take longer to find out, is in the page where it is known.
"""

from __future__ import annotations

import re
import time
from http.client import HTTPConnection

import psycopg
from tests.fixtures.apps import App
from tests.fixtures.norn import NornServer, served, until
from tests.fixtures.visitor import Visitor

from benchmarks.report import show, summary_ms

DEPLOYMENTS = 10_000
VIEWS = 200
REACH_MS, REACH_BYTES = 200.0, 100_000

OPERATIONS = """
INSERT INTO operations (id, app, kind, status, params, requested_by, finished_at)
SELECT 'h' || n, 'shop', 'deploy', 'succeeded', '{}', 'bench', now() FROM generate_series(1, %(count)s) n
"""
HISTORY = """
INSERT INTO deployments (id, seq, app, kind, status, image_tag, digest, commit_sha, commit_subject, origin_seq,
                         requested_by, reason, requested_at, started_at, finished_at, rolled_out_at,
                         proven_at, live_from, live_until)
OVERRIDING SYSTEM VALUE
SELECT 'h' || n, n - %(count)s, 'shop', 'deploy', CASE WHEN n %% 10 = 0 THEN 'failed' ELSE 'deployed' END,
       'shop:' || substr(md5(n::text), 1, 12), 'sha256:' || md5(n::text), md5(n::text) || '00000000',
       'What was changed in version ' || n || ', in about as many words as people write', n - %(count)s, 'bench',
       'because of number ' || n, at, at, at + interval '90 seconds', at, at, at, at + interval '1 hour'
FROM (SELECT n, now() - (%(count)s - n + 1) * interval '1 hour' AS at FROM generate_series(1, %(count)s) n) times
ORDER BY n
"""
HEALTH = """
INSERT INTO health_checks (app, at, wanted, ready, restarts, response_ms, message)
SELECT 'shop', now() - n * interval '10 seconds', 2, CASE WHEN n %% 500 = 0 THEN 1 ELSE 2 END, 0, 5 + n %% 17, ''
FROM generate_series(1, 8640) n
"""


def fill(server: NornServer) -> None:
    """Ten thousand deployments, older than what is live, and a day of checks."""
    directory = server.home / "postgres" / "norn"
    port, password = ((directory / name).read_text() for name in ("port", "password"))
    with psycopg.connect(host="127.0.0.1", port=port, user="norn", password=password, dbname="norn") as connection:
        for statement in (OPERATIONS, HISTORY, HEALTH):
            connection.execute(statement, {"count": DEPLOYMENTS})
        connection.commit()
        connection.autocommit = True
        connection.execute("ANALYZE")


def wire_bytes(server: NornServer, visitor: Visitor, path: str) -> int:
    """Of an answer, packed, with its headers."""
    page = visitor.get(path, Accept_Encoding="gzip")
    return len(page.body) + sum(len(name) + len(value) + 4 for name, value in page.headers.items()) + 17


def measure(server: NornServer, visitor: Visitor, path: str) -> list[float]:
    """Seconds of each view over one connection."""
    connection = HTTPConnection("127.0.0.1", server.port)
    seconds = []
    for number in range(VIEWS + 10):
        began = time.perf_counter()
        connection.request("GET", path, headers=visitor.headers | {"Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        answer.read()
        if number >= 10:
            seconds.append(time.perf_counter() - began)
    connection.close()
    return seconds


def main() -> None:
    with served() as server:
        app = App(server, "shop", more="replicas: 2")
        app.deploy("one")
        app.deploy("two")
        fill(server)
        visitor = Visitor(server)
        until(lambda: "being found out" not in visitor.get("/apps/shop").text, "the way back to be known")
        first = visitor.get("/apps/shop")
        assert len(first.all("li", class_="entry good")) > 10
        files = re.findall(r'(?:src|href)="(/static/[^"]+)"', first.source)
        views = {path: measure(server, visitor, path) for path in ("/apps/shop", "/apps/shop?hours=24", "/")}
        page = wire_bytes(server, visitor, "/apps/shop")
        all_bytes = page + sum(wire_bytes(server, visitor, file) for file in dict.fromkeys(files))
        slowest = max(max(views["/apps/shop"]), max(views["/apps/shop?hours=24"])) * 1_000
    figures = {path: summary_ms(seconds) for path, seconds in views.items()}
    show(
        "first view of an app",
        {f"{path}, {VIEWS} views": figure for path, figure in figures.items()}
        | {"slowest of an app, ms": round(slowest, 1), "page, bytes": page, "with its files, bytes": all_bytes},
        reach=f"with {DEPLOYMENTS:,} deployments at most {REACH_MS:.0f} ms on the server, {REACH_BYTES:,} bytes",
        reached=figures["/apps/shop"]["medianMs"] <= REACH_MS and all_bytes <= REACH_BYTES,
    )


if __name__ == "__main__":
    main()
