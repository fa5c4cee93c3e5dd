"""Reads an infraspec by the table of its keys; finds everything that is wrong in one go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from norn.domain.infraspec.document import MappingNode, Node, Refused, SequenceNode, entries, place, read_document
from norn.domain.infraspec.fields import ROOT
from norn.domain.infraspec.kinds import ListOf, Section, nearest
from norn.domain.infraspec.problems import Problem, Wrong
from norn.domain.infraspec.spec import (
    Artifacts,
    Build,
    Dependency,
    Hosts,
    Infraspec,
    Migrations,
    PostgresService,
    Receiver,
    Repo,
    RollbackPolicy,
    SnapshotPolicy,
)
from norn.errors import InfraspecInvalid

_FILE = "infraspec.yaml"


@dataclass(frozen=True, slots=True)
class ParsedInfraspec:
    spec: Infraspec
    warnings: tuple[Problem, ...] = ()


def parse_infraspec(text: bytes | str, *, path: str = _FILE, directory_name: str | None = None) -> ParsedInfraspec:
    """The infraspec that `text` says.

    Args:
        text: the file, UTF-8.
        path: what to call it in messages.
        directory_name: what `app` has to be, where that is known.

    Raises:
        InfraspecInvalid: with the first problem as message, and all as `problems` (`{path, line, column, key,
            message, hint}`).
    """
    reader = _Reader(path)
    try:
        root = read_document(text, path)
        values = reader.section(root, ROOT, "")
        if not reader.problems:
            _cross_check(reader, values, directory_name)
    except Refused as refused:
        reader.problems.append(refused.problem)
    if reader.problems:
        raise _invalid(sorted(reader.problems, key=lambda problem: (problem.line, problem.column)))
    return ParsedInfraspec(_spec(values), tuple(reader.warnings))


def _invalid(problems: list[Problem]) -> InfraspecInvalid:
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return InfraspecInvalid(f"{first}{more}", hint=first.hint, problems=[problem.to_json() for problem in problems])


class _Reader:
    """Collects values, where they stand, and what is wrong with them."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.places: dict[str, tuple[int, int]] = {"": (1, 1)}

    def wrong(self, key: str, message: str, hint: str = "", node: Node | None = None) -> None:
        line, column = place(node) if node is not None else self.places.get(key, (1, 1))
        self.problems.append(Problem(self.path, line, column, key, f"{key}: {message}" if key else message, hint))

    def section(self, node: Node, section: Section, prefix: str) -> dict[str, Any]:
        """The values of a mapping by key, without those that are wrong."""
        where = prefix.rstrip(".")
        if not isinstance(node, MappingNode):
            self.wrong(where, "a mapping is wanted", "Keys with values, indented.", node)
            return {}
        found, problems = entries(node, self.path)
        self.problems += problems
        values: dict[str, Any] = {}
        for name, (key_node, value_node) in found.items():
            key = prefix + name
            self.places[key] = place(value_node)
            field = section.field(name)
            if field is not None:
                self._value(values, name, key, field.kind, value_node)
            elif name in section.ignored:
                line, column = place(key_node)
                message = f"{key} is ignored: {section.ignored[name]}"
                self.warnings.append(Problem(self.path, line, column, key, message))
            else:
                names = tuple(each.name for each in section.fields)
                self.wrong(key, "there is no such key", nearest(name, names), key_node)
        for field in section.fields:
            if field.required and field.name not in found:
                self.wrong(where, f"{field.name} is missing", field.about, node)
        return values

    def _value(self, values: dict[str, Any], name: str, key: str, kind: Any, node: Node) -> None:
        if isinstance(kind, Section):
            values[name] = self.section(node, kind, f"{key}.")
            return
        if isinstance(kind, ListOf) and isinstance(kind.item, Section):
            values[name] = self._sections(key, kind, kind.item, node)
            return
        try:
            values[name] = kind.read(node)
        except Wrong as wrong:
            self.wrong(key, wrong.message, wrong.hint, wrong.node or node)

    def _sections(self, key: str, kind: ListOf, item: Section, node: Node) -> list[dict[str, Any]]:
        if not isinstance(node, SequenceNode):
            self.wrong(key, "a list is wanted", "Each behind a dash.", node)
            return []
        before = len(self.problems)
        found = [self.section(each, item, f"{key}[{number}].") for number, each in enumerate(node.value)]
        if len(self.problems) == before:
            seen = set()
            for number, value in enumerate(found):
                if kind.unique(value) in seen:
                    self.wrong(key, f"{kind.unique(value)!r} is listed twice", "", node.value[number])
                seen.add(kind.unique(value))
        return found


