"""One app on this machine: what brings its replicas to life, and what takes them away again."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from norn.adapters import accounts, programs
from norn.adapters.local import ports
from norn.adapters.local.front import Front
from norn.adapters.local.images import LocalImages
from norn.adapters.local.instances import Instance, Tuning
from norn.adapters.local.readiness import PORT_TAKEN, wait_ready
from norn.adapters.local.state import Active, AppFiles, Desired, Upstream
from norn.domain.images import Image
from norn.domain.ports import Output, Template
from norn.errors import NornError, RolloutFailed
from norn.threads import to_its_end

Environment = Callable[[str, Template], Awaitable[Mapping[str, str]]]
"""What an app's processes get: env of the template, values of its secrets, DATABASE_URL."""

_TRIES = 3
"""On how many ports a replica may find somebody else."""
DRAIN_S = 30.0
"""How long requests in flight may go on at a replica that is going."""


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """What all apps share."""

    home: Path
    apps_address: str
    images: LocalImages
    environment: Environment
    tuning: Tuning
    drain_s: float
    choosing_port: asyncio.Lock
    """Held from choosing a port until it is written down."""

    def taken_ports(self) -> set[int]:
        """Ports of all replicas, those that are down at the moment included."""
        specs = (self.home / "apps").glob("*/instances/*/spec.json")
        return {port for path in specs if (port := Instance(path.parent).port) is not None}


