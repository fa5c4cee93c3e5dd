"""Which end of an operation others are told of, in which words, signed how, and how long that is tried."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from norn.domain.deployments import rfc3339
from norn.domain.infraspec.spec import Receiver
from norn.domain.operations import OperationKind, OperationStatus

KEY_PREFIX = "whsec_"
_LABEL = b"norn: signing key of notifications, 1"
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 14_400.0
_FACTOR = 3.0
LAST_ATTEMPT = 15
"""The first is made at once, this one 22 hours and 44 minutes later where none is answered."""


class Event(StrEnum):
    """What others are told of."""

    ROLLBACK = "rollback"
    AUTOMATIC_ROLLBACK = "rollback.automatic"
    ROLLBACK_FAILED = "rollback.failed"
    DEPLOY_FAILED = "deploy.failed"
    RESTORE_FAILED = "restore.failed"


@dataclass(frozen=True, slots=True)
class Ending:
    """An operation that has ended, and the deployment that it is, where it is one."""

    operation_id: str
    app: str
    kind: OperationKind
    status: OperationStatus
    committed: bool
    automatic: bool
    """Nobody asked for it: a version that failed was put back."""
    at: datetime
    requested_by: str
    reason: str = ""
    error: Mapping[str, Any] | None = None
    image_tag: str | None = None
    from_image_tag: str | None = None
    verdict: Mapping[str, Any] | None = None


def event_of(ending: Ending) -> Event | None:
    """What its end means to others; None where it is nobody's business.

    A rollback that somebody ended while it only baked has happened all the same. A cancelled deploy is no failed one.
    """
    failed = ending.status is OperationStatus.FAILED
    match ending.kind:
        case OperationKind.ROLLBACK if failed:
            return Event.ROLLBACK_FAILED
        case OperationKind.ROLLBACK if ending.status is OperationStatus.SUCCEEDED or ending.committed:
            return Event.AUTOMATIC_ROLLBACK if ending.automatic else Event.ROLLBACK
        case OperationKind.DEPLOY if failed:
            return Event.DEPLOY_FAILED
        case OperationKind.RESTORE if failed:
            return Event.RESTORE_FAILED
    return None


def notification_id(ending: Ending) -> str:
    """The same whenever it is asked for: an operation ends once. Receivers know by it what they have seen."""
    return f"msg_{ending.operation_id}"


def payload_of(event: Event, ending: Ending) -> dict[str, Any]:
    """What is sent, as JSON."""
    error, verdict = ending.error, ending.verdict
    return {
        "id": notification_id(ending),
        "event": event.value,
        "at": rfc3339(ending.at),
        "app": ending.app,
        "operationId": ending.operation_id,
        "kind": ending.kind.value,
        "outcome": ending.status.value,
        "imageTag": ending.image_tag,
        "fromImageTag": ending.from_image_tag,
        "requestedBy": ending.requested_by,
        "reason": ending.reason,
        "error": {"code": error.get("code"), "message": error.get("message")} if error is not None else None,
        "verdict": {"level": verdict.get("level")} if verdict is not None else None,
    }


def body_of(payload: Mapping[str, Any]) -> bytes:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def receivers_of(event: str, everywhere: Sequence[str], own: Iterable[Receiver]) -> tuple[str, ...]:
    """The URLs that an event goes to, each once: the installation's hear of everything, an app's of what they want."""
    return tuple(dict.fromkeys([*everywhere, *(each.url for each in own if not each.on or event in each.on)]))


# ---- signatures: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md ------


def derived_key(installation_key: bytes) -> bytes:
    """The key of an installation that was given none: the same on each of its servers, and no way back to its own."""
    return hmac.digest(installation_key, _LABEL, hashlib.sha256)


def key_text(key: bytes) -> str:
    """As receivers are told it."""
    return KEY_PREFIX + base64.b64encode(key).decode()


def signed_headers(key: bytes, id_: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that a receiver verifies; `timestamp` is that of the attempt, in seconds since 1970."""
    signature = hmac.digest(key, f"{id_}.{timestamp}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }


# ---- attempts ----------------------------------------------------------------------------------------------------


def pause_after(attempt: int) -> float | None:
    """Seconds from the attempt of this number (from 1) to the next; None: that was the last one."""
    if attempt >= LAST_ATTEMPT:
        return None
    return min(FIRST_PAUSE_S * _FACTOR ** (attempt - 1), LONGEST_PAUSE_S)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver made of an attempt."""

    status: int | None
    """Of the HTTP answer; None where there was none."""
    why: str = ""
    """For None: what happened instead; without the URL."""


class Result(StrEnum):
    """What became of an attempt."""

    DELIVERED = "delivered"
    RETRIED = "retried"
    UNDELIVERED = "undelivered"


@dataclass(frozen=True, slots=True)
class Judgement:
    result: Result
    pause_s: float | None
    """To the next attempt; None: there is none."""
    error: str


def judge(answer: Answer, attempt: int) -> Judgement:
    """2xx is delivered, 410 wants no more of it, everything else is tried again."""
    if answer.status is not None and 200 <= answer.status < 300:
        return Judgement(Result.DELIVERED, None, "")
    if answer.status == 410:
        return Judgement(Result.UNDELIVERED, None, "answered 410: it wants no more")
    pause_s = pause_after(attempt)
    return Judgement(Result.UNDELIVERED if pause_s is None else Result.RETRIED, pause_s, _said(answer))


def _said(answer: Answer) -> str:
    if answer.status is None:
        return answer.why
    followed = "; redirects are not followed" if 300 <= answer.status < 400 else ""
    return f"answered {answer.status}{followed}"


def place_of(url: str) -> str:
    """Scheme, host and port of a URL: user, path and query may hold secrets. Empty where it leads nowhere."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if not host:
        return ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{f':{port}' if port is not None else ''}"
