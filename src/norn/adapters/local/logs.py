"""What the live processes of an app print: the end of it, and more as it comes."""

from __future__ import annotations

import asyncio
import codecs
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

from norn.adapters.local.instances import tail_lines
from norn.adapters.local.state import AppFiles

_LOOK_EVERY_S = 0.2
_CHUNK_BYTES = 65_536
_MAX_LINE_CHARS = 65_536


class _Followed:
    """One log from an offset on, through its rotations."""

    def __init__(self, path: Path, *, at_end: bool) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        if at_end and (file := self._open()):
            file.seek(0, os.SEEK_END)

    def _open(self) -> BinaryIO | None:
        try:
            self._file = self._path.open("rb")
        except FileNotFoundError:
            return None
        return self._file

    def _rotated(self, file: BinaryIO) -> bool:
        try:
            return self._path.stat().st_ino != os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            return False  # removed: nothing more comes

    def read(self) -> Iterator[str]:
        """Lines that are complete by now. A very long one comes in parts."""
        while (file := self._file or self._open()) is not None:
            chunk = file.read(_CHUNK_BYTES)
            if not chunk:
                if not self._rotated(file):
                    return
                # Between the last read and the rotation more may have been written.
                chunk = file.read(_CHUNK_BYTES)
                if not chunk:
                    self.close()
                    continue
            *lines, self._text = (self._text + self._decoder.decode(chunk)).split("\n")
            yield from lines
            if len(self._text) > _MAX_LINE_CHARS:
                yield self._text
                self._text = ""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


async def follow_logs(app: AppFiles, *, follow: bool, tail: int) -> AsyncIterator[str]:
    """Lines without their ends: the last `tail`, an equal part from each live replica, then what comes.

    Following goes on across a switch: the old replicas until they are gone, the new ones from their beginning.
    """
    followed: dict[str, _Followed] = {}
    try:
        for number, name in enumerate(live := _live(app)):
            log = app.instances / name / "log"
            share = tail // len(live) + (number < tail % len(live))
            lines = await asyncio.to_thread(tail_lines, log, share)
            followed[name] = _Followed(log, at_end=True)
            for line in lines:
                yield line
        while follow:
            for name in _live(app):
                if name not in followed:
                    followed[name] = _Followed(app.instances / name / "log", at_end=False)
            for name, log_file in list(followed.items()):
                for line in log_file.read():
                    yield line
                if not (app.instances / name).exists():
                    followed.pop(name).close()
            await asyncio.sleep(_LOOK_EVERY_S)
    finally:
        for log_file in followed.values():
            log_file.close()


def _live(app: AppFiles) -> list[str]:
    active = app.active()
    return [item.instance for item in active.upstreams] if active else []
