"""Which replica gets a request."""

from norn.adapters.local.proxy.routes import Routes


def routes_to(*instances: str) -> Routes:
    routes = Routes()
    routes.switch(1, [(name, 10_000 + number) for number, name in enumerate(instances)])
    return routes


def test_the_replica_with_the_fewest_in_flight_is_picked() -> None:
    routes = routes_to("1-1", "1-2", "1-3")
    for replica in routes.replicas():
        replica.in_flight = {"1-1": 2, "1-2": 1, "1-3": 3}[replica.instance]
    for _ in range(4):
        picked = routes.pick(set())
        assert picked is not None
        assert picked.instance == "1-2"


def test_equals_are_picked_by_turns() -> None:
    routes = routes_to("1-1", "1-2", "1-3")
    picked = [replica.instance for _ in range(6) if (replica := routes.pick(set()))]
    assert sorted(picked) == ["1-1", "1-1", "1-2", "1-2", "1-3", "1-3"]


def test_a_replica_that_was_tried_is_not_picked_again() -> None:
    routes = routes_to("1-1", "1-2")
    first = routes.pick(set())
    assert first is not None
    second = routes.pick({first})
    assert second is not None
    assert second is not first
    assert routes.pick({first, second}) is None


def test_without_replicas_none_is_picked() -> None:
    assert Routes().pick(set()) is None


def test_after_a_switch_only_the_new_replicas_are_picked() -> None:
    routes = routes_to("1-1", "1-2")
    routes.switch(2, [("2-1", 10_010)])
    assert {replica.instance for _ in range(4) if (replica := routes.pick(set()))} == {"2-1"}


def test_a_switch_keeps_the_replicas_that_stay() -> None:
    routes = routes_to("1-1", "1-2")
    stays = routes.pick(set())
    assert stays is not None
    routes.switch(1, [(stays.instance, stays.port), ("1-3", 10_020)])
    assert stays in list(routes.replicas())
    assert not stays.retired


def test_a_replica_on_another_port_is_another_one() -> None:
    routes = routes_to("1-1")
    before = routes.pick(set())
    assert before is not None
    routes.switch(1, [("1-1", before.port + 1)])
    assert before.retired


def test_retired_replicas_are_counted_until_they_have_answered() -> None:
    routes = routes_to("1-1")
    replica = routes.pick(set())
    assert replica is not None
    replica.in_flight = 1
    routes.switch(2, [("2-1", 10_010)])
    assert routes.in_flight() == {"2-1": 0, "1-1": 1}
    replica.in_flight = 0
    assert routes.in_flight() == {"2-1": 0}
