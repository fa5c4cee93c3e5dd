"""Who is let in: tokens and sessions, kept in memory for a moment, so that nobody waits for the database.

All valid tokens are in memory. They are read anew every two seconds, and what a NOTIFY names is dropped at once, on
every server; a server that has lost its database trusts what it has for five seconds. A secret is looked up by its
SHA-256 hash: what differs in time between two wrong ones says nothing about a right one.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

import structlog

from norn.domain.access import token_name_of, token_name_problem
from norn.domain.ports.access import Known, KnownSession, NewToken, Token, Tokens
from norn.errors import Invalid, NornError, NotFound
from norn.operations.audit import record
from norn.operations.services import Caller, Services, new_id
from norn.waiting import wait_set

log = structlog.get_logger(__name__)

SESSION_S = 12 * 3_600.0
_TRUSTED_S = 5.0
_RENEW_S = 2.0
_WRITE_S = 60.0
"""How often at most the last use of a token is written."""
_SESSIONS = 10_000


def new_secret() -> str:
    """256 random bits, as text for a header, a cookie or a file."""
    return secrets.token_urlsafe(32)


def hash_of(secret: str | bytes) -> bytes:
    """What is kept of a secret. It needs no salt and no slow function: nobody guesses 256 bits."""
    return hashlib.sha256(secret if isinstance(secret, bytes) else secret.encode()).digest()


class Gate:
    """One for a server: says whom a token or a session lets in."""

    def __init__(self, tokens: Tokens, clock: Callable[[], float] = time.monotonic) -> None:
        self.tokens = tokens
        self._clock = clock
        self._by_hash: dict[bytes, Known] = {}
        self._read_at = -math.inf
        self._sessions: OrderedDict[bytes, tuple[KnownSession, float]] = OrderedDict()
        self._no_sessions: OrderedDict[bytes, None] = OrderedDict()
        self._drops = 0
        self._wake = asyncio.Event()
        self._used: dict[str, float] = {}
        self._written: dict[str, float] = {}

    @property
    def drops(self) -> int:
        """Grows whenever somebody may have lost their access: whom it was let in before is to be looked at again."""
        return self._drops

    # ---- letting in ----------------------------------------------------------------------------------------------

    async def token(self, secret: str | bytes, *, ask: bool = True) -> Known | None:
        """Whom this token lets in; without `ask` only where it is in memory. Raises DatabaseUnavailable."""
        hash_ = hash_of(secret)
        known = self._by_hash.get(hash_)
        if known is not None and not self._trusted(self._read_at, known.left_s):
            known = None
        if known is None and (ask or hash_ in self._by_hash):  # what let in seconds ago is no guess
            known = await self.tokens.find(hash_)
        if known is None or not hmac.compare_digest(known.hash, hash_):
            return None
        self._used[known.grant.token_id] = self._clock()
        return known

    def knows_not(self, secret: str) -> bool:
        """Whether it was looked up and is no session: it never becomes one, and is not looked up again."""
        return hash_of(secret) in self._no_sessions

    async def session(self, secret: str, *, ask: bool = True) -> KnownSession | None:
        """Whom this session's secret lets in; without `ask` only one that was let in here before.

        Raises DatabaseUnavailable.
        """
        hash_ = hash_of(secret)
        found, read_at = self._sessions.get(hash_, (None, 0.0))
        if found is None and not ask:
            return None
        if found is None or not self._trusted(read_at, found.left_s):
            drops, read_at = self._drops, self._clock()
            found = await self.tokens.session(hash_)
            self._sessions.pop(hash_, None)
            if found is None:
                self._no_sessions[hash_] = None
                if len(self._no_sessions) > _SESSIONS:
                    self._no_sessions.popitem(last=False)
            if found is not None and drops == self._drops:
                self._sessions[hash_] = found, read_at
                if len(self._sessions) > _SESSIONS:
                    self._sessions.popitem(last=False)
        if found is None or not hmac.compare_digest(found.hash, hash_):
            return None
        self._used[found.token.grant.token_id] = self._clock()
        return found

    def _trusted(self, read_at: float, left_s: float | None) -> bool:
        return self._clock() < read_at + (_TRUSTED_S if left_s is None else min(_TRUSTED_S, left_s))

    async def begin(self, known: Known, address: str) -> str:
        """Begin a session; its secret, which nobody but the browser keeps."""
        secret = new_secret()
        await self.tokens.begin_session(hash_of(secret), known.grant.token_id, address, SESSION_S)
        return secret

    async def end(self, secret: str) -> None:
        """End a session, where it is one."""
        hash_ = hash_of(secret)
        await self.tokens.end_session(hash_)
        self._sessions.pop(hash_, None)
        self._drops += 1

    # ---- keeping up ----------------------------------------------------------------------------------------------

    def forget(self, token_id: str = "") -> None:
        """A token, or whichever it was, has been made or revoked, or a session of it has ended."""
        self._drops += 1
        self._by_hash = {
            hash_: known for hash_, known in self._by_hash.items() if token_id and known.grant.token_id != token_id
        }
        for hash_, (session, _) in list(self._sessions.items()):
            if not token_id or session.token.grant.token_id == token_id:
                del self._sessions[hash_]
        self._wake.set()

    async def run(self) -> None:
        """For ever: what is in memory is as the database has it, and the database knows what was used."""
        while True:
            self._wake.clear()
            try:
                await self.renew()
                await self.write_use()
            except NornError as error:
                log.warning("access_not_renewed", error=error.message)
            await wait_set(self._wake, _RENEW_S)

    async def renew(self) -> None:
        """Read all valid tokens anew. Raises DatabaseUnavailable."""
        drops, read_at = self._drops, self._clock()
        valid = await self.tokens.valid()
        if drops == self._drops:  # else it is older than what was said since, and is read once more
            self._by_hash = {known.hash: known for known in valid}
            self._read_at = read_at

    async def write_use(self, *, all_of_it: bool = False) -> None:
        """Write down which tokens were used, each at most once a minute. Raises DatabaseUnavailable."""
        now = self._clock()
        due = {
            id_: at
            for id_, at in self._used.items()
            if all_of_it or now - self._written.get(id_, -math.inf) >= _WRITE_S
        }
        if not due:
            return
        await self.tokens.used({id_: now - at for id_, at in due.items()})
        for id_, at in due.items():
            self._written[id_] = now
            if self._used.get(id_) == at:
                del self._used[id_]


# ---- sessions ----------------------------------------------------------------------------------------------------


async def sign_in(services: Services, gate: Gate, known: Known, address: str) -> str:
    """Begin a session of a browser; its secret."""
    name = known.grant.token_name
    await record(services, Caller(name, token=name, address=address), "sign-in", name)
    return await gate.begin(known, address)


async def sign_out(services: Services, gate: Gate, secret: str, caller: Caller) -> None:
    await gate.end(secret)
    await record(services, caller, "sign-out", caller.token)


# ---- tokens ------------------------------------------------------------------------------------------------------


async def create_token(services: Services, gate: Gate, new: NewToken, caller: Caller) -> tuple[Token, str]:
    """The token and its secret, which is nowhere else. Raises Invalid, UnknownApp, NameTaken."""
    if problem := token_name_problem(new.name):
        raise Invalid(f"name: {problem}.", hint="For example ci, or on-call@laptop.")
    if new.apps is not None and not new.apps:
        raise Invalid("apps: a token for no app is of no use.", hint="Leave it out for all apps.")
    for app in new.apps or ():
        await services.source.app(app)
    secret = new_secret()
    token = await gate.tokens.add(new_id(), hash_of(secret), new, caller.who)
    gate.forget(token.id)
    return token, secret


async def revoke_token(services: Services, gate: Gate, name: str, caller: Caller) -> Token:
    """From now on it lets nobody in, here and on every server, nor do its sessions. Raises NotFound."""
    token = await gate.tokens.revoke(name, caller.who)
    if token is None:
        raise NotFound(f"There is no token {name!r}.", hint="`norn token list` lists them.")
    gate.forget(token.id)
    return token


async def enter_home(gate: Gate, secret: str, host: str) -> None:
    """Make the token of this NORN_HOME known to all servers on the database. One that was revoked stays so."""
    if not await gate.tokens.enter_home(new_id(), hash_of(secret), f"admin@{token_name_of(host)}"):
        log.warning(
            "home_token_revoked",
            hint="The command line beside this server is not let in. Remove admin-token from NORN_HOME and start "
            "the server again: it makes a new one.",
        )
