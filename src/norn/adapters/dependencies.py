"""Asks what an app needs of others, by HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx2

from norn.domain.infraspec.spec import Dependency
from norn.domain.ports import DependencyAnswer

_TIMEOUT_S = 1.5


class HttpDependencies:
    """One GET each; redirects are answers, too."""

    async def ask(self, dependencies: Sequence[Dependency]) -> Sequence[DependencyAnswer]:
        if not dependencies:
            return ()
        async with httpx2.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
            return await asyncio.gather(*(self._one(client, dependency) for dependency in dependencies))

    @staticmethod
    async def _one(client: httpx2.AsyncClient, dependency: Dependency) -> DependencyAnswer:
        try:
            async with asyncio.timeout(_TIMEOUT_S), client.stream("GET", dependency.url) as response:
                return DependencyAnswer(dependency, response.status_code)
        except (TimeoutError, httpx2.TimeoutException):
            return DependencyAnswer(dependency, None, f"no answer within {_TIMEOUT_S:g} s")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return DependencyAnswer(dependency, None, str(error) or type(error).__name__)
