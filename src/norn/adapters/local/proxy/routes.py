"""Which replicas get requests, and how many each is at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from norn.adapters.local.proxy.upstream import UpstreamConnection

_IDLE_CONNECTIONS = 64


class Replica:
    """One process of the app, its open connections and what it is at."""

    __slots__ = ("idle", "in_flight", "instance", "port", "retired")

    def __init__(self, instance: str, port: int) -> None:
        self.instance = instance
        self.port = port
        self.in_flight = 0
        self.retired = False
        self.idle: list[UpstreamConnection] = []

    def take_idle(self) -> UpstreamConnection | None:
        """The connection that was used last: the least likely to be closing."""
        while self.idle:
            connection = self.idle.pop()
            if connection.usable:
                return connection
        return None

    def keep(self, connection: UpstreamConnection) -> bool:
        """Keep a connection for the next request; False where it is to be closed."""
        if self.retired or len(self.idle) >= _IDLE_CONNECTIONS:
            return False
        self.idle.append(connection)
        return True

    def retire(self) -> None:
        """No request begins here any more; those in flight come to their end."""
        self.retired = True
        for connection in self.idle:
            connection.close()
        self.idle.clear()


class Routes:
    """The replicas of the live generation, and retired ones that still answer something."""

    def __init__(self) -> None:
        self.generation = 0
        self._replicas: list[Replica] = []
        self._retired: list[Replica] = []
        self._turn = 0

    def switch(self, generation: int, upstreams: Iterable[tuple[str, int]]) -> None:
        """From now on requests go to these (instance, port), and to no other."""
        known = {(replica.instance, replica.port): replica for replica in self._replicas}
        self._replicas = [known.pop(key) if key in known else Replica(*key) for key in upstreams]
        for replica in known.values():
            replica.retire()
            self._retired.append(replica)
        self._retired = [replica for replica in self._retired if replica.in_flight]
        self.generation = generation

    def pick(self, tried: Set[Replica]) -> Replica | None:
        """The replica with the fewest requests in flight, by turns among equals; None where all were tried."""
        replicas = self._replicas
        count = len(replicas)
        best: Replica | None = None
        self._turn = turn = (self._turn + 1) % count if count else 0
        for offset in range(count):
            replica = replicas[(turn + offset) % count]
            if (best is None or replica.in_flight < best.in_flight) and replica not in tried:
                best = replica
        return best

    def in_flight(self) -> Mapping[str, int]:
        """Requests in flight by instance, retired ones included."""
        self._retired = [replica for replica in self._retired if replica.in_flight]
        return {replica.instance: replica.in_flight for replica in [*self._replicas, *self._retired]}

    def replicas(self) -> Iterable[Replica]:
        return self._replicas
