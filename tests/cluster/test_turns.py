"""Who comes late changes nothing, on the real API server: above all where there is no object that could say so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from tests.cluster.test_operations import FOREIGN
from tests.fixtures.clusters import BASE_IMAGE, Namespace
from tests.fixtures.norn import PATIENCE_S
from tests.fixtures.turns import turn

from norn.adapters.kubernetes import manifests
from norn.adapters.kubernetes.changes import Changes
from norn.adapters.kubernetes.client import Cluster
from norn.adapters.kubernetes.halts import Halts
from norn.adapters.kubernetes.jobs import JobRun, delete_job
from norn.adapters.kubernetes.reflector import Mirror
from norn.adapters.kubernetes.resources import Deployment, Job, Object, Secret, annotations_of
from norn.adapters.kubernetes.runtime import KubernetesRuntime
from norn.adapters.kubernetes.workload import FENCE, Workload
from norn.domain.images import Image
from norn.domain.ports import Release, Switch, Template, Turn
from norn.errors import LeaseLost, RolloutFailed

DIGEST, OTHER = "sha256:" + "0" * 64, "sha256:" + "1" * 64


def release(app: str, deployment_id: str = "a", *, replicas: int = 2) -> Release:
    """Of an image that is nowhere: what is asked for is what counts, and pods come to nothing."""
    template = Template("worker", replicas, None, None, {}, (), 300.0)
    return Release(app, deployment_id, Image(BASE_IMAGE, DIGEST, ""), template)


def whatever_it_is(_workload: Workload) -> None:
    pass


def asleep(act: Callable[[], Awaitable[Any]], fence: int = 5) -> Turn:
    """The turn of a server that sleeps while it confirms its claim: meanwhile others `act`, and the claim is lost."""

    async def confirm() -> None:
        await act()
        raise LeaseLost("It has been taken over.")

    return Turn("a", fence, confirm)


class Sleeper(Mirror):
    """Of a server that falls asleep after its looks: each is followed by what others do meanwhile."""

    def __init__(self, cluster: Cluster, *meanwhile: Callable[[], Awaitable[Any]]) -> None:
        super().__init__(cluster)
        self._meanwhile = list(meanwhile)

    async def refresh(self, app: str) -> Object | None:
        obj = await super().refresh(app)
        if self._meanwhile:
            await self._meanwhile.pop(0)()
        return obj


@pytest.fixture
def changes(cluster: Cluster) -> Changes:
    return Changes(cluster, Mirror(cluster))


async def no_environment(_app: str, _template: Template) -> dict[str, str]:
    return {}


async def found(cluster: Cluster, app: str) -> Workload:
    obj = await cluster.get(Deployment, app)
    assert obj is not None
    return Workload(obj)


async def rolled_out(changes: Changes, app: str, turn: Turn) -> None:
    """Its change has, let it be said."""
    await changes.note_live(await changes._workload(app, fresh=True), turn)


async def deployed(changes: Changes, app: str, turn: Turn, *, replicas: int = 2) -> None:
    await changes.apply(release(app, turn.operation_id, replicas=replicas), turn, whatever_it_is)
    await rolled_out(changes, app, turn)


async def refused(change: Awaitable[Any]) -> None:
    """Because it comes too late, by whatever it notices first."""
    with pytest.raises((LeaseLost, RolloutFailed)) as late:
        await change
    if isinstance(late.value, RolloutFailed):
        assert late.value.facts["reason"] == "superseded"


# ---- a first Deployment ------------------------------------------------------------------------------------------


async def test_a_first_deployment_runs_only_once_the_claim_is_confirmed(cluster: Cluster, changes: Changes) -> None:
    seen: list[int] = []

    async def confirm() -> None:
        seen.append((await found(cluster, "confirmed")).replicas)

    await changes.apply(release("confirmed"), Turn("a", 5, confirm), whatever_it_is)
    assert (seen, (await found(cluster, "confirmed")).replicas) == ([0], 2)


async def test_of_a_first_deployment_that_comes_too_late_nothing_is_left(cluster: Cluster, changes: Changes) -> None:
    await refused(changes.apply(release("unborn"), turn("a", 5, lost=True), whatever_it_is))
    assert await cluster.get(Deployment, "unborn") is None


async def test_nothing_is_left_of_it_where_others_of_the_server_notice_first(
    cluster: Cluster, changes: Changes
) -> None:
    first = True

    async def confirm() -> None:
        nonlocal first
        if first:
            first = False
            task.cancel()
            await asyncio.sleep(60)
        raise LeaseLost("It has been taken over.")

    task = asyncio.ensure_future(changes.apply(release("noticed"), Turn("a", 5, confirm), whatever_it_is))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await cluster.get(Deployment, "noticed") is None


@pytest.mark.parametrize("when", ["after its look", "while it confirms"])
async def test_what_a_successor_has_removed_meanwhile_is_not_made_again(cluster: Cluster, when: str) -> None:
    app = f"removed-{when.split()[0]}"
    successor = KubernetesRuntime(cluster, no_environment)

    async def undo() -> None:
        await successor.put_back(app, turn("a", 7), None, print)
        assert await cluster.get(Deployment, app) is None

    if when == "after its look":
        await Changes(cluster, Mirror(cluster)).apply(release(app), turn("a", 5), whatever_it_is)
        late = Changes(cluster, Sleeper(cluster, undo)).apply(release(app), turn("a", 5, lost=True), whatever_it_is)
    else:
        late = Changes(cluster, Mirror(cluster)).apply(release(app), asleep(undo), whatever_it_is)
    await refused(late)
    assert await cluster.get(Deployment, app) is None


async def test_an_app_that_somebody_removes_after_the_look_of_one_who_is_late_stays_removed(
    cluster: Cluster, changes: Changes
) -> None:
    await deployed(changes, "cleared", turn("b", 4))
    late = Changes(cluster, Sleeper(cluster, lambda: cluster.delete(Deployment, "cleared")))
    await refused(late.apply(release("cleared"), turn("a", 5, lost=True), whatever_it_is))
    assert await cluster.get(Deployment, "cleared") is None


@pytest.mark.parametrize("replicas", [0, 1, 3])
@pytest.mark.parametrize("live", [False, True])
async def test_who_has_looked_before_it_was_made_changes_nothing_of_it(
    cluster: Cluster, changes: Changes, replicas: int, live: bool
) -> None:
    app = f"early-{replicas}-{live}".lower()

    async def follow() -> None:
        await changes.apply(release(app, "z", replicas=replicas), turn("z", 9), whatever_it_is)
        if live:
            await rolled_out(changes, app, turn("z", 9))

    late = Changes(cluster, Sleeper(cluster, follow))
    await refused(late.apply(release(app), turn("a", 5, lost=True), whatever_it_is))
    left = await found(cluster, app)
    assert (left.change_id, left.fence, left.replicas, left.begun) == ("z", 9, replicas, True)


async def test_that_he_took_over_a_field_once_does_not_let_him_take_over_another_object(
    cluster: Cluster, changes: Changes
) -> None:
    await deployed(changes, "forced", turn("b", 4))
    image = Image(BASE_IMAGE, OTHER, "")
    await changes.switch(Switch("forced", "c", image), turn("c", 4), whatever_it_is)  # so that its fields conflict

    async def nothing() -> None:
        pass

    async def removed() -> None:
        await cluster.delete(Deployment, "forced")

    async def follow() -> None:
        await deployed(changes, "forced", turn("z", 9), replicas=3)

    late = Changes(cluster, Sleeper(cluster, nothing, removed, follow))
    await refused(late.apply(release("forced"), turn("a", 5, lost=True), whatever_it_is))
    left = await found(cluster, "forced")
    assert (left.change_id, left.fence, left.replicas) == ("z", 9, 3)


async def test_who_is_in_time_makes_it_though_one_who_is_late_came_by(cluster: Cluster, changes: Changes) -> None:
    class Early(Mirror):
        """He has looked before it was made."""

        async def refresh(self, app: str) -> Object | None:
            self.refresh = super().refresh  # type: ignore[method-assign]
            return None

    sleeper = Changes(cluster, Early(cluster))
    late = iter([sleeper.apply(release("met"), turn("a", 5, lost=True), whatever_it_is)])

    async def confirm() -> None:
        for change in late:
            await refused(change)

    await changes.apply(release("met", "z"), Turn("z", 9, confirm), whatever_it_is)
    made = await found(cluster, "met")
    assert (list(late), made.change_id, made.fence, made.replicas) == ([], "z", 9, 2)


async def test_a_deployment_that_has_changed_since_the_look_is_not_removed(cluster: Cluster, changes: Changes) -> None:
    await changes.apply(release("kept"), turn("a", 5), whatever_it_is)

    async def follow() -> None:
        await changes.apply(release("kept", "z"), turn("z", 9), whatever_it_is)

    await refused(Changes(cluster, Sleeper(cluster, follow)).remove("kept", turn("a", 5)))
    assert (await found(cluster, "kept")).change_id == "z"


# ---- one that is there -------------------------------------------------------------------------------------------


async def test_one_that_an_older_server_has_changed_is_fenced_from_the_first_change_on(
    space: Namespace, cluster: Cluster, changes: Changes
) -> None:
    await deployed(changes, "older", turn("b", 4))
    await asyncio.to_thread(space.kubectl, "annotate", "deployment/older", "norn.dev/fence-")

    class Slow(Changes):
        """Another server changes it and puts it back, between this one's look and its patch."""

        async def _patch(self, workload: Workload, operations: Sequence[Object]) -> None:
            self._patch = super()._patch  # type: ignore[method-assign]
            await changes.switch(Switch("older", "d", Image(BASE_IMAGE, OTHER, "")), turn("d", 6), whatever_it_is)
            before = Switch("older", "b", Image(BASE_IMAGE, DIGEST, ""))
            await changes.switch(before, turn("d", 6), whatever_it_is)
            await super()._patch(workload, operations)

    late = Switch("older", "d", Image(BASE_IMAGE, OTHER, ""))
    await refused(Slow(cluster, Mirror(cluster)).switch(late, turn("d", 5), whatever_it_is))
    left = await found(cluster, "older")
    assert (left.change_id, left.fence) == ("b", 6)


