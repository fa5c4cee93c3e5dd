"""Takes notifications out of the outbox: to whom, and again until they have arrived.

Every server does this, on the same outbox. A delivery belongs to one of them for as long as its claim lasts; what a
server did not settle because it died is due again after that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog

from norn.domain.access import Grant
from norn.domain.deployments import rfc3339
from norn.domain.notifications import (
    Result,
    body_of,
    derived_key,
    judge,
    key_text,
    pause_after,
    place_of,
    receivers_of,
    signed_headers,
)
from norn.domain.ports import Source
from norn.domain.ports.notifications import Delivery, Outbox, Unaddressed, Webhooks
from norn.domain.scrubbing import NOTHING, Scrubber
from norn.errors import NornError
from norn.waiting import wait_set

log = structlog.get_logger(__name__)

CLAIM_S = 15.0
"""Longer than an attempt takes; a delivery whose server died is due again after it."""
AT_ONCE = 8
POLL_S = 30.0
"""Behind the wake-up that comes with the end of an operation."""
_LEAST_PAUSE_S = 0.02

Told = Callable[[Result], None]


class Notifications:
    """One for a server."""

    def __init__(
        self,
        outbox: Outbox,
        source: Source,
        webhooks: Webhooks,
        installation_key: Callable[[], Awaitable[bytes]],
        *,
        receivers: Sequence[str] = (),
        key: bytes | None = None,
        told: Told = lambda _result: None,
        hides: Callable[[str], Scrubber] = lambda _app: NOTHING,
    ) -> None:
        """`receivers` hear of everything; `key` is signed with in place of the one derived from the installation's.

        `hides`: what must not be seen of an app, in what is kept of its errors.
        """
        self._outbox = outbox
        self._source = source
        self._webhooks = webhooks
        self._installation_key = installation_key
        self._receivers = receivers
        self._key = key
        self._told = told
        self._hides = hides
        self._wake = asyncio.Event()
        self._under_way = 0

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    async def run(self) -> None:
        """For ever. Cancelled, it leaves what is under way to the next server."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                pause_s = POLL_S
                try:
                    await self._address_all()
                    await self._begin_due(group)
                    due_s = await self._outbox.next_due_s()
                    if due_s is not None and self._under_way < AT_ONCE:  # else the end of one of those wakes it
                        pause_s = min(max(due_s, _LEAST_PAUSE_S), POLL_S)
                except NornError as error:
                    log.warning("notifications_failed", error=error.message)
                except Exception as error:
                    log.warning("notifications_defect", error=type(error).__name__)  # not its text, as below
                await wait_set(self._wake, pause_s)

    async def _address_all(self) -> None:
        for notification in await self._outbox.unaddressed(AT_ONCE):
            await self._address(notification)

    async def _address(self, notification: Unaddressed) -> None:
        """Where the infraspec cannot be read now, those that it names are looked for again later."""
        try:
            spec = await self._source.infraspec(await self._source.app(notification.app))
        except (NornError, OSError) as error:
            pause_s = pause_after(notification.attempts + 1)
            everywhere = receivers_of(notification.event, self._receivers, ())
            why = error.message if isinstance(error, NornError) else f"{type(error).__name__}: {error.strerror}"
            why = self._hides(notification.app).text(why)
            await self._outbox.address_later(notification.id, everywhere, pause_s, why)
            log.warning("notification_unaddressed", notification=notification.id, app=notification.app)
            return
        urls = receivers_of(notification.event, self._receivers, spec.notify)
        await self._outbox.address(notification.id, urls)

    async def _begin_due(self, group: asyncio.TaskGroup) -> None:
        room = AT_ONCE - self._under_way
        for delivery in await self._outbox.claim(CLAIM_S, room) if room > 0 else ():
            self._under_way += 1
            group.create_task(self._deliver(delivery))

    async def _deliver(self, delivery: Delivery) -> None:
        bound = log.bind(notification=delivery.notification_id, receiver=place_of(delivery.url))
        try:
            body = body_of(delivery.payload)
            timestamp = int(delivery.at.timestamp())
            headers = signed_headers(await self.key(), delivery.notification_id, timestamp, body)
            judgement = judge(await self._webhooks.post(delivery.url, headers, body), delivery.attempt)
            self._told(judgement.result)
            if judgement.result is not Result.DELIVERED:
                bound.warning("notification_" + judgement.result.value, attempt=delivery.attempt, error=judgement.error)
            await self._outbox.settle(delivery, judgement)
        except NornError as error:  # it is due again when the claim is over
            bound.warning("notification_unsettled", error=error.message)
        except Exception as error:
            # Not with its text, which may hold the URL.
            bound.error("notification_defect", error=type(error).__name__)
        finally:
            self._under_way -= 1
            self.wake()

    async def key(self) -> bytes:
        """What everything is signed with."""
        if self._key is None:
            self._key = derived_key(await self._installation_key())
        return self._key

    async def key_text(self) -> str:
        return key_text(await self.key())

    async def document(self, limit: int, grant: Grant) -> list[dict[str, Any]]:
        """Those that the grant sees: first those of which something is not delivered, then the newest."""
        return [_document(row) for row in await self._outbox.recent(limit, grant.apps)]


def _document(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "event": row["event"],
        "app": row["app"],
        "operationId": row["operation_id"],
        "at": rfc3339(row["at"]),
        "error": row["last_error"],
        "deliveries": [_delivery(delivery) for delivery in row["deliveries"]],
    }


def _delivery(row: Mapping[str, Any]) -> dict[str, Any]:
    next_at, delivered_at = _time(row["next_at"]), _time(row["delivered_at"])
    return {
        "receiver": place_of(row["url"]),
        "status": "delivered" if delivered_at else "pending" if next_at else "undelivered",
        "attempts": row["attempts"],
        "nextAt": next_at,
        "deliveredAt": delivered_at,
        "error": row["last_error"],
    }


def _time(iso: str | None) -> str | None:
    return rfc3339(datetime.fromisoformat(iso)) if iso else None
