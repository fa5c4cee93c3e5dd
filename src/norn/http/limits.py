"""How many wrong tokens may come from one address, and how large and how slow a request may be."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from norn.errors import TooLarge, TooSlow
from norn.http.problems import problem_response

MAX_BODY_BYTES = 1_048_576
BODY_S = 30.0
"""Within which a body has to arrive."""
_DIGITS = len(str(MAX_BODY_BYTES))
BURST = 20
PER_S = 1 / 3
_ADDRESSES = 10_000


class WrongTokens:
    """A bucket for each address: twenty wrong tokens, and one more every three seconds.

    It is about wrong ones alone. Who has run out of attempts is not looked up in the database any more, but a right
    token in memory lets in all the same: else somebody who guesses would lock out everybody behind the same address.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """What was left, and when. Full ones are as good as none; of too many the longest unused one goes."""

    def wait_s(self, address: str) -> float:
        """Seconds until a token of this address is looked up again; 0: it would be now."""
        left = self._left(_network(address))
        return 0.0 if left >= 1 else (1 - left) / PER_S

    def came_from(self, address: str) -> None:
        """A wrong token came from there."""
        network = _network(address)
        self._buckets[network] = (max(self._left(network) - 1, 0.0), self._clock())
        self._buckets.move_to_end(network)
        if len(self._buckets) > _ADDRESSES:
            self._buckets.popitem(last=False)

    def give_back(self, address: str) -> None:
        """What was taken for wrong was not."""
        network = _network(address)
        if network in self._buckets:
            self._buckets[network] = (min(self._left(network) + 1, float(BURST)), self._clock())

    def _left(self, network: str) -> float:
        left, at = self._buckets.get(network, (float(BURST), 0.0))
        return min(BURST, left + max(self._clock() - at, 0.0) * PER_S)


def _network(address: str) -> str:
    """Somebody with one IPv6 address has a whole /64 of them."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return address
    if found.ipv4_mapped is not None:  # how a socket for both kinds names an IPv4 address
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))


def retry_after(wait_s: float) -> int:
    """Whole seconds, as a Retry-After says them."""
    return max(math.ceil(wait_s), 1)


class BodyLimit:
    """Refuses a body over one mebibyte, by its declared length or as soon as that much has come, and one that does not
    arrive in time.
    """

    def __init__(self, app: ASGIApp, body_s: float = BODY_S) -> None:
        self._app = app
        self._body_s = body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or len(declared) > _DIGITS or int(declared) > MAX_BODY_BYTES:
            await problem_response(_too_large())(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._body_s):
                body = await _read(receive)
        except TimeoutError:
            error = TooSlow(f"The body did not arrive within {self._body_s:g} s.", hint="Send it at once.")
            response = problem_response(error)
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        except TooLarge as error:
            await problem_response(error)(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, replaying(body, receive), send)


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None where the client has gone. Raises TooLarge."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
        if not message.get("more_body", False):
            return bytes(body)


def replaying(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read already, and then what comes after it."""
    given = False

    async def replay() -> dict[str, object]:
        nonlocal given
        if given:
            return dict(await receive())
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _too_large() -> TooLarge:
    return TooLarge(f"The body is larger than {MAX_BODY_BYTES} bytes.", hint="Norn's requests are a few hundred bytes.")
