"""How far a rollout is, pod by pod, as the output of its step says. Pure functions."""

from __future__ import annotations

import re
from dataclasses import dataclass

_COUNT = r"([0-9]{1,6})"
_UPDATED = re.compile(rf"^{_COUNT} of {_COUNT} updated, {_COUNT} available(?:; (.*))?$")
_READY = re.compile(rf"^(\S+) is (ready|not ready any more) \({_COUNT} of {_COUNT}\)$")
_STARTING = re.compile(rf"^starting \S+: {_COUNT} process(?:es)?$")
_MOST = 100


@dataclass(frozen=True, slots=True)
class Rollout:
    """`ready` of `wanted` replicas run the new version, `started` includes those that are not ready yet."""

    wanted: int
    started: int
    ready: int
    names: tuple[str, ...] = ()
    """Of those that are ready, in that order."""
    trouble: str = ""
    """What stands in the way, in the runtime's words."""

    @property
    def replicas(self) -> list[tuple[str, str]]:
        """State and name of each replica, at most a hundred: ready, starting, waiting."""
        counts = {"ready": self.ready, "starting": self.started - self.ready, "waiting": self.wanted - self.started}
        states = [state for state, count in counts.items() for _ in range(min(count, _MOST))][:_MOST]
        return list(zip(states, (*self.names, *[""] * _MOST), strict=False))


def rollout_of(output: str) -> Rollout | None:
    """The newest state that the output tells of; None where it tells of none.

    Not for a step that failed: its output has what the app printed at its end, which may tell of anything.

    >>> rollout_of("web-1 is ready (1 of 4)\\n2 of 4 updated, 4 available").ready
    1
    """
    found: Rollout | None = None
    for line in output.splitlines():
        names = found.names if found is not None else ()
        if match := _UPDATED.match(line):  # of the available ones some are of the version before
            found = Rollout(int(match[2]), int(match[1]), len(names), names, match[4] or "")
        elif match := _READY.match(line):
            ready, wanted = int(match[3]), int(match[4])
            names = tuple(name for name in names if name != match[1]) + ((match[1],) if match[2] == "ready" else ())
            names = names[-ready:] if ready else ()  # a server that went on begins to count anew
            started, trouble = (found.started, found.trouble) if found is not None else (wanted, "")
            found = Rollout(wanted, max(started, ready), ready, names, trouble)
        elif match := _STARTING.match(line):
            found = Rollout(int(match[1]), int(match[1]), 0)
    return found
