"""How a verdict is put together, and kept: what is late, broken, unknown or about to be."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.unit.test_targets import NOW, deployment

from norn.adapters.kubernetes.configuration import declared_shape, texts_of
from norn.adapters.kubernetes.workload import Workload
from norn.domain.catalog import Catalog
from norn.domain.configuration import Shape, Texts, digests
from norn.domain.infraspec import Infraspec, Migrations, PostgresService
from norn.domain.infraspec.spec import Dependency
from norn.domain.ledgers import Ledger
from norn.domain.ports import Template
from norn.domain.schema import Schema
from norn.domain.snapshots import Anchor
from norn.domain.surroundings import AFTER, BEFORE, DatabaseState, Noted, Surroundings
from norn.domain.targets import LiveVersion, Question
from norn.domain.verdict import Finding, Level, Way, not_checked
from norn.errors import ClusterRefused, RuntimeUnavailable
from norn.operations import readiness
from norn.operations.assessment import assess
from norn.operations.readiness import KeptReadiness
from norn.operations.services import Services

KEY = b"k" * 32
ANCHOR = Anchor("s", 1, "1:1:", "", NOW)


def state(ledgers: Sequence[Ledger] = ()) -> DatabaseState:
    return DatabaseState(Schema(Catalog(()), "s/1", NOW), tuple(ledgers), ANCHOR, {})


class World:
    """One app: d1 was live before d2, which is; each part of it can be changed."""

    def __init__(self) -> None:
        self.spec = Infraspec("shop", "webserver", port=80, healthcheck="/health", command=("shop",))
        self.specs: dict[str, Infraspec] = {}
        self.template = Template.of(self.spec)
        self.history = [deployment(seq, str(seq), template=self.template.to_json()) for seq in (2, 1)]
        self.told: Texts = {"env A": "1"}
        self.ledgers: list[Ledger] = []
        self.noted = [Noted("d2", AFTER, NOW, "s/1"), Noted("d2", BEFORE, NOW, "s/1")]
        self.asked_for: list[str | None] = []
        self.audit = self
        self.stored: list[dict[str, Any]] = []
        self.change = ("1", False)

    @property
    def services(self) -> Services:
        parts = ("store", "source", "runtime", "databases", "schemas", "dependencies")
        return cast("Services", SimpleNamespace(**dict.fromkeys(parts, self), snapshots=self, readiness=None))

    def question(self, **more: Any) -> Question:
        newest = self.history[0]
        return Question("shop", self.history[1], LiveVersion(newest.image_tag, newest.digest or "", newest), **more)

    async def findings(self, *, budget_s: float = 60.0, **more: Any) -> dict[str, Finding]:
        return {finding.code: finding for finding in await assess(self.services, self.question(**more), budget_s)}

    # ---- the store ---------------------------------------------------------------------------------------------------

    async def deployments(self, **_: object) -> list[Any]:
        return self.history

    async def surroundings_noted(self, _app: str) -> list[Noted]:
        return self.noted

    async def surroundings(self, deployment_id: str, moment: str) -> Surroundings | None:
        then = digests(self.told_then, KEY)
        return Surroundings(deployment_id, moment, NOW, state([Ledger("Alembic", "v", ("a",))]), then)

    @property
    def told_then(self) -> Texts:
        fields = ("role", "replicas", "port", "healthcheck", "hosts", "secrets", "postgres")
        spec = self.specs.get("then", self.spec)
        url = {"infraspec postgres url": spec.postgres.url} if spec.postgres and spec.postgres.url else {}
        return {"env A": "1"} | {f"infraspec {name}": repr(getattr(spec, name)) for name in fields} | url

    async def restores(self, _app: str) -> list[Any]:
        return []

    async def snapshots(self, _app: str) -> list[Any]:
        return self.stored

    async def names(self) -> list[str]:
        return [row["name"] for row in self.stored]

    async def installation_key(self) -> bytes:
        return KEY

    async def newest_change(self) -> tuple[str, bool]:
        return self.change

    # ---- the rest ----------------------------------------------------------------------------------------------------

    async def app(self, name: str) -> Any:
        return SimpleNamespace(name=name)

    async def infraspec(self, _app: object, commit: str | None = None) -> Infraspec:
        return self.specs.get(commit or "", self.spec)

    async def configuration(self, _app: str) -> Texts:
        return self.told

    async def workload(self, _app: str) -> Mapping[str, Any]:
        return {}

    def shape(self, _workload: Mapping[str, Any], template: Template | None) -> Shape:
        return declared_shape(template)

    async def find(self, _app: str, postgres: PostgresService) -> Any:
        self.asked_for.append(postgres.url)
        return SimpleNamespace(name=postgres.database)

    async def look(self, *_: object) -> tuple[DatabaseState, dict[str, str]]:
        return state(self.ledgers), {}

    async def written(self, *_: object) -> None:
        return None

    async def ask(self, _dependencies: object) -> tuple[()]:
        return ()


@pytest.fixture
def world() -> World:
    return World()


def with_database(world: World, **more: Any) -> None:
    world.spec = replace(world.spec, postgres=PostgresService("shop"), **more)


async def test_where_nothing_has_changed_nothing_is_found(world: World) -> None:
    with_database(world)
    assert await world.findings() == {}


async def test_a_part_that_is_late_is_not_checked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    never = asyncio.Event()

    async def ask(_: object) -> None:
        await never.wait()

    monkeypatch.setattr(world, "ask", ask)
    (found,) = (await world.findings(budget_s=2.0)).values()  # room for the others, on a machine that stands still
    assert (found.code, found.level, found.facts["part"]) == ("not_checked", Level.CAUTION, "what lies outside")
    assert "longer than 2 s" in found.message


@pytest.mark.parametrize(
    ("error", "why"),
    [(RuntimeUnavailable("The cluster is away."), "The cluster is away"), (ValueError("x"), "a defect in Norn")],
)
async def test_a_part_that_fails_is_not_checked(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, why: str
) -> None:
    async def configuration(_: str) -> Texts:
        raise error

    monkeypatch.setattr(world, "configuration", configuration)
    (found,) = (await world.findings()).values()
    assert (found.code, found.facts["part"]) == ("not_checked", "the configuration")
    assert found.facts["why"].startswith(why)


async def test_a_record_without_a_database_on_the_way_is_not_checked(world: World) -> None:
    with_database(world)
    world.noted = [replace(world.noted[0], looked=False, database=""), world.noted[1]]
    found = (await world.findings())["not_checked"]
    assert "it is not known what the deploy of shop:2 has changed" in found.facts["why"]


@pytest.mark.parametrize(
    ("command", "level"), [(("shop",), None), (None, Level.CAUTION)], ids=["its own command", "as the image starts"]
)
async def test_an_image_that_starts_by_itself_perhaps_migrates(
    world: World, command: tuple[str, ...] | None, level: Level | None
) -> None:
    with_database(world, migrations=Migrations(("migrate",)), command=command)
    world.ledgers = [Ledger("Alembic", "v", ("b",))]
    found = (await world.findings()).get("revision_unknown")
    assert (found.level if found is not None else None) is level


async def test_a_way_out_does_not_say_that_it_loses_no_rows_where_that_is_not_known(world: World) -> None:
    with_database(world, command=None)
    world.ledgers = [Ledger("Alembic", "v", ("b",))]
    was_live = world.history[1].live_from
    taken: dict[str, Any] = {
        "name": "shop_2_x.dump",
        "taken_at": was_live,
        "operation_id": "d2",
        "kept": False,
        "verified_at": None,
    }
    world.stored, world.history = [taken], [replace(world.history[0], snapshot=taken["name"]), world.history[1]]
    restore, _ = (await world.findings())["revision_unknown"].ways
    assert restore.text.endswith("It loses what was written since (how many rows is not known).")


async def test_the_database_that_is_looked_at_is_the_one_whose_url_stays(world: World) -> None:
    with_database(world)
    old, new = (replace(world.spec, postgres=PostgresService("shop", url)) for url in ("old", "new"))
    world.specs = {"1": old, "2": new, "then": old}
    found = await world.findings()
    assert world.asked_for == ["new"]
    assert found["configuration_changed"].facts["changed"] == ["infraspec postgres url"]


async def test_what_is_about_to_be_deployed_is_judged_by_its_own_template(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def workload(_app: str) -> Mapping[str, Any]:
        return {"of": "what is still live"}

    monkeypatch.setattr(world, "workload", workload)
    changed = replace(world.template, port=81, env={"A": "2"})
    world.history = [replace(world.history[0], template=changed.to_json()), world.history[1]]
    found = await world.findings(foreseen=True)
    assert found["template_incompatible"].facts["different"] == ["port"]
    assert found["configuration_changed"].facts["changed"] == ["env A"]


async def test_of_a_version_without_a_commit_the_dependencies_are_not_checked_where_the_app_has_some(
    world: World,
) -> None:
    world.history = [world.history[0], replace(world.history[1], commit_sha="")]
    assert "not_checked" not in await world.findings()
    world.spec = replace(world.spec, dependencies=(Dependency("pay", "https://pay.example.com"),))
    assert (await world.findings())["not_checked"].facts["part"] == "what lies outside"


async def test_of_a_version_of_which_nothing_was_noted_the_way_it_is_run_is_not_checked(world: World) -> None:
    world.history = [world.history[0], replace(world.history[1], template=None)]
    assert (await world.findings())["not_checked"].facts["part"] == "the way it is run"


async def test_a_database_that_is_missing_says_how_to_make_it_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find(*_: object) -> None:
        return None

    monkeypatch.setattr(world, "find", find)
    with_database(world)
    (way,) = (await world.findings())["database_missing"].ways
    assert way.command == "norn snapshots restore shop SNAPSHOT --into shop"


async def test_a_secret_or_config_map_that_may_not_be_read_is_named_as_such() -> None:
    class Refusing:
        async def get(self, *_: object) -> None:
            raise ClusterRefused("no")

    refs = [{"secretRef": {"name": name}} for name in ("shop-norn", "shop-secrets", "vault")]
    container = {"name": "shop", "envFrom": [*refs, {"configMapRef": {"name": "colours"}}]}
    obj = {"metadata": {"name": "shop"}, "spec": {"template": {"spec": {"containers": [container]}}}}
    found = await texts_of(cast("Any", Refusing()), Workload(obj))
    hidden = [name for name in found if name.startswith(("unread", "noted"))]
    assert hidden == ["unread config map colours", "noted secret shop-secrets", "unread secret vault"]


def test_what_was_not_checked_says_what_helps() -> None:
    assert not_checked("the schema", "it is late").ways
    assert not_checked("the schema", "it is late", Way("so")).ways == (Way("so"),)


# ---- what is kept --------------------------------------------------------------------------------------------------


class Looks:
    """Counts how often somebody looks, and says what is found."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.found, self.now = 0, (), 1_000.0
        monkeypatch.setattr(readiness, "assess", self.assess)
        monkeypatch.setattr(readiness, "time", SimpleNamespace(monotonic=lambda: self.now))

    found: tuple[Finding, ...]

    async def assess(self, *_: object) -> tuple[Finding, ...]:
        self.count += 1
        return self.found


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