async def test_an_app_that_was_not_to_be_brought_back_is_not_halted_late_all_the_same(
    cluster: Cluster, changes: Changes
) -> None:
    await deployed(changes, "awake", turn("b", 4))
    halts = Halts(cluster, changes._mirror, changes)
    await halts.give_back("awake", turn("d", 6), print)
    await refused(halts.halt("awake", turn("d", 5), print))
    left = await found(cluster, "awake")
    assert (left.halted, left.replicas) == (False, 2)


async def test_what_another_installation_has_changed_since_stays_and_is_no_error_of_an_undo(
    cluster: Cluster, changes: Changes
) -> None:
    await deployed(changes, "shared", turn("b", 9))
    await KubernetesRuntime(cluster, no_environment).put_back("shared", turn("x", 5), None, print)
    assert (await found(cluster, "shared")).fence == 9


async def test_an_operation_that_is_over_adopts_nothing_any_more(space: Namespace, cluster: Cluster) -> None:
    image = f"{BASE_IMAGE.rpartition(':')[0]}@{DIGEST}"
    await asyncio.to_thread(
        space.kubectl, "apply", "-f", "-", stdin=FOREIGN.format(name="strange", image=image, base=image)
    )
    await refused(KubernetesRuntime(cluster, no_environment).adopt("strange", turn("a", 5, lost=True), None))
    assert (await found(cluster, "strange")).foreign


