"""The front proxies of an app, as the server sees them: one for each port it listens on, normally one."""

from __future__ import annotations

import asyncio
import errno
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from norn.adapters import accounts
from norn.adapters.local import ports
from norn.adapters.local.instances import Instance, Tuning
from norn.adapters.local.proxy import control
from norn.adapters.local.state import Active, AppFiles
from norn.errors import RolloutFailed

_BEGIN_S = 15.0


class Front:
    def __init__(self, app_files: AppFiles, address: str, tuning: Tuning) -> None:
        self._files = app_files
        self._address = address
        self._tuning = tuning

    def _instance(self, port: int) -> Instance:
        return Instance(self._files.proxies / str(port))

    def ports(self) -> list[int]:
        """Those for which there is a proxy, running or not."""
        if not self._files.proxies.is_dir():
            return []
        return sorted(int(path.name) for path in self._files.proxies.iterdir() if path.name.isdecimal())

    def check_port(self, port: int) -> None:
        """Raises PortInUse or RolloutFailed where neither our proxy holds the port nor it could."""
        if self._instance(port).status() is not None:
            return
        error = ports.try_bind(self._address, port)
        if error is not None:
            raise ports.refuse(self._address, port, error, self._other_app_with(port))

    def _other_app_with(self, port: int) -> str | None:
        for path in self._files.directory.parent.glob(f"*/proxy/{port}"):
            app = path.parent.parent.name
            if app != self._files.app and Instance(path).status() is not None:
                return app
        return None

    async def ensure(self, port: int) -> None:
        """A proxy holds the port and answers. Raises PortInUse, RolloutFailed."""
        instance = self._instance(port)
        if instance.status() is None:
            await instance.stop()
            await asyncio.to_thread(self.check_port, port)
            account = accounts.for_apps()
            uid, gid = (account.uid, account.gid) if account else (-1, -1)
            argv = [sys.executable, "-I", "-m", "norn.adapters.local.proxy", str(self._files.directory), self._address]
            await instance.start(
                [*argv, str(port), str(uid), str(gid)],
                cwd=Path("/"),
                env={"LANG": "C.UTF-8"},
                account=None,  # it listens first, and then becomes the apps' user by itself
                port=port,
                tuning=self._tuning,
            )
        deadline = asyncio.get_running_loop().time() + _BEGIN_S
        while await self._ask(port, {"command": "status"}) is None:
            status = instance.status()
            if status is None or status.state == "backoff":
                error = ports.try_bind(self._address, port)
                if error is not None and error.errno == errno.EADDRINUSE:
                    await instance.remove()
                    raise ports.refuse(self._address, port, error, self._other_app_with(port))
            if status is None or asyncio.get_running_loop().time() >= deadline:
                raise RolloutFailed(
                    f"The front proxy for port {port} does not answer.",
                    reason="proxy_failed",
                    output=instance.log_tail(),
                    hint="The output shows why.",
                )
            await asyncio.sleep(0.05)

    async def _ask(self, port: int, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        try:
            return await control.ask(self._files.proxies / str(port), request)
        except (OSError, ValueError):
            return None  # not there (yet); whoever asked tries again or does without

    async def switch(self, active: Active | None) -> None:
        """Tell all proxies what is live; a request that begins after this goes there. Raises RolloutFailed."""
        upstreams = [(item.instance, item.port) for item in active.upstreams if item.port] if active else []
        request = control.switch_request(active.generation if active else 0, upstreams)
        for port in self.ports():
            reply = await self._ask(port, request)
            if reply is None and active is not None and port == active.port:
                # It crashed this moment: its shim starts it again, and it reads active.json.
                await self.ensure(port)
                reply = await self._ask(port, request)
                if reply is None:
                    raise RolloutFailed(
                        f"The front proxy for port {port} does not answer.",
                        reason="proxy_failed",
                        output=self._instance(port).log_tail(),
                        hint="The output shows why; deploy again.",
                    )

    async def in_flight(self) -> Mapping[str, int]:
        """Requests in flight by instance, over all proxies."""
        total: Counter[str] = Counter()
        for port in self.ports():
            reply = await self._ask(port, {"command": "status"})
            if reply is not None:
                total.update(reply["inFlight"])
        return total

    async def stop(self, *, but: int | None = None) -> None:
        """Stop the proxies of all other ports; requests in flight come to their end."""
        for port in self.ports():
            if port != but:
                await self._instance(port).remove()
