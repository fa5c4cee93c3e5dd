"""Sends notifications, by HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx2

from norn import __version__
from norn.domain.notifications import Answer, place_of

TIMEOUT_S = 5.0
_HEADERS = {"content-type": "application/json", "user-agent": f"norn/{__version__}"}


class HttpWebhooks:
    """One POST each. What the receiver answers beside the status is not even read."""

    def __init__(self) -> None:
        self._tls = httpx2.create_ssl_context(trust_env=False)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                httpx2.AsyncClient(
                    verify=self._tls, timeout=TIMEOUT_S, follow_redirects=False, trust_env=False
                ) as client,
                client.stream("POST", url, content=body, headers={**_HEADERS, **headers}) as response,
            ):
                return Answer(response.status_code)
        except (TimeoutError, httpx2.TimeoutException):
            return Answer(None, f"no answer within {TIMEOUT_S:g} s")
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            return Answer(None, (str(error) or type(error).__name__).replace(url, place_of(url)))
