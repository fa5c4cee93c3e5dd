"""A running server: the engine, the routes, and what keeps the two informed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import os
import platform
import signal
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from norn import __version__
from norn.adapters.dependencies import HttpDependencies
from norn.adapters.postgres.access import PostgresTokens
from norn.adapters.postgres.connections import Connections
from norn.adapters.postgres.outbox import PostgresOutbox
from norn.adapters.postgres.schema import migrate
from norn.adapters.postgres.standing import PostgresStanding
from norn.adapters.postgres.store import PostgresStore
from norn.adapters.snapshots.dumps import DumpSnapshots
from norn.adapters.snapshots.restores import PostgresRestores
from norn.adapters.snapshots.schemas import PostgresSchemas
from norn.adapters.snapshots.verification import ScratchVerification
from norn.adapters.webhooks import HttpWebhooks
from norn.bootstrap import logs
from norn.bootstrap.installation import Installation, home_token, lock_home, prepare_home
from norn.bootstrap.listening import http_server, keep_certificate, listen
from norn.config import Settings
from norn.domain.notifications import key_text
from norn.domain.operations import Operation, OperationKind, OperationStatus
from norn.errors import DatabaseUnavailable, NornError
from norn.http.app import create_app
from norn.http.events import encode
from norn.http.metrics import Metrics
from norn.http.requests import Context
from norn.operations.access import Gate, enter_home
from norn.operations.adopt import adopt_procedure
from norn.operations.audit import Attempts
from norn.operations.deploy import deploy_procedure
from norn.operations.direct import take_in_all
from norn.operations.engine import Engine
from norn.operations.events import Changes
from norn.operations.feed import Feed
from norn.operations.health import EVERY_S, check_all
from norn.operations.known import RENEW_S, KnownSecrets, renew_all, scrubber_of
from norn.operations.leftovers import remove_leftovers
from norn.operations.notifications import Notifications
from norn.operations.procedures import Procedures
from norn.operations.prune import prune_all, prune_procedure
from norn.operations.readiness import KeptReadiness
from norn.operations.restart import restart_procedure
from norn.operations.restore import restore_procedure
from norn.operations.rollback import rollback_procedure
from norn.operations.rollback_with_data import bring_back_forgotten, rollback_with_data_procedure
from norn.operations.services import Services, new_id
from norn.operations.snapshot import snapshot_procedure
from norn.operations.verify import verify_procedure, verify_unasked
from norn.waiting import wait_set

log = structlog.get_logger(__name__)

_RECONCILE_S = 3.0
_HALTED_S = 5.0
_TIDY_S = 3_600.0
_READINESS_S = 5.0
_VERIFY_S = 60.0
_RETENTION_S = 86_400.0
_SETTLED_S = 600.0
_HEALTH_TIMEOUT_S = 2.0
_HEALTH_KEPT_S = 1.0
_LAST_WORD_S = 1.0
"""Nobody waits longer at the end for which tokens were used to be written down."""
_LONG_WAY = ("rollback.prepare", "rollback.switch.before")
"""Points that a rollback passes only where it waits to be claimed."""
KILL_AT = "NORN_TEST_KILL_AT"
"""Tests set this to a point of the engine (`deploy.build.begun`), where the server is then killed with SIGKILL."""
FREEZE_AT = "NORN_TEST_FREEZE_AT"
"""The same with SIGSTOP, once: whoever sends SIGCONT lets it go on."""


class Server:
    """A running server: the engine, the routes, and what keeps the two informed."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._settings = installation.settings
        self.changes = Changes()
        self.metrics = Metrics()
        self.readiness = KeptReadiness()
        self._something_passed = asyncio.Event()
        """A change was accepted, has rolled out, or an operation has ended: the next rollback is another one."""
        self._tasks: list[asyncio.Task[None]] = []
        self._health: asyncio.Task[dict[str, Any]] | None = None
        self._healthy_until = 0.0
        self._measuring: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        parts = self._installation
        url = await parts.database_url()
        revision = await asyncio.to_thread(migrate, url)
        self._connections = Connections(url)
        await self._connections.open()
        self._store = PostgresStore(self._connections, parts.place())
        if self._settings.database_url is not None:  # other servers may be on it
            parts.passwords.key = self._store.installation_key
        token = home_token(self._settings.token_file)  # made before Norn's own secrets are read
        snapshots = DumpSnapshots(self._settings.snapshots_dir)
        self.services = Services(
            store=self._store,
            source=parts.source,
            images=parts.images,
            runtime=parts.runtime,
            databases=parts.databases,
            snapshots=snapshots,
            restores=PostgresRestores(snapshots),
            verification=ScratchVerification(
                snapshots, self._settings.scratch_postgres_url, self._settings.home / "postgres"
            ),
            secrets=parts.secrets,
            schemas=PostgresSchemas(),
            dependencies=HttpDependencies(),
            readiness=self.readiness,
            judged=self.metrics.verdict,
            known=KnownSecrets([*parts.own_secrets(), key_text(await self._store.installation_key())]),
            work_dir=self._settings.home / "work",
        )
        logs.hide(self.services.known)
        self.gate = Gate(PostgresTokens(self._connections))
        await enter_home(self.gate, token, platform.node())
        await self.gate.renew()
        self.metrics.read_standing = PostgresStanding(self._connections).read
        self.notifications = Notifications(
            PostgresOutbox(self._connections),
            parts.source,
            HttpWebhooks(),
            self._store.installation_key,
            receivers=self._settings.notify,
            key=self._settings.notify_key,
            told=self.metrics.delivery,
            hides=self.services.known.of,
        )
        self.attempts = Attempts(self._store.audit)
        self.engine = Engine(
            self._store,
            _procedures(self.services),
            new_id(),
            point=_faults_at(os.environ.get(KILL_AT), os.environ.get(FREEZE_AT)),
            ended=self._ended,
            scrubber_of=lambda operation: scrubber_of(self.services, operation),
        )
        logs.speak_as(self.engine.server_id)
        if not (os.environ.get(KILL_AT) or "").startswith(_LONG_WAY):
            self.services = dataclasses.replace(self.services, worker=self.engine)
        self._tasks = [
            asyncio.create_task(self.gate.run()),
            asyncio.create_task(self.notifications.run()),
            asyncio.create_task(self.attempts.run()),
            asyncio.create_task(self._repeat("postgres", _RECONCILE_S, parts.keep_postgres)),
            asyncio.create_task(self._repeat("health", EVERY_S, lambda: check_all(self.services), EVERY_S)),
            asyncio.create_task(self._repeat("halted", _HALTED_S, lambda: bring_back_forgotten(self.services))),
            asyncio.create_task(self._repeat("secrets", RENEW_S, self._learn_secrets)),
            asyncio.create_task(self._repeat("tidy", _TIDY_S, self._store.tidy)),
            asyncio.create_task(self._repeat("leftovers", _TIDY_S, lambda: remove_leftovers(self.services))),
            asyncio.create_task(
                self._repeat(
                    "readiness", _READINESS_S, lambda: self.readiness.renew(self.services), wake=self._something_passed
                )
            ),
            asyncio.create_task(self._repeat("verify", _VERIFY_S, lambda: verify_unasked(self.services), _VERIFY_S)),
            asyncio.create_task(self._repeat("retention", _RETENTION_S, lambda: prune_all(self.services), _SETTLED_S)),
        ]
        if parts.local is not None:
            reconcile = self._repeat("reconcile", _RECONCILE_S, parts.local.reconcile_all)
            self._tasks.append(asyncio.create_task(reconcile))
        if parts.cluster is not None:
            parts.cluster.start()
            taking_in = self._repeat("direct", _RECONCILE_S, lambda: take_in_all(self.services))
            self._tasks.append(asyncio.create_task(taking_in))
        await self.engine.start()
        self._tasks.append(asyncio.create_task(self._listen()))
        self._tasks.append(asyncio.create_task(self._store.hold(self.engine.server_id)))
        log.info("started", version=__version__, home=str(self._settings.home), schema=revision)

    async def _learn_secrets(self) -> None:
        """Norn's own as well: the password of the apps' PostgreSQL is made when the first app wants a database."""
        self.services.known.learn_own(await asyncio.to_thread(self._installation.own_secrets))
        await renew_all(self.services)

    def _ended(self, operation: Operation, status: OperationStatus, seconds: float) -> None:
        self.metrics.operation(operation, status, seconds)
        if operation.kind is OperationKind.ROLLBACK:
            measuring = asyncio.create_task(self._measure_recovery(operation))
            self._measuring.add(measuring)
            measuring.add_done_callback(self._measuring.discard)

    async def _measure_recovery(self, operation: Operation) -> None:
        """From the request to the moment at which all of the target was healthy, where it came to that."""
        with contextlib.suppress(DatabaseUnavailable):
            deployment = await self._store.deployment(operation.id)
            if deployment is not None and deployment.rolled_out_at is not None:
                self.metrics.recovered(operation, (deployment.rolled_out_at - operation.requested_at).total_seconds())

    async def stop(self) -> None:
        """Hand over what is under way; apps and their database run on."""
        await self.engine.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(DatabaseUnavailable, TimeoutError):
            async with asyncio.timeout(_LAST_WORD_S):
                await self.gate.write_use(all_of_it=True)
        if self._installation.cluster is not None:
            await self._installation.cluster.stop()
        await self._connections.close()
        if self._settings.database_url is None:
            await self._installation.own_postgres.stop()
        log.info("stopped")

    def keep_certificate(self, context: ssl.SSLContext) -> None:
        """Take up a certificate that is renewed."""
        cert, key = self._settings.tls_cert, self._settings.tls_key
        assert cert is not None
        assert key is not None
        self._tasks.append(asyncio.create_task(keep_certificate(context, cert, key)))

    async def _listen(self) -> None:
        """Pass on what servers say when they commit."""
        async for payload in self._store.notifications():
            kind, _, operation_id = payload.partition(":")  # of `access` the token's
            if kind == "operations":
                self.engine.wake()
                self.notifications.wake()
            elif kind == "cancel":
                self.engine.cancel(operation_id)
            elif kind == "events":
                self.changes.wake()
            elif kind == "access":
                self.gate.forget(operation_id)
            elif kind == "passed":
                self.changes.wake(operation_id)
                self._something_passed.set()

    @staticmethod
    async def _repeat(
        name: str,
        every_s: float,
        action: Callable[[], Awaitable[object]],
        first_after_s: float = 0.0,
        wake: asyncio.Event | None = None,
    ) -> None:
        """For ever: every so many seconds, and at once when `wake` is set."""
        wake = wake or asyncio.Event()
        await asyncio.sleep(first_after_s)
        while True:
            try:
                await action()
            except NornError as error:
                log.warning(f"{name}_failed", error=error.message)
            except OSError as error:
                log.warning(f"{name}_failed", error=str(error))
            except Exception:  # a defect once is no reason never to do it again
                log.exception(f"{name}_failed")
            await wait_set(wake, every_s)
            wake.clear()

    async def health(self) -> dict[str, Any]:
        """Each part's state, within two seconds; for a second the same for all who ask, since anybody may."""
        if self._health is None or (self._health.done() and time.monotonic() >= self._healthy_until):
            self._health = asyncio.create_task(self._look())
        return await asyncio.shield(self._health)

    async def _look(self) -> dict[str, Any]:
        parts = {
            "database": await _state(self._store.now()),
            "appsDirectory": await _state(self._installation.source.apps()),
        }
        if self._installation.cluster is not None:
            parts["cluster"] = await _state(self._installation.cluster.reachable())
        self._healthy_until = time.monotonic() + _HEALTH_KEPT_S
        return parts


