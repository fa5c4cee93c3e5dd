"""The same for several apps at once, and progress that says of which app each line is."""

from __future__ import annotations

import threading

from norn.cli.context import Context
from norn.cli.output import Printer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    T = TypeVar("T")
    R = TypeVar("R")

AT_MOST = 16
"""So many at once: each has a connection to the server."""

_one_line = threading.Lock()


def side_by_side(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """What `work` makes of each item, in their order, AT_MOST at a time.

    What it raises for one stops none of the others, and is raised when all of them have ended. An interrupt is not
    waited with: the threads are left to themselves.
    """
    results: dict[int, R] = {}
    broken: list[BaseException] = []
    waiting, taking = iter(enumerate(items)), threading.Lock()

    def work_on() -> None:
        while True:
            with taking:
                taken = next(waiting, None)
            if taken is None:
                return
            try:
                results[taken[0]] = work(taken[1])
            except BaseException as error:
                broken.append(error)

    threads = [threading.Thread(target=work_on, daemon=True) for _ in range(min(AT_MOST, len(items)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
    return [results[number] for number in range(len(items))]


class _OfApp(Printer):
    """Each line of progress begins with the app's name, and is written as a whole."""

    def __init__(self, printer: Printer, label: str) -> None:
        super().__init__(printer.format, quiet=printer.quiet)
        self._label = label

    def progress(self, line: str, colour: str = "") -> None:
        with _one_line:
            super().progress(self._label + line, colour)


def contexts(context: Context, apps: Sequence[str]) -> dict[str, Context]:
    """A context for each app, with the client of the one that all came from."""
    width = max(map(len, apps), default=0)
    found = {}
    for app in apps:
        own = Context(context.args)
        own.client = context.client
        own.printer = _OfApp(context.printer, f"{app.ljust(width)}  ")
        found[app] = own
    return found
