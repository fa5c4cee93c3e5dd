"""A PostgreSQL server of Norn's own: made where it is missing, found again after a crash, never root.

It listens on 127.0.0.1 alone, wants a password (SCRAM), and outlives the server that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from norn.adapters.accounts import Account, can_reach
from norn.adapters.postgres.clients import bundle_version, installations
from norn.adapters.processes import start_time
from norn.errors import ProgramFailed, ProgramMissing, Unavailable

DEFAULT_MAJOR = 18
SUPERUSER = "norn"
# Below the range from which the kernel takes ports for outgoing connections (32768 and up): nobody gets it by chance.
_PORTS = range(20_000, 30_000)
_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 30
# What a killed postmaster leaves for moments: its processes' shared memory, and its own id until it is reaped.
_LEFTOVERS = ("is still in use", '"postmaster.pid" already exists')
_LEFTOVERS_TIMEOUT_S = 20
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    # Its own log files, by weekday and overwritten after a week: bounded without anybody looking after them.
    "logging_collector": "on",
    "log_filename": "postgresql-%a.log",
    "log_truncate_on_rotation": "on",
    "log_rotation_size": "0",
}


class EmbeddedPostgres:
    """One data directory and the server on it.

    Args:
        directory: where everything of it is kept: `data/`, `port`, `password`, `start.log`.
        account: as whom it runs; None: as oneself.
        major: for a new data directory; an existing one keeps its own for ever.
        keep_port: the port is known to others (apps' DATABASE_URL): taken by a stranger, that is an error and no
            reason to move.
        settings: over the ones above.
        also_on: another address of this machine to listen on, for whoever is not the superuser.
    """

    def __init__(
        self,
        directory: Path,
        *,
        account: Account | None,
        major: int = DEFAULT_MAJOR,
        keep_port: bool = False,
        settings: Mapping[str, str] | None = None,
        also_on: str | None = None,
    ) -> None:
        self._directory = directory
        self._data = directory / "data"
        self._account = account
        self._major = major
        self._keep_port = keep_port
        self._settings = _SETTINGS | dict(settings or {})
        self._also_on = also_on
        self._started = asyncio.Lock()

    async def start(self) -> str:
        """The superuser's URL of a server that answers: the running one, or one started now.

        Raises ProgramMissing (no such PostgreSQL here), Unavailable (it does not start; the message has its log's end).
        """
        async with self._started:
            return await asyncio.to_thread(self._start)

    async def stop(self) -> None:
        """End it, sessions included; does nothing where it does not run."""
        async with self._started:
            await asyncio.to_thread(self._stop)

    def running(self) -> bool:
        """Whether a server of ours is at work on the data directory."""
        return self._postmaster() is not None

    # ---- files ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One start or stop at a time, whichever process asks."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        with (self._directory / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _write(self, name: str, text: str) -> None:
        path = self._directory / name
        temporary = path.with_name(f".{name}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def _read(self, name: str) -> str | None:
        try:
            return (self._directory / name).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None

    def _url(self) -> str:
        password, port = self._read("password"), self._read("port")
        return f"postgresql://{SUPERUSER}:{quote(password or '', safe='')}@127.0.0.1:{port}/postgres"

    # ---- programs ------------------------------------------------------------------------------------------------

    def _programs(self) -> Path:
        """The `bin` of the version that the data directory has, at a place that the account can reach."""
        major = self._major
        with contextlib.suppress(FileNotFoundError):
            major = int((self._data / "PG_VERSION").read_text(encoding="ascii"))
        try:
            installation = installations()[major]
        except KeyError as error:
            raise ProgramMissing(
                f"{self._data} wants PostgreSQL {major}, which did not come with this Norn and is not installed.",
                hint=f"A data directory keeps its version: apt-get install postgresql-{major}, or dump and restore.",
            ) from error
        if can_reach(installation / "bin" / "postgres", self._account):
            return installation / "bin"
        return (
            _reachable_copy(installation, self._directory.parent / "programs" / f"{major}-{bundle_version()}") / "bin"
        )

    def _run(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        popen = self._account.as_popen() if self._account else {}
        with (self._directory / "start.log").open("a+", encoding="utf-8", errors="replace") as log:
            log.truncate(0)
            done = subprocess.run(  # type: ignore[call-overload]
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,  # a file: the server inherits it, and a pipe would never end
                stderr=log,
                cwd="/",
                env={"PATH": os.defpath, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"},
                start_new_session=True,
                timeout=_START_TIMEOUT_S + 10,
                check=False,
                **popen,
            )
            log.seek(0)
            return subprocess.CompletedProcess(argv, done.returncode, stdout=log.read()[-4_000:])

    # ---- start and stop ------------------------------------------------------------------------------------------

    def _postmaster(self) -> int | None:
        """The process id of the server on our data directory (the postmaster.pid of PostgreSQL, checked)."""
        try:
            pid = int((self._data / "postmaster.pid").read_text(encoding="ascii").split("\n", 1)[0])
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if str(self._data).encode() in words and start_time(pid) is not None else None

    def _start(self) -> str:
        with self._lock():
            if not can_reach(self._directory, self._account):
                raise Unavailable(
                    f"The user {self._account.name if self._account else ''!r}, as whom PostgreSQL runs, cannot reach "
                    f"{self._directory}.",
                    hint="Set NORN_HOME to a directory that others may enter, /var/lib/norn for example.",
                )
            if not (self._data / "PG_VERSION").exists():
                self._initialise()
            if self._postmaster() is None or not self._answers():
                self._launch()
            return self._url()

    def _initialise(self) -> None:
        """Make the data directory under another name, and give it its own only when it is complete."""
        half_done = self._directory / "data.part"
        shutil.rmtree(half_done, ignore_errors=True)
        half_done.mkdir(mode=0o700)
        self._write("password", secrets.token_urlsafe(32))
        handed_over = self._directory / ".initdb-password"
        shutil.copy(self._directory / "password", handed_over)
        handed_over.chmod(0o600)
        if self._account is not None:
            for path in (half_done, handed_over):
                os.chown(path, self._account.uid, self._account.gid)
        try:
            done = self._run(
                [
                    str(self._programs() / "initdb"), "--pgdata", str(half_done), "--data-checksums",
                    "--username", SUPERUSER, "--pwfile", str(handed_over), "--auth", "scram-sha-256",
                    "--encoding", "UTF8", "--locale", "C.UTF-8",
                ]
            )  # fmt: skip
        finally:
            handed_over.unlink(missing_ok=True)
        if done.returncode != 0:
            raise ProgramFailed("initdb failed: the embedded PostgreSQL could not be made.", output=done.stdout)
        half_done.rename(self._data)

    def _port(self) -> int:
        kept = self._read("port")
        if kept is not None and (self._keep_port or _is_free(int(kept))):
            return int(kept)
        for _ in range(200):
            port = random.choice(_PORTS)
            if _is_free(port):
                self._write("port", str(port))
                return port
        raise Unavailable(f"No port between {_PORTS.start} and {_PORTS.stop} is free.", hint="End what listens there.")

    def _open_to(self, address: str) -> dict[str, str]:
        """Settings for listening on another address, too: apps' roles may come from anywhere, the superuser may not."""
        hba = self._directory / "pg_hba.conf"
        lines = (
            f"host all {SUPERUSER} 127.0.0.1/32 scram-sha-256",
            f"host all {SUPERUSER} all reject",
            "host all all all scram-sha-256",
        )
        hba.write_text("\n".join(lines) + "\n", encoding="ascii")
        if self._account is not None:
            os.chown(hba, self._account.uid, self._account.gid)
        return {"listen_addresses": f"127.0.0.1,{address}", "hba_file": str(hba)}

    def _launch(self) -> None:
        port = self._port()
        if self._postmaster() is None and not _is_free(port):
            raise Unavailable(
                f"Port {port} of the embedded PostgreSQL ({self._directory}) is taken by another program.",
                hint=f"Find it with `ss -ltnp sport = :{port}` and end it: apps know their database by this port.",
                port=port,
            )
        settings = self._settings | (self._open_to(self._also_on) if self._also_on else {})
        options = " ".join(f"-c {name}={value or chr(39) * 2}" for name, value in settings.items())
        argv = [
            str(self._programs() / "pg_ctl"), "start", "--wait", "--timeout", str(_START_TIMEOUT_S), "--pgdata",
            str(self._data), "--options", f"-p {port} {options}",
        ]  # fmt: skip
        done = self._run(argv)
        deadline = time.monotonic() + _LEFTOVERS_TIMEOUT_S
        while (
            done.returncode != 0
            and any(words in done.stdout for words in _LEFTOVERS)
            and self._postmaster() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.2)
            done = self._run(argv)
        if done.returncode != 0 and not self._answers():
            raise Unavailable(
                f"The embedded PostgreSQL on {self._data} does not start.",
                hint=f"Look at {self._data}/log; is the disk full?",
                output=done.stdout,
            )

    def _answers(self) -> bool:
        port = self._read("port")
        if port is None:
            return False
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(port)), 5):
            return True
        return False

    def _stop(self) -> None:
        if not self._data.exists():
            return
        with self._lock():
            for number, timeout_s in ((signal.SIGINT, _STOP_TIMEOUT_S), (signal.SIGQUIT, 10)):
                pid = self._postmaster()
                if pid is None:
                    return
                os.kill(pid, number)  # SIGINT: fast shutdown; SIGQUIT: immediate, recovered at the next start
                deadline = time.monotonic() + timeout_s
                while self._postmaster() is not None and time.monotonic() < deadline:
                    time.sleep(0.02)


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _reachable_copy(installation: Path, directory: Path) -> Path:
    """A copy of the programs outside of a private home directory; complete, or not there.

    The programs of a wheel look for their libraries beside its package (`$ORIGIN/../../../<package>.libs`): both are
    copied as they lie to each other.
    """
    package = installation.parent
    libraries = package.with_name(f"{package.name}.libs")
    if not directory.exists():
        directory.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        half_done = directory.with_name(f"{directory.name}.{os.getpid()}.part")
        shutil.rmtree(half_done, ignore_errors=True)
        shutil.copytree(installation, half_done / package.name / installation.name, symlinks=True)
        if libraries.exists():
            shutil.copytree(libraries, half_done / libraries.name, symlinks=True)
        try:
            half_done.rename(directory)
        except OSError:  # another server has just made it
            shutil.rmtree(half_done, ignore_errors=True)
            if not directory.exists():
                raise
    return directory / package.name / installation.name
