"""What the page of a rollback shows: the plan, as a dry run of the same request gives it, and what may be chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from norn.domain.access import Permission
from norn.domain.deployments import Deployment
from norn.errors import NornError, SharedDatabase
from norn.operations.rollback_plan import Reply, request_rollback
from norn.operations.rollback_request import RollbackRequest, in_spite_of
from norn.operations.services import Caller, Services
from norn.operations.versions import rolled_out_versions
from norn.ui.forms import Fields


@dataclass(frozen=True, slots=True)
class Choice:
    """What somebody has chosen on the page; it is in the address, so that a page can be sent to somebody else."""

    to: str = ""
    """Empty: the version that Norn chooses."""
    further: bool = False
    template: bool = False
    data: bool = False
    affects: tuple[str, ...] = ()

    @classmethod
    def of(cls, fields: Fields) -> Choice:
        """Raises Invalid."""
        return cls(
            fields.line("to"), fields.ticked("further"), fields.ticked("template"), fields.ticked("data"),
            fields.lines("affects"),
        )  # fmt: skip

    @property
    def options(self) -> bool:
        """Whether something other than the image is to change."""
        return self.template or self.data

    def request(self, app: str, **more: Any) -> RollbackRequest:
        return RollbackRequest(
            app,
            version=self.to or None,
            further=self.further,
            template=self.template,
            restore_snapshot=self.data,
            affects=self.affects,
            **more,
        )


@dataclass(frozen=True, slots=True)
class Look:
    """A look at what a rollback would do now."""

    choice: Choice
    versions: Sequence[Deployment]
    reply: Reply | None
    """None where there is no plan: `error` says why."""
    error: NornError | None
    paused: NornError | None
    """Somebody has paused the rollouts; they can be let go on."""

    @property
    def plan(self) -> Mapping[str, Any] | None:
        """As `POST …/rollback {"dryRun": true}` gives it; None where nothing would be done."""
        return self.reply.to_json() if self.reply is not None and self.reply.deployment is None else None

    @property
    def joined(self) -> Deployment | None:
        """A rollback that is at work already."""
        return self.reply.deployment if self.reply is not None and self.reply.plan is None else None

    @property
    def unchanged(self) -> bool:
        """The target is what is live."""
        return self.reply is not None and self.reply.plan is not None and self.reply.unchanged

    @property
    def live(self) -> str | None:
        """The image that is live, as far as the plan knows."""
        plan = self.reply.plan if self.reply is not None else None
        return plan.live.image_tag if plan is not None and plan.live is not None else None

    @property
    def digest(self) -> str:
        """Of what is live, be it in a deployment or not; empty where nothing is."""
        plan = self.reply.plan if self.reply is not None else None
        return plan.live.digest if plan is not None and plan.live is not None else ""

    @property
    def shared_with(self) -> tuple[str, ...]:
        """The other apps that use the database, of which somebody has to know."""
        missing = self.error.facts["apps"] if isinstance(self.error, SharedDatabase) else ()
        return tuple(dict.fromkeys((*self.choice.affects, *missing)))

    @property
    def permission(self) -> Permission:
        """What the press asks for: data is an administrator's."""
        return Permission.ADMINISTER if self.choice.data else Permission.OPERATE

    @property
    def against(self) -> list[Mapping[str, Any]]:
        """The findings that make it unsafe."""
        found = self.plan["verdict"]["findings"] if self.plan is not None else ()
        return [finding for finding in found if finding["level"] == "unsafe"]

    @property
    def in_spite_of(self) -> str:
        """What a force is for: these findings and no others. Empty where none is needed."""
        plan = self.reply.plan if self.reply is not None else None
        return in_spite_of(plan.verdict) if plan is not None else ""


async def look_at(services: Services, app: str, choice: Choice, caller: Caller) -> Look:
    """What a rollback would do now, whatever the verdict. Raises UnknownApp."""
    found = await services.source.app(app)
    versions = await rolled_out_versions(services, found.name)
    reply, error, paused = None, None, None
    try:
        wanted = choice.request(found.name, force=True, resume=True, dry_run=True)
        reply = await request_rollback(services, wanted, Caller(caller.name))
        await services.runtime.refuse_paused(found.name)
    except NornError as why:
        shown = services.known.error(found.name, why)
        if reply is None:
            error = shown
        else:
            paused = shown
    return Look(choice, versions, reply, error, paused)