# ---- jobs: of one that has come to its end nothing is left at all ------------------------------------------------


def migration(turn: Turn) -> Object:
    job = manifests.job(release("migrated", turn.operation_id), turn, "migrate", ["echo", "it has run"], {})
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container["image"] = BASE_IMAGE
    return job


async def run(cluster: Cluster, turn: Turn) -> int:
    """How often it has run."""
    printed: list[str] = []
    await JobRun(cluster, migration(turn), printed.append).run(turn)
    return printed.count("it has run\n")


async def test_a_job_gets_a_pod_only_once_the_claim_is_confirmed(cluster: Cluster) -> None:
    seen: list[int] = []

    async def confirm() -> None:
        job = await cluster.get(Job, "norn-migrate-once")
        assert job is not None
        seen.append(job["spec"]["parallelism"])

    assert (await run(cluster, Turn("once", 5, confirm)), seen) == (1, [0])


async def test_of_a_job_that_comes_too_late_nothing_is_left(cluster: Cluster) -> None:
    await refused(run(cluster, turn("late", lost=True)))
    assert await cluster.get(Job, "norn-migrate-late") is None


async def test_who_is_in_time_runs_a_job_though_one_who_is_late_takes_it_away(cluster: Cluster) -> None:
    late = iter([delete_job(cluster, "norn-migrate-met", turn("met", 9))])

    async def confirm() -> None:
        for removal in late:
            await removal

    assert (await run(cluster, Turn("met", 9, confirm)), list(late)) == (1, [])


