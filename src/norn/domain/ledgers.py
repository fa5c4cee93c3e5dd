"""Which migrations a database has had, as the tool that made them has written it down in its ledger."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from norn.domain.verdict import Finding, Level


class Reaction(StrEnum):
    """What a tool does at start when the database has a migration that it does not know."""

    FAILS = "fails"
    GOES_ON = "goes on"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Tool:
    """A migration tool, known by the shape of its ledger."""

    name: str
    table: str
    columns: tuple[str, ...]
    """All of them have to be there."""
    revision: str
    """The SQL expression that gives the name of a migration."""
    reaction: Reaction
    where: str = "true"
    """Which rows are migrations that have been applied."""


TOOLS = (
    Tool("Alembic", "alembic_version", ("version_num",), "version_num", Reaction.FAILS),
    Tool("Django", "django_migrations", ("app", "name", "applied"), "app || '.' || name", Reaction.GOES_ON),
    Tool("Flyway", "flyway_schema_history", ("installed_rank", "version", "script", "success"),
         "coalesce(version, script)", Reaction.UNKNOWN, "success"),
    Tool("Prisma", "_prisma_migrations", ("migration_name", "finished_at", "rolled_back_at"), "migration_name",
         Reaction.UNKNOWN, "finished_at IS NOT NULL AND rolled_back_at IS NULL"),
    Tool("Knex", "knex_migrations", ("name", "batch", "migration_time"), "name", Reaction.FAILS),
    Tool("goose", "goose_db_version", ("version_id", "is_applied"), "version_id::text", Reaction.GOES_ON, "is_applied"),
    Tool("Atlas", "atlas_schema_revisions", ("version", "description", "executed_at"), "version", Reaction.UNKNOWN,
         "version <> '.atlas_cloud_identifier'"),
    Tool("Sqitch", "changes", ("change_id", "change", "project", "planned_at"), "project || ':' || change",
         Reaction.FAILS),
    Tool("Sequelize", "SequelizeMeta", ("name",), "name", Reaction.GOES_ON),
    Tool("TypeORM", "migrations", ("timestamp", "name"), "name", Reaction.GOES_ON),
    Tool("Liquibase", "databasechangelog", ("id", "author", "filename", "exectype"), "id || '::' || author",
         Reaction.GOES_ON),
    Tool("Laravel", "migrations", ("migration", "batch"), "migration", Reaction.GOES_ON),
    Tool("Diesel", "__diesel_schema_migrations", ("version", "run_on"), "version::text", Reaction.GOES_ON),
    Tool("SQLx", "_sqlx_migrations", ("version", "description", "success"), "version::text", Reaction.FAILS, "success"),
    Tool("Ecto", "schema_migrations", ("version", "inserted_at"), "version::text", Reaction.GOES_ON),
    Tool("golang-migrate", "schema_migrations", ("version", "dirty"), "version::text", Reaction.FAILS),
    Tool("Rails or dbmate", "schema_migrations", ("version",), "version::text", Reaction.GOES_ON),
)  # fmt: skip
"""The more telling shapes first, where a table's name is several tools'."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a ledger says."""

    tool: str
    table: str
    revisions: tuple[str, ...]
    """The names of the applied migrations; the newest thousands where there are more."""

    def to_json(self) -> dict[str, Any]:
        return {"tool": self.tool, "table": self.table, "revisions": list(self.revisions)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Ledger:
        """Raises KeyError where it is none."""
        return cls(str(value["tool"]), str(value["table"]), tuple(map(str, value["revisions"])))


_MIGRATES = re.compile(
    r"""\b(
        alembic\b.*\bupgrade | flask\s+db\s+upgrade | manage\.py\s+migrate | django(-admin)?\s+migrate
      | flyway\b.*\bmigrate | (rails|rake|bin/rails)\s+db:(migrate|prepare|setup)(?!:)
      | prisma\s+(migrate\s+deploy|db\s+push)
      | knex\b.*\bmigrate:(latest|up) | goose\b.*\bup | dbmate\b.*\b(up|migrate) | sqitch\s+deploy
      | atlas\s+(migrate|schema)\s+apply | migrate\s+.*-(path|source)\b.*\bup | sequelize(-cli)?\s+db:migrate
      | typeorm\b.*\bmigration:run | artisan\s+migrate | diesel\s+migration\s+run | sqlx\s+migrate\s+run
      | liquibase\b.*\bupdate | ecto\.migrate
    )""",
    re.VERBOSE | re.DOTALL,
)


def migrates_at_start(command: Sequence[str] | None) -> bool:
    """Whether the command that starts an app recognisably migrates its database first.

    >>> migrates_at_start(("sh", "-c", "alembic upgrade head && exec gunicorn shop"))
    True
    >>> migrates_at_start(("gunicorn", "shop"))
    False
    """
    return command is not None and _MIGRATES.search(shlex.join(command).replace("'", " ")) is not None


def ledger_findings(
    known: Sequence[Ledger], present: Sequence[Ledger], *, at_start: bool | None, image_tag: str
) -> tuple[Finding, ...]:
    """What a target does that meets migrations which it does not know.

    Args:
        known: the ledgers as the target left them.
        present: as they are.
        at_start: whether the target migrates when it starts; None: perhaps.
    """
    if at_start is False:
        return ()
    reactions = {tool.name: tool.reaction for tool in TOOLS}
    found = []
    for ledger in present:
        before = next((other for other in known if (other.tool, other.table) == (ledger.tool, ledger.table)), None)
        unknown = sorted(set(ledger.revisions) - set(before.revisions)) if before is not None else []
        reaction = reactions.get(ledger.tool, Reaction.UNKNOWN)
        if not unknown or reaction is Reaction.GOES_ON:
            continue
        names = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        certain = reaction is Reaction.FAILS and at_start is True
        migrates = "migrates the database" if at_start else "perhaps migrates the database"
        found.append(
            Finding(
                "revision_unknown",
                Level.UNSAFE if certain else Level.CAUTION,
                f"{image_tag} {migrates} when it starts, and {'does' if certain else 'may'} not start then: the ledger "
                f"of {ledger.tool} ({ledger.table}) has {names}, which it does not know.",
                {"tool": ledger.tool, "table": ledger.table, "revisions": unknown},
            )
        )
    return tuple(found)
