"""Every key of infraspec.yaml, once: the parser reads by this table and the JSON Schema is made of it."""

from __future__ import annotations

import re

from norn.domain.infraspec.kinds import (
    Choice,
    Command,
    Duration,
    Environment,
    EnvName,
    Field,
    Flag,
    Integer,
    ListOf,
    Section,
    Text,
)
from norn.domain.notifications import Event, place_of
from norn.domain.snapshot_names import NAME_BYTES

APP_MAX = 50
MAX_REPLICAS = 100
_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"


def _app_length(value: str) -> str | None:
    long = f"the name has {len(value)} letters; at most {APP_MAX}, so that names made of it fit"
    return long if len(value) > APP_MAX else None


def _inside(value: str) -> str | None:
    """A relative path that stays inside."""
    return "the path leads out of the directory" if value.startswith("/") or ".." in value.split("/") else None


def _branch(value: str) -> str | None:
    """git-check-ref-format(1)."""
    bad = re.search(r"\.\.|@\{|//|[\x00-\x20\x7f~^:?*\[\\]", value)
    edge = value.startswith(("-", "/", ".")) or value.endswith(("/", ".", ".lock")) or value == "@"
    return f"{value!r} is not the name of a branch" if bad or edge else None


def _http_url(value: str) -> str | None:
    return "the URL has a user name or password in it" if "@" in value.split("/")[2] else None


_HTTP_URL = Text(
    "an http or https URL",
    r"https?://[^\s/?#]+[^\s]*",
    "For example https://pay.example.com/health.",
    _http_url,
    secret=True,
)
_RECEIVER_URL = Text(
    "an http or https URL",
    r"https?://(?=[^/?#])[!-~]{1,2000}",
    "For example https://hooks.example.com/norn.",
    lambda value: None if place_of(value) else "the URL has no host, or no port that could be one",
    secret=True,
)
_REPO_URL = Text(
    "the URL of a git repository",
    r"(?:https?|ssh|git|file)://[^\s]+|(?!-)[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:(?!/?-)[^\s:]+|/[^\s]+",
    "For example git@example.com:me/myapp.git, https://… or an absolute path.",
    secret=True,
)
_POSTGRES_URL = Text("a PostgreSQL URL", r"postgres(?:ql)?://[^\s]+", "postgresql://…", secret=True)