class LocalApp:
    def __init__(self, machine: Machine, app: str) -> None:
        self._machine = machine
        self.name = app
        self.files = AppFiles(machine.home, app)
        self.front = Front(self.files, machine.apps_address, machine.tuning)
        self.lock = asyncio.Lock()
        """Held by whoever changes what runs."""

    def instance(self, name: str) -> Instance:
        return Instance(self.files.instances / name)

    # ---- replicas --------------------------------------------------------------------------------------------

    async def environment(self, template: Template) -> dict[str, str]:
        """The environment of the app's processes, but for PORT."""
        base = programs.environment(HOME=str(self.files.home), PYTHONUNBUFFERED="1")
        return base | dict(await self._machine.environment(self.name, template))

    def prepare(self) -> None:
        """Make the app's directories; its HOME belongs to the account of the apps."""
        self.files.make()
        if account := accounts.for_apps():
            os.chown(self.files.home, account.uid, account.gid)

    async def start_replica(self, name: str, image: Image, template: Template) -> Upstream:
        """Start a replica; one that is there under this name is replaced, on its old port where that is free."""
        images = self._machine.images
        argv, directory = images.command(self.name, image.tag), images.directory(self.name, image.tag)
        env = await self.environment(template)
        instance = self.instance(name)
        await instance.stop()
        async with self._machine.choosing_port:
            port = await asyncio.to_thread(self._port_for, instance) if template.role == "webserver" else None
            await instance.start(
                argv,
                cwd=directory,
                env=env | ({"PORT": str(port)} if port is not None else {}),
                account=accounts.for_apps(),
                port=port,
                tuning=self._machine.tuning,
            )
        return Upstream(name, port)

    def _port_for(self, instance: Instance) -> int:
        before = instance.port
        if before is not None and ports.try_bind("0.0.0.0", before) is None:
            return before
        return ports.choose(self._machine.taken_ports())

    async def adopt_or_start(self, name: str, image: Image, template: Template) -> Upstream:
        """The replica of that name: the one that runs, else a new one."""
        instance = self.instance(name)
        if instance.status() is not None:
            return Upstream(name, instance.port)
        return await self.start_replica(name, image, template)

    async def remove_instances(self, names: Iterable[str]) -> None:
        """Stop replicas, all at once, and remove what they left."""
        await asyncio.gather(*(self.instance(name).remove() for name in names))

    # ---- a rollout -------------------------------------------------------------------------------------------

    async def bring_up(self, desired: Desired, timeout_s: float, output: Output) -> Sequence[Upstream]:
        """All replicas of a generation, ready. Those that an interrupted attempt started are taken over.

        Raises RolloutFailed, ImageMissing; nothing of the generation is left then.
        """
        template, image = desired.template, desired.image
        deadline = asyncio.get_running_loop().time() + timeout_s
        names = _names(desired)
        output(f"starting {image.tag}: {_count(len(names), 'process', 'processes')}\n")
        try:
            for name in names:
                await self.adopt_or_start(name, image, template)
            await self._all_ready(names, image, template, deadline, output)
        except NornError as failed:
            if printed := failed.facts.get("output"):
                output(f"{printed}\n")
            await self.remove_instances(names)
            raise
        return [Upstream(name, self.instance(name).port) for name in names]

    async def _all_ready(
        self, names: Sequence[str], image: Image, template: Template, deadline: float, output: Output
    ) -> None:
        done = 0

        async def one(name: str) -> None:
            nonlocal done
            for tries_left in reversed(range(_TRIES)):
                try:
                    await wait_ready(self.instance(name), template, deadline)
                    break
                except RolloutFailed as failed:
                    if failed.facts["reason"] != PORT_TAKEN or not tries_left:
                        raise
                    output(f"{failed.message} It begins anew on another port.\n")
                    await self.start_replica(name, image, template)
            done += 1
            output(f"{name} is ready ({done} of {len(names)})\n")

        tasks = [asyncio.create_task(one(name)) for name in names]
        try:
            await asyncio.gather(*tasks)  # the first that fails is enough
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def roll_out(self, desired: Desired, timeout_s: float, output: Output) -> Active:
        """Bring a generation up, or, of a halted app, none of it, and write down that it is live.

        Raises as `bring_up`, and PortInUse.
        """
        port = desired.template.port if desired.template.role == "webserver" else None
        if port is not None:
            await asyncio.to_thread(self.front.check_port, port)
        if self.files.halted:
            upstreams: Sequence[Upstream] = [Upstream(name, None) for name in _names(desired)]
        else:
            upstreams = await self.bring_up(desired, timeout_s, output)
        if port is not None:
            await self.front.ensure(port)
        return await self.make_live(desired, upstreams)

    async def make_live(self, desired: Desired, upstreams: Sequence[Upstream]) -> Active:
        """Write down that this generation is live: from here on nothing turns back."""
        active = Active(
            desired.generation,
            desired.change_id,
            desired.deployment_id,
            desired.image,
            desired.template,
            tuple(upstreams),
            datetime.now(UTC),
        )
        await to_its_end(self.files.write_active, active)
        return active

    async def settle(self, active: Active | None, output: Output, *, but: frozenset[str] = frozenset()) -> None:
        """What is live gets all requests; what is not (nor in `but`) answers what it has begun, and goes.

        Of a halted app everything goes, and its port answers that nothing runs.
        """
        if active is not None and active.port is not None:
            await self.front.ensure(active.port)
        if active is not None and self.files.halted:
            active = dataclasses.replace(active, upstreams=())
        await self.front.switch(active)
        going = set(self.files.instance_names()) - (active.instances if active else frozenset()) - but
        await self._drain(going, output)
        await self.front.stop(but=active.port if active else None)
        if going:
            await self.remove_instances(going)
            output(f"{_count(len(going), 'process', 'processes')} of before stopped\n")

    async def _drain(self, going: set[str], output: Output) -> None:
        deadline = asyncio.get_running_loop().time() + self._machine.drain_s
        told = False
        while going:
            in_flight = await self.front.in_flight()
            left = sum(in_flight.get(name, 0) for name in going)
            if not left:
                return
            if asyncio.get_running_loop().time() >= deadline:
                output(f"{_count(left, 'request is', 'requests are')} cut off after {self._machine.drain_s:g} s\n")
                return
            if not told:
                told = True
                output(f"waiting for {_count(left, 'request', 'requests')} in flight\n")
            await asyncio.sleep(0.05)

    # ---- keeping it so ---------------------------------------------------------------------------------------

    async def reconcile(self, output: Output) -> None:
        """What is live runs, and what belongs to nothing does not. The caller holds the lock."""
        active, pending = self.files.active(), self.files.pending()
        if active is not None and not self.files.halted:
            active = await self._running(active)
        coming = frozenset(
            name for name in self.files.instance_names() if pending and name.startswith(f"{pending.generation}-")
        )
        await self.settle(active, output, but=coming)

    async def _running(self, active: Active) -> Active:
        """What is live, each of its processes there, perhaps at other ports."""
        upstreams = tuple(
            [await self.adopt_or_start(item.instance, active.image, active.template) for item in active.upstreams]
        )
        if upstreams != active.upstreams:
            active = dataclasses.replace(active, upstreams=upstreams)
            await to_its_end(self.files.write_active, active)
        return active

    async def start(self, timeout_s: float, output: Output) -> None:
        """What is live runs, halted or not until now. Raises RolloutFailed where it does not become ready."""
        await asyncio.to_thread(self.files.unhalt)
        active = self.files.active()
        if active is not None:
            deadline = asyncio.get_running_loop().time() + timeout_s
            active = await self._running(active)
            await self._all_ready(sorted(active.instances), active.image, active.template, deadline, output)
            await self.reconcile(output)  # only now does it get requests

    async def stop(self) -> None:
        """End all processes; what was live is remembered."""
        await self.front.stop()
        await asyncio.gather(*(self.instance(name).stop() for name in self.files.instance_names()))


def _names(desired: Desired) -> list[str]:
    return [f"{desired.generation}-{number}" for number in range(1, desired.template.replicas + 1)]


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
