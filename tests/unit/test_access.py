"""Roles and what they permit; that every route says what it wants; and what is refused before anybody is known."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import Request
from tests.fixtures.route_table import OPEN, TABLE, all_routes, methods_of

from norn.domain.access import Grant, Permission, Role, to_steer, token_name_of, token_name_problem
from norn.domain.operations import Operation, OperationKind, OperationStatus
from norn.domain.ports.access import Known
from norn.errors import NotAllowed, TooManyAttempts
from norn.http.access import _by_session, admit
from norn.http.cookies import Session, local_path, same_origin
from norn.http.limits import BURST, WrongTokens
from norn.http.permissions import May, MaySteer, Of
from norn.operations.access import Gate, hash_of
from norn.operations.rollback_request import refuse_stopping
from norn.operations.services import Caller

ALLOWED = {
    Role.VIEWER: {Permission.VIEW},
    Role.OPERATOR: {Permission.VIEW, Permission.OPERATE},
    Role.DEPLOYER: {Permission.VIEW, Permission.OPERATE, Permission.DEPLOY},
    Role.ADMIN: set(Permission),
}


def grant(role: Role, *apps: str) -> Grant:
    return Grant("id", "on-call", role, frozenset(apps) if apps else None)


@pytest.mark.parametrize("permission", Permission)
@pytest.mark.parametrize("role", Role)
def test_a_role_permits_what_is_its_own_and_what_those_below_it_may(role: Role, permission: Permission) -> None:
    for app in ("shop", None):
        assert (grant(role).refusal(permission, app) == "") == (permission in ALLOWED[role])


@pytest.mark.parametrize(
    ("given", "permission", "app", "said"),
    [
        (grant(Role.OPERATOR, "shop"), Permission.OPERATE, "shop", ""),
        (grant(Role.OPERATOR, "shop", "mail"), Permission.VIEW, "mail", ""),
        (grant(Role.OPERATOR, "shop"), Permission.VIEW, "mail", "is not for mail"),
        (grant(Role.ADMIN, "shop"), Permission.ADMINISTER, None, "is for some apps; this concerns all"),
        (grant(Role.OPERATOR, "shop"), Permission.DEPLOY, "shop", "has the role operator; this wants deployer"),
        (grant(Role.VIEWER), Permission.ADMINISTER, None, "has the role viewer; this wants admin"),
        (grant(Role.VIEWER, "shop"), Permission.OPERATE, "mail", "has the role viewer; this wants operator"),
    ],
)
def test_a_refusal_says_what_is_missing(given: Grant, permission: Permission, app: str | None, said: str) -> None:
    refusal = given.refusal(permission, app)
    assert said in refusal
    assert bool(refusal) == bool(said)


@pytest.mark.parametrize(
    ("kind", "params", "permission"),
    [
        (OperationKind.DEPLOY, {}, Permission.OPERATE),
        (OperationKind.ROLLBACK, {}, Permission.OPERATE),
        (OperationKind.ROLLBACK, {"withData": True}, Permission.ADMINISTER),
        (OperationKind.RESTORE, {}, Permission.ADMINISTER),
        (OperationKind.RESTART, {}, Permission.OPERATE),
        (OperationKind.VERIFY, {}, Permission.OPERATE),
    ],
)
def test_who_may_not_begin_an_operation_on_data_may_not_confirm_or_stop_it(
    kind: OperationKind, params: dict[str, object], permission: Permission
) -> None:
    assert to_steer(operation(kind, **params)) is permission


def operation(kind: OperationKind, **params: Any) -> Operation:
    return Operation("id", 1, "shop", kind, OperationStatus.RUNNING, params, "me", "", datetime.now(UTC))


def asking(known: Operation, given: Grant) -> Request:
    """A request for that operation, by somebody with this grant."""

    class Store:
        async def operation(self, id_: str) -> Operation | None:
            return known if id_ == known.id else None

    services = SimpleNamespace(store=Store())
    app = SimpleNamespace(state=SimpleNamespace(context=SimpleNamespace(services=services)))
    return Request({"type": "http", "path_params": {"id": "id"}, "app": app, "state": {"grant": given}})


@pytest.mark.parametrize(
    ("known", "given"),
    [
        (operation(OperationKind.DEPLOY), grant(Role.OPERATOR, "shop")),
        (operation(OperationKind.RESTORE), grant(Role.ADMIN, "shop")),
        (operation(OperationKind.RESTORE, affects=["mail"]), grant(Role.ADMIN, "shop", "mail")),
        (operation(OperationKind.ROLLBACK, withData=True, affects=["mail"]), grant(Role.ADMIN)),
    ],
)
async def test_who_may_begin_it_may_confirm_and_stop_it(known: Operation, given: Grant) -> None:
    assert await MaySteer()(asking(known, given)) is given
    refuse_stopping(Caller("me", grant=given), [known])


@pytest.mark.parametrize(
    ("known", "given"),
    [
        (operation(OperationKind.DEPLOY), grant(Role.VIEWER)),
        (operation(OperationKind.DEPLOY), grant(Role.ADMIN, "mail")),
        (operation(OperationKind.RESTORE), grant(Role.DEPLOYER)),
        (operation(OperationKind.RESTORE, affects=["mail"]), grant(Role.ADMIN, "shop")),
        (operation(OperationKind.ROLLBACK, withData=True), grant(Role.OPERATOR, "shop")),
    ],
)
async def test_who_may_not_begin_it_may_neither_confirm_nor_stop_it(known: Operation, given: Grant) -> None:
    with pytest.raises(NotAllowed):
        await MaySteer()(asking(known, given))
    with pytest.raises(NotAllowed):
        refuse_stopping(Caller("me", grant=given), [operation(OperationKind.DEPLOY), known])


def test_norn_itself_stops_whatever_is_in_its_way() -> None:
    refuse_stopping(Caller("norn"), [operation(OperationKind.RESTORE, affects=["mail"])])


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("on-call", True),
        ("admin@host.example.com-2", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("", False),
        ("..", False),
        ("a/b", False),
        ("a b", False),
        ("a\n", False),
        ("<b>", False),
        ("ä", False),
        ("norn", False),
        ("Admin", False),
    ],
)
def test_names_of_tokens_fit_into_paths_pages_and_the_history(name: str, good: bool) -> None:
    assert (token_name_problem(name) == "") == good


@pytest.mark.parametrize("host", ["web-1.example.com", "a b\nc", "ümlaut", "", "h" * 200])
def test_every_hosts_name_makes_a_name_for_its_token(host: str) -> None:
    assert token_name_problem(f"admin@{token_name_of(host)}") == ""


# ---- routes ------------------------------------------------------------------------------------------------------


def test_every_route_is_in_the_table_of_who_may_use_it() -> None:
    there = {each for route in all_routes() for each in methods_of(route)}
    assert there == {(row.method, row.route) for row in TABLE} | OPEN


@pytest.mark.parametrize("route", all_routes(), ids=lambda route: f"{min(route.methods)} {route.path}")
def test_every_route_says_what_it_wants(route: Any) -> None:
    dependant = getattr(route, "dependant", None)
    if methods_of(route) <= OPEN or dependant is None:  # FastAPI's own pages say the same to everybody who is known
        return
    said = [found.call for found in dependant.dependencies if isinstance(found.call, May)]
    assert len(said) == 1
    assert (said[0].of is Of.APP) == ("{app}" in route.path)


# ---- browsers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        ("/apps/shop", "/apps/shop"),
        ("/apps/shop/rollback?to=3f2a91c&x=%2F", "/apps/shop/rollback?to=3f2a91c&x=%2F"),
        ("", "/"),
        ("apps", "/"),
        ("//evil.example.com", "/"),
        ("/\\evil.example.com", "/"),
        ("\\\\evil.example.com", "/"),
        ("/a\\b", "/"),
        ("https://evil.example.com/", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nSet-Cookie: x=y", "/"),
        ("/\t/evil.example.com", "/"),
        (" //evil.example.com", "/"),
        ("/ä", "/"),
        ("/sign-in?next=/sign-in", "/"),
        ("/" + "a" * 3_000, "/"),
    ],
)
def test_after_signing_in_nobody_is_led_to_another_host(path: str, leads_to: str) -> None:
    assert local_path(path) == leads_to


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({"origin": "http://norn.example.com"}, True),
        ({"origin": "https://norn.example.com"}, True),  # a proxy ended TLS
        ({"origin": "https://norn.example.com", "sec-fetch-site": "same-origin"}, True),
        ({"origin": "null", "sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({}, False),
        ({"origin": "null"}, False),
        ({"origin": "https://evil.example.com"}, False),
        ({"origin": "https://norn.example.com:8443"}, False),
        ({"origin": "https://norn.example.com.evil.example.com"}, False),
        ({"origin": "https://norn.example.com", "sec-fetch-site": "cross-site"}, False),
        ({"origin": "https://norn.example.com", "sec-fetch-site": "same-site"}, False),
        ({"origin": "https://evil.example.com", "sec-fetch-site": "same-origin"}, False),
        ({"origin": "file://"}, False),
        ({"origin": "http://[::1"}, False),
    ],
)
def test_only_pages_of_this_very_host_are_of_the_same_origin(headers: dict[str, str], same: bool) -> None:
    assert same_origin({"host": "norn.example.com"} | headers) is same


def test_a_proof_is_another_text_every_time_and_fits_its_session_alone() -> None:
    mine, other = Session("s" * 43), Session("t" * 43)
    first, second = mine.proof(), mine.proof()
    assert first != second
    assert (mine.proves(first), mine.proves(second), other.proves(first)) == (True, True, False)


@pytest.mark.parametrize("text", ["", "x", "0" * 96, "ä" * 96])
def test_what_is_no_proof_proves_nothing(text: str) -> None:
    assert Session("s" * 43).proves(text) is False


def test_a_session_does_not_show_its_secret() -> None:
    assert "sssss" not in repr(Session("s" * 43))


# ---- wrong tokens ------------------------------------------------------------------------------------------------


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_an_address_has_twenty_wrong_tokens_and_one_more_every_three_seconds() -> None:
    clock = Clock()
    wrong = WrongTokens(clock)
    for _ in range(BURST):
        assert wrong.wait_s("192.0.2.1") == 0
        wrong.came_from("192.0.2.1")
    assert wrong.wait_s("192.0.2.1") == pytest.approx(3.0)
    clock.now += 3.0
    assert wrong.wait_s("192.0.2.1") == 0


def test_other_addresses_are_not_held_up() -> None:
    wrong = WrongTokens(Clock())
    for _ in range(BURST):
        wrong.came_from("192.0.2.1")
    assert wrong.wait_s("192.0.2.2") == 0


def test_the_addresses_of_one_ipv6_network_count_as_one() -> None:
    wrong = WrongTokens(Clock())
    for number in range(BURST):
        wrong.came_from(f"2001:db8::{number:x}")
    assert wrong.wait_s("2001:db8::ffff") > 0
    assert wrong.wait_s("2001:db8:0:1::1") == 0


def test_however_many_addresses_there_are_memory_is_bounded_and_the_busiest_stay_known() -> None:
    wrong = WrongTokens(Clock())
    for number in range(20_000):
        wrong.came_from(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        wrong.came_from("192.0.2.1")
    assert len(wrong._buckets) == 10_000
    assert wrong.wait_s("192.0.2.1") > 0


def test_an_ipv4_address_counts_as_itself_however_a_socket_names_it() -> None:
    wrong = WrongTokens(Clock())
    for _ in range(BURST):
        wrong.came_from("::ffff:192.0.2.1")
    assert wrong.wait_s("192.0.2.1") > 0
    assert wrong.wait_s("::ffff:192.0.2.2") == 0


class Looked:
    """Tokens and sessions of which `right` is the only one, and how often they were looked up."""

    def __init__(self) -> None:
        self.looked_up = 0

    async def find(self, hash_: bytes) -> Known | None:
        self.looked_up += 1
        await asyncio.sleep(0)
        return Known(hash_, grant(Role.VIEWER), False, None) if hash_ == hash_of("right") else None

    async def session(self, _hash: bytes) -> None:
        self.looked_up += 1
        await asyncio.sleep(0)


async def test_many_wrong_tokens_at_once_are_not_all_looked_up() -> None:
    looked, wrong = Looked(), WrongTokens(Clock())
    gate = Gate(cast("Any", looked))
    each = (admit(gate, wrong, f"wrong-{number}", "192.0.2.1") for number in range(100))
    refused = await asyncio.gather(*each, return_exceptions=True)
    assert looked.looked_up == BURST
    assert sum(isinstance(error, TooManyAttempts) for error in refused) == 100 - BURST


async def test_right_tokens_use_no_attempt_up() -> None:
    wrong = WrongTokens(Clock())
    gate = Gate(cast("Any", Looked()))
    for _ in range(2 * BURST):
        await admit(gate, wrong, "right", "192.0.2.1")
    assert wrong._left("192.0.2.1") == BURST


async def by_cookie(gate: Gate, wrong: WrongTokens, secret: str) -> bool:
    headers = {"cookie": f"norn-session={secret}"}
    scope = {"type": "http", "scheme": "http", "path": "/", "method": "GET", "state": {"address": "192.0.2.1"}}
    return await _by_session(gate, wrong, scope, headers)


async def test_made_up_sessions_are_limited_like_wrong_tokens() -> None:
    looked, wrong = Looked(), WrongTokens(Clock())
    gate = Gate(cast("Any", looked))
    each = (by_cookie(gate, wrong, f"{number:043}") for number in range(100))
    await asyncio.gather(*each, return_exceptions=True)
    assert looked.looked_up == BURST


async def test_a_browser_with_an_old_session_uses_one_attempt_up() -> None:
    looked, wrong = Looked(), WrongTokens(Clock())
    gate = Gate(cast("Any", looked))
    assert [await by_cookie(gate, wrong, "0" * 43) for _ in range(2 * BURST)] == 2 * BURST * [False]
    assert looked.looked_up == 1