def _cross_check(reader: _Reader, values: Mapping[str, Any], directory_name: str | None) -> None:
    """What no single value can tell."""
    app = values["app"]
    if directory_name is not None and app != directory_name:
        reader.wrong("app", f"{app!r} is not the name of its directory, {directory_name!r}", "Make the two the same.")
    if values["role"] == "webserver":
        if "port" not in values:
            reader.wrong("", "port is missing", "A webserver says where people reach it: port: 8080.")
        if "PORT" in values.get("env", {}) or "PORT" in values.get("secrets", ()):
            reader.wrong("env", "PORT is given by Norn to each process", "Read it in the app; `port` is the app's own.")
    else:
        for key in ("port", "healthcheck", "hosts"):
            if key in values:
                reader.wrong(key, "a worker answers no requests", f"Remove {key}, or make it a webserver.")
    for name in values.get("secrets", ()):
        if name in values.get("env", {}):
            reader.wrong("secrets", f"{name} is in env, too", "A secret stands in `secrets` alone.")
    migrations, postgres = values.get("migrations"), values.get("services", {}).get("postgres")
    database = (postgres or {}).get("database") or (migrations or {}).get("database")
    if postgres is not None and database is None:
        reader.wrong("services.postgres", "database is missing", "The name of the app's database.")
    if migrations is not None and database is None and postgres is None:
        reader.wrong("migrations", "there is no database to migrate", "services: {postgres: {database: …}}.")
    for number, receiver in enumerate(values.get("notify", ())):
        if receiver.get("on") == ():
            reader.wrong(f"notify[{number}].on", "the list is empty", "Leave `on` out for all events.")


def _migrations(values: Mapping[str, Any]) -> Migrations:
    return Migrations(values["command"], values.get("lockTimeout", 5.0), values.get("atStart", False))


def _spec(values: Mapping[str, Any]) -> Infraspec:
    migrations, build = values.get("migrations"), values.get("build", {})
    postgres = values.get("services", {}).get("postgres")
    database = (postgres or {}).get("database") or (migrations or {}).get("database")
    rollback, artifacts = values.get("rollback", {}), values.get("artifacts", {})
    simple = {
        key: values[key]
        for key in ("app", "role", "port", "healthcheck", "replicas", "command", "env", "secrets", "deploy")
        if key in values
    }
    return Infraspec(
        **simple,
        hosts=Hosts(**values.get("hosts", {})),
        repo=Repo(**values["repo"]) if "repo" in values else None,
        build=Build(**build),
        postgres=PostgresService(database, (postgres or {}).get("url")) if database else None,
        migrations=_migrations(migrations) if migrations else None,
        artifacts=Artifacts(**artifacts),
        snapshots=SnapshotPolicy(values.get("snapshots", {}).get("keepReplaced", 604_800.0)),
        rollback=RollbackPolicy(
            auto=rollback.get("auto", True), bake_s=rollback.get("bake", 60.0), timeout_s=rollback.get("timeout", 300.0)
        ),
        dependencies=tuple(Dependency(**dependency) for dependency in values.get("dependencies", ())),
        notify=tuple(Receiver(**receiver) for receiver in values.get("notify", ())),
    )