class _Unshown(str):
    """A text that may hold a token."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "this URL"


_OWN_DATABASES = ("postgres", "template0", "template1")


def _fits_postgres(name: str) -> str | None:
    if name in _OWN_DATABASES:
        return f"{name!r} is PostgreSQL's own"
    return f"{name!r} is longer than {NAME_BYTES} bytes" if len(name.encode()) > NAME_BYTES else None


_DATABASE = Text(
    "the name of a database",
    r"[^\x00-\x1f\x7f]{1,63}",
    "At most 63 bytes, without control characters, and none of PostgreSQL's own.",
    _fits_postgres,
)
_HOST = Text("a DNS label", _LABEL, "Small letters, digits and -, at most 63.")
_DOMAIN = Text("a host name", rf"{_LABEL}(?:\.{_LABEL})*", "For example myapp.example.com.")
_NOT_HERE = "another kind of installation uses it, this one does not"

ROOT = Section(
    (
        Field(
            "app",
            Text("the name of an app", _LABEL, "Small letters, digits and -; the name of its directory.", _app_length),
            "The app's name: a DNS label, equal to the name of its directory.",
            required=True,
            example="myapp",
        ),
        Field("role", Choice(("webserver", "worker")), "Whether it answers requests.", required=True),
        Field("port", Integer(1, 65_535), "Where people reach it; required for a webserver.", example=8080),
        Field(
            "healthcheck",
            Text("a path", r"/[^\s\x00-\x1f\x7f]*", "It begins with /, and has no blanks."),
            "The path that answers 2xx or 3xx while all is well. Without it, accepting connections is enough.",
            example="/health",
        ),
        Field("replicas", Integer(0, MAX_REPLICAS), "How many processes.", default=1),
        Field("command", Command(), "How to start it.", example="python -m myapp"),
        Field("env", Environment(), "Variables of its environment; values are taken as they are written."),
        Field("secrets", ListOf(EnvName()), "Names of secrets; values: `norn secrets set`.", example=["SMTP_KEY"]),
        Field(
            "hosts",
            Section(
                (
                    Field("internal", _HOST, "The name of a Service in a cluster.", example="myapp"),
                    Field(
                        "external", _DOMAIN, "Where people find it; shown, never set up.", example="myapp.example.com"
                    ),
                )
            ),
            "Names it is known by.",
        ),
        Field(
            "repo",
            Section(
                (
                    Field("url", _REPO_URL, "Where to clone from.", required=True),
                    Field(
                        "branch", Text("the name of a branch", r"\S+", "", _branch), "What HEAD means.", default="main"
                    ),
                )
            ),
            "The repository; without it the directory itself, a git work tree.",
        ),
        Field(
            "build",
            Section(
                (
                    Field(
                        "dockerfile",
                        Text("a path", r"[^\x00-\x1f\x7f]+", "Relative to the repository.", _inside),
                        "For clusters; processes of this machine are built by `command`.",
                        example="Dockerfile",
                    ),
                    Field("command", Command(), "Makes the image of the checked out files.", example="make"),
                    Field("test", Command(), "Tests it; when it fails, nothing is deployed.", example="make test"),
                )
            ),
            "How an image is made.",
        ),
        Field(
            "services",
            Section(
                (
                    Field(
                        "postgres",
                        Section(
                            (
                                Field("database", _DATABASE, "The database's name.", example="myapp_db"),
                                Field(
                                    "url",
                                    _POSTGRES_URL,
                                    "Only where it is not on NORN_POSTGRES_URL.",
                                ),
                            ),
                            {"migrations": _NOT_HERE},
                        ),
                        "A PostgreSQL database, and DATABASE_URL in the environment.",
                    ),
                ),
                {"kv": _NOT_HERE, "events": _NOT_HERE},
            ),
            "What it needs.",
        ),
        Field(
            "migrations",
            Section(
                (
                    Field(
                        "command",
                        Command(),
                        "Brings the database to this version.",
                        required=True,
                        example="alembic upgrade head",
                    ),
                    Field(
                        "lockTimeout", Duration(positive=True), "How long a migration waits for a lock.", default="5s"
                    ),
                    Field(
                        "atStart",
                        Flag(),
                        "Whether the app migrates when it starts, too: then an older version may refuse to.",
                        default=False,
                    ),
                    Field("database", _DATABASE, "Taken for services.postgres.database where that is missing."),
                )
            ),
            "Run with the new image before it is live; a snapshot is taken first.",
        ),
        Field(
            "artifacts",
            Section(
                (
                    Field("retain", Integer(1, 1_000), "How many versions that rolled out are kept.", default=5),
                    Field("registry", Choice(("keep", "delete")), "Whether images are deleted in a shared registry."),
                )
            ),
            "What is kept for going back.",
        ),
        Field(
            "snapshots",
            Section(
                (
                    Field(
                        "keepReplaced",
                        Duration(),
                        "How long what was live before a restore is kept, to take the restore back.",
                        default="7d",
                    ),
                )
            ),
            "Snapshots of the database, and restores.",
        ),
        Field(
            "rollback",
            Section(
                (
                    Field("auto", Flag(), "Put back a version that fails in its bake time.", default=True),
                    Field("bake", Duration(), "How long its health is watched after a rollout.", default="60s"),
                    Field("timeout", Duration(positive=True), "How long a rollout may take.", default="5m"),
                )
            ),
            "When and how to go back.",
        ),
        Field(
            "dependencies",
            ListOf(
                Section(
                    (
                        Field("name", _HOST, "What it is called.", required=True, example="payments"),
                        Field("url", _HTTP_URL, "What is asked.", required=True),
                        Field("expect", Integer(100, 599), "The status that it answers with.", default=200),
                    )
                ),
                unique=lambda item: item["name"],
            ),
            "What lies outside: asked before a rollback.",
        ),
        Field(
            "notify",
            ListOf(
                Section(
                    (
                        Field("url", _RECEIVER_URL, "Where it is sent by POST.", required=True),
                        Field(
                            "on",
                            ListOf(Choice(tuple(event.value for event in Event))),
                            "Of which events; without it, of all.",
                        ),
                    )
                ),
                unique=lambda item: _Unshown(item["url"]),
            ),
            "Who is told of rollbacks and failures, signed and until it has arrived.",
        ),
        Field("deploy", Flag(), "Whether it may be deployed.", default=True),
    ),
    dict.fromkeys(("core", "volumes", "alerts", "schedule"), _NOT_HERE),
)
