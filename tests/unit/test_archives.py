"""Restoring an archive with several jobs, which may lock each other out; PostgreSQL decides when, so it is played."""

from __future__ import annotations

from pathlib import Path

import pytest

from norn.adapters.snapshots import archives
from norn.errors import ProgramFailed

DEADLOCK = "pg_restore: error: could not execute query: ERROR:  deadlock detected\n"


class Restores:
    """Ends as it is told to, one attempt after the other; empty: it succeeds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *printed: str) -> None:
        self.jobs: list[int] = []
        self.made = 0
        self._printed = list(printed)
        monkeypatch.setattr(archives, "restore", self._restore)

    async def _restore(self, archive: Path, url: str, major: int, jobs: int, *more: object) -> None:
        self.jobs.append(jobs)
        if printed := self._printed.pop(0):
            raise ProgramFailed("pg_restore ended with exit status 1.", output=printed)

    async def _make(self) -> None:
        self.made += 1

    async def run(self) -> None:
        await archives.restore_anew(self._make, Path("a.dump"), "", 18, (), lambda _text: None)


async def test_it_begins_anew_with_one_job_where_several_have_locked_each_other_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    restores = Restores(monkeypatch, DEADLOCK, "")
    await restores.run()
    assert (restores.jobs, restores.made) == ([archives.JOBS, 1], 2)


async def test_any_other_failure_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    restores = Restores(monkeypatch, "pg_restore: error: no such role", "")
    with pytest.raises(ProgramFailed):
        await restores.run()
    assert restores.jobs == [archives.JOBS]


async def test_a_second_deadlock_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    restores = Restores(monkeypatch, DEADLOCK, DEADLOCK, "")
    with pytest.raises(ProgramFailed):
        await restores.run()
    assert restores.jobs == [archives.JOBS, 1]