@pytest.mark.parametrize(
    ("found", "under_way", "age_s", "count"),
    [
        ((), False, 59, 1),
        ((), False, 61, 2),
        ((), True, 1, 1),
        ((), True, 3, 2),
        ((not_checked("the schema", "late"),), False, 1, 1),
        ((not_checked("the schema", "late"),), False, 3, 2),
        ((Finding("column_dropped", Level.UNSAFE, ""),), False, 3, 2),
    ],
)
async def test_what_was_found_counts_for_a_while(
    world: World, looks: Looks, found: tuple[Finding, ...], *, under_way: bool, age_s: float, count: int
) -> None:
    kept, looks.found = KeptReadiness(), found
    for _ in range(2):
        assert await kept.findings(world.services, world.question(), ("1", under_way)) == found
        looks.now += age_s
    assert looks.count == count


async def test_after_a_change_by_norn_nothing_that_was_found_before_counts(world: World, looks: Looks) -> None:
    kept = KeptReadiness()
    for change in ("1", "2"):
        await kept.findings(world.services, world.question(), (change, False))
    assert looks.count == 2


async def test_two_who_ask_at_once_wait_for_the_same(world: World, looks: Looks) -> None:
    kept = KeptReadiness()
    await asyncio.gather(*(kept.findings(world.services, world.question(), ("1", False)) for _ in range(2)))
    assert looks.count == 1


async def test_what_is_renewed_is_found_out_anew_and_what_is_old_forgotten(
    world: World, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None:
        return None

    async def apps() -> list[Any]:
        return [SimpleNamespace(name="shop")]

    async def live(_app: str) -> Any:
        return world.question().live

    async def live_version(*_: object) -> LiveVersion | None:
        return world.question().live

    async def find_target(*_: object) -> Any:
        return SimpleNamespace(deployment=world.question().target)

    monkeypatch.setattr(world, "apps", apps, raising=False)
    monkeypatch.setattr(world, "live", live, raising=False)
    monkeypatch.setattr(readiness, "live_version", live_version)
    monkeypatch.setattr(readiness, "find_target", find_target)
    kept, services = KeptReadiness(), world.services
    counts = []
    for _ in range(3):
        await kept.renew(services)
        counts.append(looks.count)
        looks.now += 25
    assert counts == [1, 1, 2], "renewed before it is old, and not at every turn"
    await kept.findings(services, world.question())
    assert looks.count == 2, "who asks then does not wait"
    looks.now += timedelta(minutes=2).total_seconds()
    monkeypatch.setattr(world, "live", nothing)
    await kept.renew(services)
    assert not kept._known
