"""What a server knows of secrets: Norn's own as they are made, an app's as far as each place says."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog

from norn.bootstrap.server import Server
from norn.domain.audit import Entry, Outcome
from norn.domain.operations import OperationKind
from norn.domain.scrubbing import MARK
from norn.errors import DatabaseUnavailable, NotAllowed, NotFound
from norn.operations.app_secrets import set_secret
from norn.operations.known import KnownSecrets, renew, scrubber_of
from norn.operations.services import Caller

PASSWORD, URL, SECRET = "of-the-database", "postgresql://ada@db/shop-of-ada", "of-the-mail-server"


class Places:
    """Where values are: each says what it is told to, or fails with it."""

    def __init__(self, **says: Any) -> None:
        self.says: dict[str, Any] = {"password": PASSWORD, "infraspec": URL, "values": {"KEY": SECRET}} | says
        self.databases = self.source = self.secrets = self
        self.known = KnownSecrets(["norns-own"])

    def _say(self, name: str) -> Any:
        if isinstance(self.says[name], Exception):
            raise self.says[name]
        return self.says[name]

    async def password(self, _app: str) -> Any:
        return self._say("password")

    async def app(self, app: str) -> str:
        return app

    async def apps(self) -> list[Any]:
        return []

    async def infraspec(self, _app: str) -> Any:
        return SimpleNamespace(postgres=SimpleNamespace(url=self._say("infraspec")))

    async def values(self, _app: str) -> Any:
        return self._say("values")


async def test_norns_own_that_are_made_later_are_learnt_for_apps_that_are_known_already() -> None:
    places = Places()
    places.known.learn("shop", ["of-the-shop"])
    server = Server(cast("Any", SimpleNamespace(settings=None, own_secrets=lambda: ["made-later"])))
    server.services = cast("Any", places)
    await server._learn_secrets()
    assert places.known.of("shop").text("norns-own of-the-shop made-later") == f"{MARK} {MARK} {MARK}"
    assert places.known.everything.text("made-later") == MARK


@pytest.mark.parametrize(
    ("place", "left"),
    [("password", [PASSWORD]), ("infraspec", [URL]), ("values", [SECRET])],
    ids=lambda each: str(each),
)
async def test_a_place_that_fails_hides_no_other_and_the_app_is_asked_about_again(place: str, left: list[str]) -> None:
    places = Places(**{place: DatabaseUnavailable("It is away.")})
    await renew(cast("Any", places), "shop")
    assert {PASSWORD, URL, SECRET} - places.known.of("shop").values == set(left)
    assert not places.known.knows("shop")


@pytest.mark.parametrize("says", [{}, {"values": NotAllowed("No.")}, {"infraspec": NotFound("No infraspec.")}])
async def test_an_app_is_known_when_every_place_has_answered(says: dict[str, Any]) -> None:
    places = Places(**says)
    await renew(cast("Any", places), "shop")
    assert places.known.knows("shop")


def test_an_error_is_shown_without_them_and_stays_what_it_is() -> None:
    known = KnownSecrets()
    known.learn("shop", [SECRET])
    error = NotFound(f"No {SECRET}.", hint=f"Try {SECRET}.", output=[f"it printed {SECRET}"])
    shown = known.error("shop", error)
    assert isinstance(shown, NotFound)
    assert shown.to_json() == {
        "code": error.code, "message": f"No {MARK}.", "hint": f"Try {MARK}.", "output": [f"it printed {MARK}"],
    }  # fmt: skip
    assert SECRET in error.message


def test_a_value_that_is_set_is_not_all_of_an_apps() -> None:
    known = KnownSecrets()
    known.learn("shop", [SECRET])
    assert not known.knows("shop")


async def test_it_is_said_once_of_each_app_that_its_secrets_may_not_be_read() -> None:
    places = Places(values=NotAllowed("No."))
    with structlog.testing.capture_logs() as logs:
        for app in ("shop", "mail", "shop"):
            await renew(cast("Any", places), app)
    said = [(entry["app"], "norn-read-secrets" in entry["hint"]) for entry in logs if entry["log_level"] == "warning"]
    assert said == [("shop", True), ("mail", True)]


async def test_a_rollback_does_not_wait_for_places_that_do_not_answer() -> None:
    class Silent(Places):
        async def values(self, _app: str) -> Any:
            await asyncio.get_running_loop().create_future()

    places = Silent()
    going_back = cast("Any", SimpleNamespace(kind=OperationKind.ROLLBACK, app="shop"))
    async with asyncio.timeout(30):
        scrubber = await scrubber_of(cast("Any", places), going_back)
    assert scrubber.text("norns-own") == MARK


async def test_why_a_secret_could_not_be_set_is_written_down_without_its_value() -> None:
    written: list[Entry] = []

    class Refusing(Places):
        """Keeps nothing, and repeats what it was to keep."""

        async def app(self, app: str) -> Any:
            return SimpleNamespace(name=app)

        async def set(self, _app: str, _name: str, value: str) -> None:
            raise DatabaseUnavailable(f"It does not take {value}.")

        async def record(self, entry: Entry) -> None:
            written.append(entry)

    places = cast("Any", Refusing())
    places.store = SimpleNamespace(audit=places)
    with pytest.raises(DatabaseUnavailable):
        await set_secret(places, "shop", "KEY", SECRET, Caller("ada"))
    assert [(entry.outcome, entry.reason) for entry in written] == [
        (Outcome.ACCEPTED, ""),
        (Outcome.FAILED, f"It does not take {MARK}."),
    ]