def _procedures(services: Services) -> Procedures:
    by_kind = {
        OperationKind.DEPLOY: deploy_procedure(services),
        OperationKind.ROLLBACK: rollback_procedure(services),
        OperationKind.RESTART: restart_procedure(services),
        OperationKind.ADOPT: adopt_procedure(services),
        OperationKind.SNAPSHOT: snapshot_procedure(services),
        OperationKind.VERIFY: verify_procedure(services),
        OperationKind.RESTORE: restore_procedure(services),
        OperationKind.PRUNE: prune_procedure(services),
    }
    with_data = rollback_with_data_procedure(services)
    return lambda operation: with_data if operation.params.get("withData") else by_kind[operation.kind]


async def _state(check: Awaitable[object]) -> dict[str, Any]:
    try:
        async with asyncio.timeout(_HEALTH_TIMEOUT_S):
            await check
    except NornError as error:  # whose words name hosts and users, which anybody would read
        log.warning("part_does_not_answer", error=error.message)
        return {"ok": False, "message": "does not answer"}
    except TimeoutError:
        return {"ok": False, "message": f"did not answer within {_HEALTH_TIMEOUT_S:g} s"}
    return {"ok": True, "message": ""}


def _faults_at(killed: str | None, frozen: str | None) -> Callable[[str], None]:
    def point(name: str) -> None:
        nonlocal frozen
        if name == killed:
            os.kill(os.getpid(), signal.SIGKILL)
        if name == frozen:
            frozen = None
            os.kill(os.getpid(), signal.SIGSTOP)

    return point


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    prepare_home(settings.home)
    lock = lock_home(settings.home)
    listener = listen(settings)
    server = Server(Installation(settings))
    try:
        await server.start()
        feed = Feed(server.services.store, server.changes, encode)
        context = Context(server.services, server.changes, feed, server.notifications, server.attempts, server.gate)
        app = create_app(context, server.metrics, server.health)
        http = http_server(app, settings)
        if http.config.ssl is not None:
            server.keep_certificate(http.config.ssl)
        # What was made until here stays for good: a full collection in the middle of a rollback need not look at it.
        gc.collect()
        gc.freeze()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, http.end)
        host, port = listener.getsockname()[:2]
        log.info("listening", url=f"{'https' if http.config.is_ssl else 'http'}://{host}:{port}")
        await http.serve(sockets=[listener])
    finally:
        listener.close()
        with contextlib.suppress(DatabaseUnavailable, AttributeError):
            await server.stop()
        lock.close()
