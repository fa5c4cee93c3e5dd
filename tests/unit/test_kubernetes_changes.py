"""A change of a Kubernetes Deployment, and what others do to it between the look and the patch."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
from tests.fixtures.turns import turn
from tests.unit.test_kubernetes_objects import ONE, TWO, applied, deployment, note

from norn.adapters.kubernetes.changes import Changes
from norn.adapters.kubernetes.client import Cluster, Conflict, PatchTestFailed
from norn.adapters.kubernetes.patches import halt_patch
from norn.adapters.kubernetes.preconditions import refuse_unseen
from norn.adapters.kubernetes.reflector import Mirror
from norn.adapters.kubernetes.resources import Deployment, Kind, Object, Service
from norn.adapters.kubernetes.runtime import KubernetesRuntime
from norn.adapters.kubernetes.workload import Workload, digest_of, live_of
from norn.domain.images import Image
from norn.domain.ports import Release, Switch, Template, Turn
from norn.errors import LeaseLost, Paused, RolloutFailed, Stale
from norn.operations.procedures import Run
from norn.operations.rollback import RollbackSteps
from norn.operations.services import Services

TEMPLATE = Template("worker", 1, None, None, {}, (), 300.0)


class Made(Exception):
    """What would have been made."""


class Board:
    """An API server as far as changes ask it; `meanwhile` is what somebody else does just before a write."""

    def __init__(self, obj: Object) -> None:
        self.objects: dict[tuple[Kind, str], Object] = {(Deployment, "web"): obj}
        obj["metadata"]["resourceVersion"] = "1"
        obj["spec"]["template"]["metadata"] = {"labels": {"app": "web"}}
        self.meanwhile: list[Callable[[], None]] = []
        self.cluster = cast("Cluster", self)
        self.changes = Changes(self.cluster, Mirror(self.cluster))

    @property
    def web(self) -> Workload:
        return Workload(self.objects[Deployment, "web"])

    def set(self, **annotations: str) -> None:
        self.web.annotations.update({f"norn.dev/{name}": text for name, text in annotations.items()})
        self._grown(self.web.obj)

    def set_image(self, image: str) -> None:
        for container in self.web.pod_template["spec"]["containers"][1:]:
            container["image"] = image
        self._grown(self.web.obj)

    @staticmethod
    def _grown(obj: Object) -> Object:
        obj["metadata"]["resourceVersion"] = str(int(obj["metadata"]["resourceVersion"]) + 1)
        return obj

    async def get(self, kind: Kind, name: str) -> Object | None:
        return copy.deepcopy(self.objects.get((kind, name)))

    async def create(self, obj: Object, kind: Kind) -> Object | None:
        raise Made(obj)

    async def json_patch(self, kind: Kind, name: str, operations: Sequence[Object]) -> Object | None:
        if self.meanwhile:
            self.meanwhile.pop(0)()
        try:
            self.objects[kind, name] = self._grown(applied(self.objects[kind, name], list(operations)))
        except AssertionError as error:
            raise PatchTestFailed from error
        return copy.deepcopy(self.objects[kind, name])

    async def apply(self, kind: Kind, obj: Object, *, force: bool = False) -> Object:
        if self.meanwhile:
            self.meanwhile.pop(0)()
        known, metadata = self.objects[kind, obj["metadata"]["name"]], obj["metadata"]
        if (
            metadata.get("resourceVersion", known["metadata"]["resourceVersion"])
            != known["metadata"]["resourceVersion"]
        ):
            raise Conflict([])
        known["metadata"].setdefault("annotations", {}).update(metadata.get("annotations") or {})
        return copy.deepcopy(self._grown(known))

    async def patiently(self, attempt: Callable[[], Awaitable[Any]]) -> Any:
        return await attempt()


def release(digest: str | None = None, tag: str = "", *, resume: bool = False) -> Release:
    """Version one, on behalf of the deployment `c`."""
    image = Image("r/web:a", digest_of(ONE), "")
    return Release("web", "c", image, TEMPLATE, resume=resume, expected_digest=digest, expected_tag=tag)


def recorded_template() -> Object:
    template: Object = deployment(ONE)["spec"]["template"]
    return template


async def restored(board: Board, wanted: Release) -> None:
    images = note(ONE, "c").containers
    await board.changes.restore(wanted, turn(), recorded_template(), images, partial(refuse_unseen, wanted))


# ---- the whole template ------------------------------------------------------------------------------------------


@pytest.fixture
def board() -> Board:
    """Version two is live."""
    return Board(deployment(TWO, change=note(TWO, "b"), live=note(TWO, "b")))


async def test_the_whole_template_is_not_brought_back_over_an_image_set_by_hand(board: Board) -> None:
    board.meanwhile = [lambda: board.set_image("r/web:hotfix")]
    with pytest.raises(Stale, match="hotfix"):
        await restored(board, release(digest_of(TWO), "r/web:b"))
    assert board.web.containers["containers/web"].image == "r/web:hotfix"


async def test_the_whole_template_is_not_brought_back_while_rollouts_are_paused(board: Board) -> None:
    board.web.obj["spec"]["paused"] = True
    with pytest.raises(Paused):
        await restored(board, release(digest_of(TWO), "r/web:b"))
    await restored(board, release(digest_of(TWO), "r/web:b", resume=True))
    assert not board.web.paused
    assert board.web.pod_template == recorded_template()


async def test_a_rollback_with_the_template_says_what_was_seen_and_whether_to_resume() -> None:
    asked: list[Release] = []

    async def apply(wanted: Release, _turn: Turn) -> None:
        asked.append(wanted)

    services = SimpleNamespace(runtime=SimpleNamespace(apply=apply))
    change = {"imageTag": "r/web:a", "digest": digest_of(ONE), "commitSha": "", "workload": {"containers": {}},
              "template": TEMPLATE.to_json()}  # fmt: skip
    run = SimpleNamespace(
        app="web",
        id="c",
        turn=turn(),
        state={"change": change, "previous": {"digest": digest_of(TWO), "imageTag": "r/web:b"}},
        operation=SimpleNamespace(params={"template": True, "resume": True}),
        output=SimpleNamespace(line=lambda _text: None),
    )
    await RollbackSteps(cast("Services", services))._change(cast("Run", run))
    (wanted,) = asked
    assert (wanted.expected_digest, wanted.expected_tag, wanted.resume) == (digest_of(TWO), "r/web:b", True)


# ---- restarting --------------------------------------------------------------------------------------------------


async def test_a_restart_is_of_what_somebody_has_set_by_hand_and_that_is_live_then(board: Board) -> None:
    board.set_image("r/web:hotfix")
    await board.changes.restart("web", turn("r"), "sha256:9")
    assert board.web.runs(board.web.change)
    await board.changes.note_live(board.web, turn())
    live = live_of(board.web, "")
    assert live is not None
    assert (live.image_tag, live.digest, live.deployment_id) == ("r/web:hotfix", "sha256:9", None)


async def test_a_restart_is_of_a_change_that_has_stayed_without_rolling_out() -> None:
    board = Board(deployment(TWO, change=note(TWO, "b"), live=note(ONE, "a")))
    await board.changes.restart("web", turn("r"), digest_of(ONE))
    assert board.web.change == note(TWO, "b")


# ---- the Service -------------------------------------------------------------------------------------------------

NORNS = {"app.kubernetes.io/managed-by": "norn"}


@pytest.mark.parametrize(
    ("labels", "applied"),
    [
        pytest.param(NORNS | {"app.kubernetes.io/name": "web", "more": "x"}, True, id="the app's own"),
        pytest.param(NORNS | {"app.kubernetes.io/name": "other"}, False, id="another app's"),
        pytest.param({"app.kubernetes.io/name": "web"}, False, id="somebody else's"),
        pytest.param(None, False, id="without labels"),
    ],
)
async def test_a_service_that_somebody_else_has_made_stays_as_it_is(
    board: Board, labels: dict[str, str] | None, applied: bool
) -> None:
    service = {"metadata": {"name": "web", "labels": labels, "resourceVersion": "1"}}
    board.objects[Service, "web"] = copy.deepcopy(service)
    template = Template("webserver", 1, 80, None, {}, (), 300.0, internal_host="web")
    wanted = Release("web", "c", Image("r/web:a", digest_of(ONE), ""), template)
    await KubernetesRuntime(board.cluster, nothing)._ensure_service(wanted)
    assert (board.objects[Service, "web"] != service) == applied


# ---- jobs --------------------------------------------------------------------------------------------------------


async def test_a_job_of_an_adopted_app_has_the_environment_of_its_container_whatever_order_they_were_noted_in(
    board: Board,
) -> None:
    board.set(adopted="true")
    env = board.web.pod_template["spec"]["containers"][1]["env"] = [{"name": "COLOUR", "value": "blue"}]
    assert next(iter(board.web.managed)).startswith("initContainers/")
    with pytest.raises(Made) as made:
        await KubernetesRuntime(board.cluster, nothing).run_job(
            release(), turn(), "migrate", ["up"], {}, lambda _text: None
        )
    (container,) = made.value.args[0]["spec"]["template"]["spec"]["containers"]
    assert container["env"] == env


# ---- a server that was stopped in between, and goes on after another has taken over ------------------------------


async def superseded(change: Awaitable[Any]) -> None:
    with pytest.raises(RolloutFailed) as failed:
        await change
    assert failed.value.facts["reason"] == "superseded"


async def nothing(_app: str, _template: Template) -> dict[str, str]:
    return {}


def whatever_it_is(_workload: Workload) -> None:
    pass


async def test_a_template_is_not_brought_back_after_another_change_was_accepted(board: Board) -> None:
    board.meanwhile = [lambda: board.set(deployment="z")]
    await superseded(board.changes.restore(release(), turn(), recorded_template(), {}, whatever_it_is))
    assert board.web.containers["containers/web"].image == TWO


async def test_what_the_infraspec_declares_is_not_applied_after_another_change_was_accepted(board: Board) -> None:
    board.meanwhile = [lambda: board.set(deployment="z")]
    await superseded(board.changes.apply(release(), turn(), whatever_it_is))
    assert board.web.annotations["norn.dev/deployment"] == "z"


async def test_what_the_infraspec_declares_is_applied_however_much_else_changes_meanwhile(board: Board) -> None:
    board.meanwhile = [lambda: board.set(status="1"), lambda: board.set(status="2")]
    await board.changes.apply(release(), turn(), whatever_it_is)
    assert board.web.annotations["norn.dev/deployment"] == "c"


async def test_pods_are_not_made_anew_after_another_change_was_accepted(board: Board) -> None:
    board.meanwhile = [lambda: board.set(deployment="z")]
    before = copy.deepcopy(board.web.pod_template)
    await superseded(board.changes.restart("web", turn("r"), ""))
    assert board.web.pod_template == before


async def test_what_rolled_out_is_not_noted_after_another_change_was_accepted() -> None:
    board = Board(deployment(TWO, change=note(TWO, "b"), live=note(ONE, "a")))
    seen = copy.deepcopy(board.web.obj)
    board.meanwhile = [lambda: board.set(deployment="z")]
    await superseded(board.changes.note_live(Workload(seen), turn()))
    assert board.web.live_id == "a"


@pytest.mark.parametrize(("back_from", "stays"), [("a", True), ("b", False)])
async def test_the_way_back_is_noted_only_for_what_it_leads_back_from(
    board: Board, back_from: str, stays: bool
) -> None:
    board.set(**{"way-back": note(ONE, "a").to_text()})
    await KubernetesRuntime(board.cluster, nothing).note_way_back("web", turn(), back_from, None)
    assert (board.web.way_back is not None) == stays


# ---- the same, where it has not even looked yet ------------------------------------------------------------------

LATE: dict[str, Callable[[Board], Awaitable[Any]]] = {
    "the image": lambda board: board.changes.switch(
        Switch("web", "c", Image("r/web:a", digest_of(ONE), "")), turn(fence=5), whatever_it_is
    ),
    "the template": lambda board: board.changes.restore(
        release(), turn(fence=5), recorded_template(), {}, whatever_it_is
    ),
    "what the infraspec declares": lambda board: board.changes.apply(release(), turn(fence=5), whatever_it_is),
    "new pods": lambda board: board.changes.restart("web", turn("r", 5), ""),
    "replicas": lambda board: board.changes.scale("web", turn(fence=5), halt_patch),
    "what is live": lambda board: board.changes.note_live(board.web, turn(fence=5)),
    "the way back": lambda board: KubernetesRuntime(board.cluster, nothing).note_way_back(
        "web", turn(fence=5), "a", None
    ),
    "nothing at all": lambda board: board.changes.remove("web", turn("b", 5)),
}


@pytest.fixture
def rolling() -> Board:
    """Version two rolls out."""
    return Board(deployment(TWO, change=note(TWO, "b"), live=note(ONE, "a")))


@pytest.mark.parametrize("what", LATE)
async def test_after_a_later_turn_nothing_is_changed_any_more(rolling: Board, what: str) -> None:
    rolling.set(fence="6")
    before = copy.deepcopy(rolling.web.obj)
    await superseded(LATE[what](rolling))
    assert rolling.web.obj == before


@pytest.mark.parametrize("what", [what for what in LATE if what != "nothing at all"])
async def test_every_change_leaves_the_mark_of_its_turn(rolling: Board, what: str) -> None:
    rolling.set(fence="4")
    await LATE[what](rolling)
    assert rolling.web.fence == 5


async def test_after_a_later_turn_nothing_is_put_back_any_more(rolling: Board) -> None:
    rolling.set(fence="6")
    before = copy.deepcopy(rolling.web.obj)
    with pytest.raises(LeaseLost):
        await KubernetesRuntime(rolling.cluster, nothing).put_back("web", turn("b", 5, lost=True), None, print)
    assert rolling.web.obj == before


async def test_a_turn_in_which_there_was_nothing_to_put_back_leaves_its_mark_all_the_same(rolling: Board) -> None:
    rolling.set(fence="4")
    await KubernetesRuntime(rolling.cluster, nothing).put_back("web", turn("z", 5), None, print)
    assert (rolling.web.fence, rolling.web.change) == (5, note(TWO, "b"))


async def test_what_is_somebody_elses_gets_no_mark(board: Board) -> None:
    del board.web.annotations["norn.dev/deployment"]
    before = copy.deepcopy(board.web.obj)
    await KubernetesRuntime(board.cluster, nothing).put_back("web", turn("z", 5), None, print)
    assert board.web.obj == before


# ---- the log -----------------------------------------------------------------------------------------------------


async def test_a_note_is_no_patch_that_was_accepted(board: Board) -> None:
    with structlog.testing.capture_logs() as said:
        assert await board.changes.note("web", turn(), {"norn.dev/way-back": "b"})
    assert said == []
