"""What the doctor says of the servers on one database; `_servers` gets what `GET /api/servers` answers."""

from __future__ import annotations

from typing import Any

from norn.cli.doctor import Finding, _servers

ALIVE = {"id": "s1", "host": "here", "dead": False, "silentS": 0.2}
DEAD = {"id": "s2", "host": "there", "dead": True, "silentS": 42.0}
STALE = {"operationId": "o1", "app": "shop", "kind": "deploy", "owner": "s2", "overdueS": 30.0}


def said_of(*servers: dict[str, Any], stale: tuple[dict[str, Any], ...] = ()) -> list[Finding]:
    return list(_servers({"servers": list(servers), "staleLeases": list(stale)}))


def test_where_all_are_at_work_nothing_is_wrong() -> None:
    assert [finding.ok for finding in said_of(ALIVE)] == [True]


def test_a_dead_server_is_named_with_the_time_it_has_been_silent() -> None:
    (wrong,) = [finding for finding in said_of(ALIVE, DEAD) if not finding.ok]
    assert "s2 on there: not heard of for 42 s" in wrong.message


def test_a_stale_lease_is_named_with_its_operation_and_app() -> None:
    (wrong,) = [finding for finding in said_of(ALIVE, stale=(STALE,)) if not finding.ok]
    assert (wrong.check, "the deploy o1 of shop" in wrong.message, bool(wrong.mend)) == ("leases", True, True)
