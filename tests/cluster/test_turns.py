"""Who comes late changes nothing, on the real API server: above all where there is no object that could say so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.fixtures.clusters import BASE_IMAGE, Namespace
from tests.fixtures.turns import turn

from norn.adapters.kubernetes import manifests
from norn.adapters.kubernetes.changes import Changes
from norn.adapters.kubernetes.client import Cluster
from norn.adapters.kubernetes.jobs import JobRun
from norn.adapters.kubernetes.reflector import Mirror
from norn.adapters.kubernetes.resources import Deployment, Job, Object, name_of
from norn.adapters.kubernetes.workload import Workload
from norn.domain.images import Image
from norn.domain.ports import Release, Template, Turn
from norn.errors import LeaseLost, ProgramFailed, RolloutFailed

DIGEST = "sha256:" + "0" * 64


def release(app: str, deployment_id: str = "a", *, replicas: int = 2) -> Release:
    """Of an image that is nowhere: what is asked for is what counts, and pods come to nothing."""
    template = Template("worker", replicas, None, None, {}, (), 300.0)
    return Release(app, deployment_id, Image(BASE_IMAGE, DIGEST, ""), template)


def whatever_it_is(_workload: Workload) -> None:
    pass


def while_confirming(act: Callable[[], Awaitable[Any]], fence: int = 5) -> Turn:
    """The turn of a server that stands still just there, for as long as it takes others to `act`."""

    async def confirm() -> None:
        await act()

    return Turn("a", fence, confirm)


@pytest.fixture
async def cluster(space: Namespace, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    monkeypatch.setenv("KUBECONFIG", str(space.kubeconfig))
    cluster = Cluster(space.name)
    yield cluster
    await cluster.close()


@pytest.fixture
def changes(cluster: Cluster) -> Changes:
    return Changes(cluster, Mirror(cluster))


async def there(cluster: Cluster, app: str) -> Object | None:
    return await cluster.get(Deployment, app)


async def replicas_of(cluster: Cluster, app: str) -> int:
    obj = await there(cluster, app)
    assert obj is not None
    return Workload(obj).replicas


async def live(changes: Changes, app: str, fence: int) -> None:
    """Its change has rolled out, let it be said."""
    await changes.note_live(await changes._workload(app, fresh=True), turn("a", fence))


async def test_a_first_deployment_runs_only_once_the_claim_is_confirmed(cluster: Cluster, changes: Changes) -> None:
    seen: list[int] = []

    async def look() -> None:
        seen.append(await replicas_of(cluster, "confirmed"))

    await changes.apply(release("confirmed"), while_confirming(look), whatever_it_is)
    assert (seen, await replicas_of(cluster, "confirmed")) == ([0], 2)


async def test_of_a_first_deployment_that_comes_too_late_nothing_is_left(cluster: Cluster, changes: Changes) -> None:
    with pytest.raises(LeaseLost):
        await changes.apply(release("unborn"), turn("a", 5, lost=True), whatever_it_is)
    assert await there(cluster, "unborn") is None


async def test_what_a_successor_has_removed_meanwhile_is_not_begun_again(cluster: Cluster, changes: Changes) -> None:
    async def succeed() -> None:
        await changes.apply(release("removed"), turn("a", 7), whatever_it_is)
        assert await changes.remove("removed", turn("a", 7))

    with pytest.raises(RolloutFailed) as failed:
        await changes.apply(release("removed"), while_confirming(succeed), whatever_it_is)
    assert failed.value.facts["reason"] == "deleted"
    assert await there(cluster, "removed") is None


async def test_what_somebody_has_made_meanwhile_stays_as_he_made_it(cluster: Cluster, changes: Changes) -> None:
    async def follow() -> None:
        await changes.apply(release("followed"), turn("a", 7), whatever_it_is)
        assert await changes.remove("followed", turn("a", 7))
        await changes.apply(release("followed", "z", replicas=1), turn("z", 9), whatever_it_is)

    with pytest.raises(RolloutFailed) as failed:
        await changes.apply(release("followed"), while_confirming(follow), whatever_it_is)
    assert failed.value.facts["reason"] == "superseded"
    obj = await there(cluster, "followed")
    assert obj is not None
    assert (Workload(obj).change_id, Workload(obj).fence, Workload(obj).replicas) == ("z", 9, 1)


async def test_who_has_looked_before_it_was_made_does_not_apply_over_it(cluster: Cluster) -> None:
    class Early(Mirror):
        """The first look was long ago."""

        looks = 0

        async def refresh(self, app: str) -> Object | None:
            self.looks += 1
            return None if self.looks == 1 else await super().refresh(app)

    await Changes(cluster, Mirror(cluster)).apply(release("early", "z"), turn("z", 9), whatever_it_is)
    before = await there(cluster, "early")
    with pytest.raises(RolloutFailed) as failed:
        await Changes(cluster, Early(cluster)).apply(release("early"), turn("a", 5), whatever_it_is)
    assert failed.value.facts["reason"] == "superseded"
    after = await there(cluster, "early")
    assert before is not None
    assert after is not None
    assert after["spec"] == before["spec"]
    assert (Workload(after).change_id, Workload(after).fence) == ("z", 9)


async def test_a_deployment_that_has_changed_since_the_look_is_not_removed(cluster: Cluster, changes: Changes) -> None:
    class Slow(Mirror):
        """Somebody deploys between the look and the removal."""

        async def refresh(self, app: str) -> Object | None:
            obj = await super().refresh(app)
            if obj is not None and Workload(obj).fence < 9:
                await changes.apply(release("kept", "z"), turn("z", 9), whatever_it_is)
            return obj

    await changes.apply(release("kept"), turn("a", 5), whatever_it_is)
    with pytest.raises(RolloutFailed) as failed:
        await Changes(cluster, Slow(cluster)).remove("kept", turn("a", 5))
    assert failed.value.facts["reason"] == "superseded"
    obj = await there(cluster, "kept")
    assert obj is not None
    assert Workload(obj).change_id == "z"


# ---- jobs: of one that has come to its end nothing is left at all ------------------------------------------------


def migration(operation_id: str) -> Object:
    return manifests.job(release("migrated", operation_id), "migrate", ["true"], {})


async def test_a_job_gets_a_pod_only_once_the_claim_is_confirmed(cluster: Cluster) -> None:
    job, seen = migration("confirmed"), []

    async def look() -> None:
        found = await cluster.get(Job, name_of(job))
        assert found is not None
        seen.append(found["spec"]["parallelism"])

    with pytest.raises(ProgramFailed) as failed:
        await JobRun(cluster, job, print).run(while_confirming(look))
    assert (seen, failed.value.facts["reason"]) == ([0], "image_not_found")


async def test_of_a_job_that_comes_too_late_nothing_is_left(cluster: Cluster) -> None:
    job = migration("late")
    with pytest.raises(LeaseLost):
        await JobRun(cluster, job, print).run(turn("late", lost=True))
    assert await cluster.get(Job, name_of(job)) is None


async def test_a_job_that_a_successor_has_brought_to_its_end_is_not_run_again(cluster: Cluster) -> None:
    job = migration("ended")
    with pytest.raises(ProgramFailed) as failed:
        await JobRun(cluster, job, print).run(while_confirming(lambda: cluster.delete(Job, name_of(job))))
    assert failed.value.facts["reason"] == "deleted"
    assert await cluster.get(Job, name_of(job)) is None


# ---- how much runs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 3])
async def test_the_number_of_replicas_is_the_infraspecs_once_and_nobodys_after_that(
    cluster: Cluster, changes: Changes, number: int
) -> None:
    app = f"numbered-{number}"
    await changes.apply(release(app, replicas=number), turn("a", 5), whatever_it_is)
    assert await replicas_of(cluster, app) == number
    await live(changes, app, 5)
    await changes.apply(release(app, "b", replicas=2), turn("b", 6), whatever_it_is)
    assert await replicas_of(cluster, app) == number


async def test_a_number_that_somebody_has_set_stays(space: Namespace, cluster: Cluster, changes: Changes) -> None:
    await changes.apply(release("scaled"), turn("a", 5), whatever_it_is)
    await live(changes, "scaled", 5)
    four = '{"spec": {"replicas": 4}}'
    await asyncio.to_thread(space.kubectl, "patch", "deployment/scaled", f"--patch={four}", "--field-manager=scaler")
    await changes.apply(release("scaled", "b"), turn("b", 6), whatever_it_is)
    assert await replicas_of(cluster, "scaled") == 4
