"""norn doctor: what is missing or wrong here, and the mend"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from norn.cli.context import Context
from norn.errors import EXIT_DONE, EXIT_FAILED, NornError

_MIN_FREE_BYTES = 1 << 30


class Finding(NamedTuple):
    check: str
    ok: bool
    message: str
    mend: str = ""


def add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.description = "Look at this machine, the settings and the server; say what is wrong, and the mend."
    parser.epilog = "examples:\n  norn doctor"
    parser.set_defaults(run=run)


def run(context: Context) -> int:
    checks = (_programs, _home, _snapshots, _apps, _server)
    findings = [finding for check in checks for finding in _guarded(check, context)]
    document = {"ok": all(finding.ok for finding in findings), "findings": [finding._asdict() for finding in findings]}
    context.printer.result(document, lambda: "\n".join(map(_text, findings)))
    return EXIT_DONE if document["ok"] else EXIT_FAILED


def _guarded(check: Callable[[Context], Iterator[Finding]], context: Context) -> list[Finding]:
    """A check that cannot be made is a finding itself."""
    try:
        return list(check(context))
    except NornError as error:
        return [Finding(check.__name__.strip("_"), ok=False, message=error.message, mend=error.hint)]


def _text(finding: Finding) -> str:
    mend = f"\n        {finding.mend}" if finding.mend and not finding.ok else ""
    return f"{'ok   ' if finding.ok else 'WRONG'}  {finding.check}: {finding.message}{mend}"


def _programs(_context: Context) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", ok=True, message=version)
    git = shutil.which("git")
    yield Finding("git", ok=git is not None, message=git or "not installed", mend="apt-get install git")


def _home(context: Context) -> Iterator[Finding]:
    home = context.settings.home
    if not home.exists():
        yield Finding("NORN_HOME", ok=True, message=f"{home} will be made by `norn serve`")
        return
    mode = home.stat().st_mode & 0o777
    reachable = os.geteuid() != 0 or bool(mode & 0o001)
    yield Finding(
        "NORN_HOME", ok=reachable, message=f"{home}, mode {mode:o}",
        mend=f"Apps run as another user and must reach it: chmod o+x {home}",
    )  # fmt: skip
    free = shutil.disk_usage(home).free
    yield Finding(
        "disk", ok=free > _MIN_FREE_BYTES, message=f"{free >> 20} MiB free",
        mend="A build, a dump and PostgreSQL want a gibibyte: make room.",
    )  # fmt: skip
    token = context.settings.token_file
    if token.exists():
        token_mode = token.stat().st_mode & 0o777
        yield Finding(
            "token", ok=token_mode == 0o600, message=f"{token}, mode {token_mode:o}",
            mend=f"Others can read it: chmod 600 {token}",
        )  # fmt: skip


def _snapshots(context: Context) -> Iterator[Finding]:
    """Whether one more dump like the largest would find room."""
    directory = context.settings.snapshots_dir
    if not directory.exists():
        return
    sizes = [path.stat().st_size for path in directory.glob("*.dump")]
    free, wanted = shutil.disk_usage(directory).free, round(max(sizes, default=0) * 1.1)
    yield Finding(
        "snapshots", ok=free >= wanted,
        message=f"{directory}: {len(sizes)} with {sum(sizes):,} bytes, {free:,} bytes free",
        mend="The next one may find no room: fewer `artifacts.retain` and `norn prune`, or set NORN_SNAPSHOTS_DIR.",
    )  # fmt: skip


def _apps(context: Context) -> Iterator[Finding]:
    from norn.cli.validate import check_file

    directory = context.settings.apps_dir
    files = sorted(directory.glob("*/infraspec.yaml"))
    yield Finding(
        "NORN_APPS_DIR", ok=bool(files), message=f"{directory}: {len(files)} apps",
        mend="Put a directory with an infraspec.yaml there, or set NORN_APPS_DIR.",
    )  # fmt: skip
    for file in files:
        problems = check_file(file)["problems"]
        yield Finding(
            file.parent.name, ok=not problems, message=problems[0]["message"] if problems else "its infraspec is fine",
            mend=f"norn validate {file.parent}",
        )  # fmt: skip
        if not problems and not _in_git(file.parent):
            yield Finding(
                file.parent.name, ok=False, message="is not in a git work tree",
                mend="Deploys are made from commits: git init, git add, git commit.",
            )  # fmt: skip


def _in_git(path: Path) -> bool:
    text = (path / "infraspec.yaml").read_text(encoding="utf-8", errors="replace")
    return any((parent / ".git").exists() for parent in (path, *path.parents)) or "\nrepo:" in f"\n{text}"


def _server(context: Context) -> Iterator[Finding]:
    health: dict[str, Any] = context.client.get("/api/health")
    yield Finding("server", ok=True, message=f"{context.client.url}, version {health['version']}")
    for name, part in health["parts"].items():
        yield Finding(f"server: {name}", ok=part["ok"], message=part["message"] or "ok")
    context.client.get("/api/apps")
    yield Finding("access", ok=True, message="the server knows the token")
    try:
        servers = context.client.get("/api/servers")
    except NornError as error:
        if error.code != "not_allowed":
            raise
        yield Finding("servers", ok=True, message="not looked at: the token is for some apps")
    else:
        yield from _servers(servers)
    yield from _notifications(context)


def _servers(found: dict[str, Any]) -> Iterator[Finding]:
    """Those that work on the same database, and what is left of one that has died."""
    alive = [server for server in found["servers"] if not server["dead"]]
    yield Finding("servers", ok=True, message=f"{len(alive)} at work: {', '.join(one['host'] for one in alive)}")
    for server in found["servers"]:
        if server["dead"]:
            yield Finding(
                "servers", ok=False,
                message=f"{server['id']} on {server['host']}: not heard of for {server['silentS']:.0f} s",
                mend="Start it again; another one has taken over its operations. It is forgotten after a day.",
            )  # fmt: skip
    for lease in found["staleLeases"]:
        yield Finding(
            "leases", ok=False,
            message=f"nobody works on the {lease['kind']} {lease['operationId']} of {lease['app']}: "
            f"its server has been silent for {lease['overdueS']:.0f} s longer than it may",
            mend="A server takes it up that can: on the local runtime only the one on its machine and NORN_HOME.",
        )  # fmt: skip


def _notifications(context: Context) -> Iterator[Finding]:
    """What has not arrived, by receiver."""
    found: dict[str, list[str]] = {}
    for notification in context.client.get("/api/notifications?limit=200")["notifications"]:
        for delivery in notification["deliveries"]:
            if delivery["status"] != "delivered" and delivery["error"]:
                found.setdefault(delivery["receiver"], []).append(delivery["error"])
        if notification["error"]:
            found.setdefault(f"the receivers of {notification['app']}", []).append(notification["error"])
    if not found:
        yield Finding("notifications", ok=True, message="all have arrived")
    for receiver, errors in found.items():
        yield Finding(
            "notifications", ok=False, message=f"{len(errors)} undelivered to {receiver}: {errors[0]}",
            mend="`norn notifications list` shows them; what is still tried arrives once the receiver answers 2xx.",
        )  # fmt: skip
