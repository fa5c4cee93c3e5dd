"""Is a replica ready? Asking it, and what the answers amount to."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from norn.adapters.local import ports
from norn.adapters.local.instances import Instance, Status
from norn.domain.ports import Template
from norn.errors import RolloutFailed

HOST = "127.0.0.1"
STEADY_S = 2.0
"""A process that no one can ask is taken for ready when it has stayed up for so long."""
EXITS_ALLOWED = 1
PROBE_TIMEOUT_S = 2.0
PORT_TAKEN = "port_taken"
"""The reason of a replica that has ended because somebody was quicker to listen on the port that was chosen for it."""
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.05, 0.5
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: |\r|\n)")


@dataclass(frozen=True, slots=True)
class Readiness:
    """`ready`, or why not; `hopeless` is a reason code where waiting will not help."""

    ready: bool
    why: str = ""
    hopeless: str | None = None


def judge(status: Status | None, steady_s: float, answer: str | None) -> Readiness:
    """What is known of a starting replica, taken together.

    `steady_s` is how long the same process has been seen running; `answer` is what its health check said: empty for
    well, a reason otherwise, None for a process that no one can ask.
    """
    if status is None:
        return Readiness(False, "its shim has ended", "shim_gone")
    if status.exits > EXITS_ALLOWED:
        return Readiness(False, f"it ended {status.exits} times ({status.last_exit})", "crashed")
    if status.state != "running":
        return Readiness(False, f"it ended ({status.last_exit})" if status.exits else "it is starting")
    if answer:
        return Readiness(False, answer)
    if answer is None and steady_s < STEADY_S:
        return Readiness(False, f"it has been up for less than {STEADY_S:g} s")
    return Readiness(True)


async def ask(port: int, healthcheck: str | None, timeout_s: float = PROBE_TIMEOUT_S) -> str:
    """Empty where the replica is well (2xx or 3xx; without a path: it accepts connections), else why not."""
    what = f"health check {healthcheck}" if healthcheck else "connection"
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                if healthcheck is None:
                    return ""
                request = (
                    f"GET {healthcheck} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: norn\r\nConnection: close\r\n\r\n"
                )
                writer.write(request.encode())
                line = await reader.readline()
            finally:
                writer.transport.abort()
    except TimeoutError:
        return f"{what}: no answer within {timeout_s:g} s"
    except (OSError, ValueError) as error:
        return f"{what}: {getattr(error, 'strerror', None) or error}"
    found = _STATUS_LINE.match(line)
    if found is None:
        return f"{what}: the answer is not HTTP"
    status = int(found[1])
    return "" if 200 <= status < 400 else f"{what}: status {status}"


async def ask_replica(instance: Instance, template: Template) -> str | None:
    """As `ask`, and makes sure that the answer is the replica's own; None for a worker."""
    port = instance.port
    if port is None:
        return None
    answer = await ask(port, template.healthcheck)
    if answer:
        return answer
    return await asyncio.to_thread(_whose, port, instance)


def _whose(port: int, instance: Instance) -> str:
    """Empty where the port is the replica's, else whose it is."""
    if ports.listens(port, instance.pids()):
        return ""
    stranger = ports.listener(port)
    if stranger in instance.pids():
        return ""
    if stranger is None:
        return f"port {port} is answered by another program"
    return f"port {port} belongs to {ports.name_of(stranger)}, not to the app"


def _taken(instance: Instance) -> str:
    """Who else has the port of a replica that has ended; empty where it is free."""
    if instance.port is None or ports.try_bind("0.0.0.0", instance.port) is None:
        return ""
    return _whose(instance.port, instance)


async def wait_ready(instance: Instance, template: Template, deadline: float) -> None:
    """Until the replica is ready. `deadline` is in seconds of the loop's clock.

    Raises RolloutFailed: `reason` is `crashed`, `port_taken`, `shim_gone` or `timeout`, `output` the end of what it
    printed.
    """
    loop = asyncio.get_running_loop()
    seen: int | None = None
    since = loop.time()
    pause = _FIRST_PAUSE_S
    while True:
        status = instance.status()
        pid = status.child_pid if status else None
        if pid != seen:
            seen, since = pid, loop.time()
        running = status is not None and status.state == "running"
        answer = await ask_replica(instance, template) if running else "it is not running"
        found = judge(instance.status(), loop.time() - since, answer)
        if found.ready:
            return
        if found.hopeless or loop.time() >= deadline:
            reason, why = found.hopeless or "timeout", found.why
            if reason == "crashed" and (whose := await asyncio.to_thread(_taken, instance)):
                reason, why = PORT_TAKEN, f"{why}; {whose}"
            ending = "" if found.hopeless else "it did not become ready in time: "
            raise RolloutFailed(
                f"Replica {instance.name} is not healthy: {ending}{why}.",
                reason=reason,
                output=instance.log_tail(),
                hint=_HINTS[reason],
            )
        await asyncio.sleep(max(min(pause, deadline - loop.time()), 0.01))
        pause = min(pause * 1.5, _MAX_PAUSE_S)


_HINTS = {
    "crashed": "The output shows why it ended. It must listen on 127.0.0.1, on the port that PORT names.",
    PORT_TAKEN: "Another program was quicker, several times: try again.",
    "shim_gone": "Something killed it from outside; deploy again.",
    "timeout": "It must listen on 127.0.0.1, on the port that PORT names, and answer `healthcheck` with 2xx or 3xx. "
    "rollback.timeout says how long it may take.",
}