async def test_a_job_that_a_later_turn_goes_on_with_is_not_deleted(cluster: Cluster) -> None:
    later = turn("followed", 9)
    assert await cluster.create(migration(later), Job) is not None
    await delete_job(cluster, "norn-migrate-followed", turn("followed", 5))
    assert await cluster.get(Job, "norn-migrate-followed") is not None
    await delete_job(cluster, "norn-migrate-followed", later)


async def test_a_job_that_is_gone_on_with_is_of_the_later_turn_from_then_on(cluster: Cluster) -> None:
    assert await cluster.create(migration(turn("handed", 5)), Job) is not None

    async def late() -> None:
        async with asyncio.timeout(PATIENCE_S):
            while (job := await cluster.get(Job, "norn-migrate-handed")) and annotations_of(job)[FENCE] != "9":
                await asyncio.sleep(0.01)
        await delete_job(cluster, "norn-migrate-handed", turn("handed", 5))

    assert (await asyncio.gather(run(cluster, turn("handed", 9)), late()))[0] == 1


async def test_the_secret_of_a_job_is_not_written_late(cluster: Cluster) -> None:
    async def environment(_app: str, _template: Template) -> dict[str, str]:
        return {"DATABASE_URL": "late"}

    runtime = KubernetesRuntime(cluster, environment)
    await refused(runtime.run_job(release("sealed"), turn("sealed", lost=True), "migrate", ["true"], {}, print))
    assert not await cluster.has(Secret, "sealed-norn", "/data/DATABASE_URL")


# ---- how much runs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 3])
async def test_the_number_of_replicas_is_the_infraspecs_once_and_nobodys_after_that(
    cluster: Cluster, changes: Changes, number: int
) -> None:
    app = f"numbered-{number}"
    await deployed(changes, app, turn("a", 5), replicas=number)
    assert (await found(cluster, app)).replicas == number
    await deployed(changes, app, turn("b", 6))
    assert (await found(cluster, app)).replicas == number


async def test_a_number_that_somebody_has_set_stays(space: Namespace, cluster: Cluster, changes: Changes) -> None:
    await deployed(changes, "scaled", turn("a", 5))
    four = '{"spec": {"replicas": 4}}'
    await asyncio.to_thread(space.kubectl, "patch", "deployment/scaled", f"--patch={four}", "--field-manager=scaler")
    await deployed(changes, "scaled", turn("b", 6))
    assert (await found(cluster, "scaled")).replicas == 4
