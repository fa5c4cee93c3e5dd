"""The visitors of the demo: whether each of their requests was answered, and rightly."""

from __future__ import annotations

import json
import threading
from collections import Counter
from http.client import HTTPConnection, HTTPException

_CLIENTS = 4


class Traffic:
    """Visitors that ask for the page and for its numbers, one request after the other; what they saw, by phase."""

    def __init__(self, port: int, prefix: str) -> None:
        self._port = port
        self._prefix = prefix
        self.phases: list[str] = []
        self._now = ("", 0)
        self._lock = threading.Lock()
        self.right: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._visit, daemon=True) for _ in range(_CLIENTS)]

    def phase(self, name: str, signed: int = 3) -> None:
        """From now on it is called so, and as many visitors are to be there."""
        self._now = (name, signed)
        self.phases.append(name)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _visit(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=5)
        while not self._stop.is_set():
            phase, signed = self._now
            try:
                right = self._page(connection) and self._numbers(connection, signed)
            except (OSError, HTTPException, ValueError):
                connection.close()
                right = False
            with self._lock:
                (self.right if right else self.wrong)[phase] += 1
            self._stop.wait(0.01)

    def _page(self, connection: HTTPConnection) -> bool:
        connection.request("GET", f"{self._prefix}/")
        answer = connection.getresponse()
        return b"visitors</h1>" in answer.read() and answer.status == 200

    def _numbers(self, connection: HTTPConnection, signed: int) -> bool:
        connection.request("GET", f"{self._prefix}/api/entries")
        answer = connection.getresponse()
        numbers = json.loads(answer.read())
        return answer.status == 200 and bool(numbers.get("total") == len(numbers["visitors"]) == signed)
