"""What the app may do, with the privileges that its role has by itself and by others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from norn.domain.schema.change import Change, Effect
from norn.domain.schema.structure import Facts, Structure

_GRANT = re.compile(r'((?:"(?:[^"]|"")+"|[^"=; ])+)=([A-Z,* ]+)')
_USED = {"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "USAGE", "EXECUTE"}
_READS = {"SELECT", "USAGE", "EXECUTE"}
_PUBLIC = "schema public"
_DEFAULT = "owner pg_database_owner; PUBLIC=USAGE; pg_database_owner=CREATE,USAGE"
"""As a new database has it; then there is no entry of its own."""
_DECLARED_ONLY = ("enum ", "domain ", "type ", "foreign data wrapper ", "foreign server ")
"""What these privileges allow is needed to declare things, and not to use them."""


@dataclass(frozen=True, slots=True)
class Access:
    """The role of an app."""

    role: str
    """Quoted where SQL wants it."""
    roles: frozenset[str] = frozenset()
    """Itself, and those whose privileges it has."""
    unrestricted: bool = False
    """Nothing is refused to it (SUPERUSER)."""
    sees_all_rows: bool = False
    """Row security does not apply to it (BYPASSRLS)."""

    def restricted(self, relation: Facts) -> bool:
        """Whether row security applies to it on a table."""
        if not relation.get("rowSecurity") or self.unrestricted or self.sees_all_rows:
            return False
        return bool(relation.get("forced")) or relation.get("owner") not in self.roles

    def privileges(self, definition: str) -> frozenset[str]:
        """Of those on an object (the catalog's definition of them), what it may do."""
        if self.unrestricted:
            return frozenset(_USED)
        return frozenset(
            privilege.rstrip("*")
            for who, what in _GRANT.findall(definition)
            if who == "PUBLIC" or who in self.roles
            for privilege in what.split(",")
        )


def compare_privileges(
    before: Structure, after: Structure, then: Access, now: Access, behind: Mapping[str, str]
) -> Iterator[Change]:
    """What the app could do before and cannot do now, on objects that are still there under their names.

    Args:
        then: what the app's role was before.
        now: and what it is.
        behind: the tables that are behind views of the app's own now, by the names of these.
    """
    if now.unrestricted:
        return
    old_ones = {_PUBLIC: _DEFAULT, **{what: entry.definition for what, entry in before.privileges.items()}}
    new_ones = {_PUBLIC: _DEFAULT, **{what: entry.definition for what, entry in after.privileges.items()}}
    for what, old in old_ones.items():
        if what.startswith("column "):
            yield from _of_column(before, after, what, then, now, new_ones)
            continue
        if what not in new_ones or what.startswith(_DECLARED_ONLY):
            continue
        allowed = now.privileges(new_ones[what])
        if (table := behind.get(what)) is not None:
            allowed &= now.privileges(new_ones.get(table, ""))
        lost = (then.privileges(old) - allowed) & _USED
        if not lost:
            continue
        words = ", ".join(sorted(lost))
        effect = Effect.BREAKS_READS if lost & _READS else Effect.BREAKS_WRITES
        kind, _, rest = ("TABLE", "", what) if what in before.relations else what.partition(" ")
        yield Change(
            "privilege_revoked",
            effect,
            f"privileges {what}",
            f"{now.role} has lost {words} on {what}: what needs it fails.",
            what if what in before.relations else "",
            remedy=f"GRANT {words} ON {kind.upper()} {rest} TO {now.role}",
            doubtful=lost == {"TRUNCATE"},
            facts={"privileges": sorted(lost)},
        )


def _of_column(
    before: Structure, after: Structure, what: str, then: Access, now: Access, new_ones: Mapping[str, str]
) -> Iterator[Change]:
    """What the app could do with one column only; what it may do with the whole table, it may do with each."""
    old = before.privileges[what]
    table = before.relations_by_oid.get(old.oid)
    relation = after.relations.get(table.name) if table is not None else None
    column = what.removeprefix(f"column {table.name}.") if table is not None else ""
    if table is None or relation is None or column not in after.columns(relation):
        return
    then_allowed = frozenset() if then.unrestricted else then.privileges(old.definition)
    allowed = now.privileges(new_ones.get(what, "")) | now.privileges(new_ones.get(table.name, ""))
    lost = (then_allowed - allowed) & _USED
    if lost:
        words = ", ".join(sorted(lost))
        granted = ", ".join(f"{word} ({column})" for word in sorted(lost))
        yield Change(
            "privilege_revoked",
            Effect.BREAKS_READS if lost & _READS else Effect.BREAKS_WRITES,
            f"privileges {what}",
            f"{now.role} has lost {words} on the {what}: what needs it fails.",
            table.name,
            remedy=f"GRANT {granted} ON TABLE {table.name} TO {now.role}",
            facts={"privileges": sorted(lost)},
        )
