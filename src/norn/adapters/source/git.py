"""Runs git on other people's repositories without trusting what is in them."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from norn.adapters import programs
from norn.adapters.accounts import Account, of_owner
from norn.errors import ProgramFailed

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
# No hook, monitor or transport that a repository's own configuration names is run, whoever wrote it. A filter is
# (Git LFS has one), by whoever git runs as.
_SAFE = (
    "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "protocol.ext.allow=never",
    "-c", "core.pager=cat", "-c", "advice.detachedHead=false",
)  # fmt: skip


def scrubbed(text: str) -> str:
    """Without user names and passwords of URLs."""
    return _CREDENTIALS.sub("***@", text)


@dataclass(frozen=True, slots=True)
class Git:
    """git in one repository; as the owner of the directory where Norn is root and somebody else owns it.

    So neither `safe.directory` nor a hostile configuration is a way to root.
    """

    directory: Path

    async def run(self, *arguments: str, timeout_s: float = 60.0) -> str:
        """What it prints. Raises ProgramFailed (also when the time is over), ProgramMissing."""
        done = await self._run(arguments, timeout_s, None)
        return done.output

    async def save(self, into: Path, *arguments: str, timeout_s: float = 300.0) -> None:
        """Write what it prints to a file. Raises like `run`."""
        with into.open("wb") as file:
            await self._run(arguments, timeout_s, file)

    async def _run(self, arguments: tuple[str, ...], timeout_s: float, into: BinaryIO | None) -> programs.Finished:
        account: Account | None = await asyncio.to_thread(of_owner, self.directory)
        home = {"HOME": "/nonexistent"} if account else {}
        env = programs.environment(
            GIT_TERMINAL_PROMPT="0", GIT_OPTIONAL_LOCKS="0", GIT_SSH_COMMAND="ssh -o BatchMode=yes", **home
        )
        try:
            async with asyncio.timeout(timeout_s):
                return await programs.run(
                    ["git", *_SAFE, *arguments],
                    env=env,
                    cwd=self.directory,
                    account=account,
                    keep_all=into is None,
                    stdout=into,
                )
        except TimeoutError:
            raise ProgramFailed(f"git {arguments[0]} did not end within {timeout_s:g} s.", program="git") from None
        except ProgramFailed as failed:
            output = scrubbed(str(failed.facts.get("output", ""))).strip()
            raise ProgramFailed(
                f"git {arguments[0]} failed: {output.splitlines()[-1] if output else failed.message}",
                program="git",
                exitStatus=failed.facts.get("exitStatus"),
                output=output[-programs.TAIL_BYTES :],
            ) from None
