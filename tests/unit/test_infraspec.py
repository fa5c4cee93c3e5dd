"""infraspec.yaml: what each key takes, what is refused and where, and what nobody should put into YAML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from norn.domain.infraspec import Infraspec
from norn.domain.infraspec.document import MAX_BYTES
from norn.domain.infraspec.parse import ParsedInfraspec, parse_infraspec
from norn.domain.infraspec.schema import infraspec_schema
from norn.errors import InfraspecInvalid

TOP = Path(__file__).parents[2]


class Yaml12(yaml.SafeLoader):
    """As editors read it: `on` is a word."""


Yaml12.yaml_implicit_resolvers = {
    letter: [found for found in resolvers if found[0] != "tag:yaml.org,2002:bool" or letter in "tTfF"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
WEB = "app: shop\nrole: webserver\nport: 8080\ncommand: run\n"
WORKER = "app: shop\nrole: worker\ncommand: run\n"


def spec_of(text: str | bytes, directory: str | None = None) -> Infraspec:
    return parse_infraspec(text, directory_name=directory).spec


def problems_of(text: str | bytes, directory: str | None = None) -> list[dict[str, Any]]:
    with pytest.raises(InfraspecInvalid) as refused:
        parse_infraspec(text, path="shop/infraspec.yaml", directory_name=directory)
    found: list[dict[str, Any]] = refused.value.facts["problems"]
    assert all(problem["path"] == "shop/infraspec.yaml" for problem in found)
    return found


def examples() -> list[str]:
    """The infraspecs that the documentation shows, and those of the sample apps."""
    found = []
    for page in [*sorted(TOP.glob("docs/reference/*.md")), *sorted(TOP.glob("docs/*.md")), TOP / "README.md"]:
        for begin, end in (("^```yaml\n", "^```"), ("^cat > infraspec.yaml <<'EOF'\n", "^EOF")):
            found += re.findall(f"{begin}(app:.*?){end}", page.read_text(), re.MULTILINE | re.DOTALL)
    return found + [path.read_text() for path in sorted(TOP.glob("examples/*/infraspec.yaml"))]


# ---- what is taken -----------------------------------------------------------------------------------------------


def test_the_example_of_the_reference_says_all_of_this() -> None:
    spec = spec_of(examples()[0])
    assert (spec.app, spec.role, spec.port, spec.healthcheck, spec.replicas) == (
        "myapp",
        "webserver",
        8080,
        "/health",
        2,
    )
    assert (spec.command, spec.env, spec.secrets) == (("python", "-m", "myapp"), {"LOG_LEVEL": "info"}, ("SMTP_KEY",))
    assert spec.repo is not None
    assert (spec.repo.url, spec.repo.branch) == ("git@example.com:me/myapp.git", "main")
    assert (spec.build.command, spec.build.test) == (("make",), ("make", "test"))
    assert spec.postgres is not None
    assert (spec.postgres.database, spec.postgres.url) == ("myapp_db", "postgres://myapp@db.example.com/myapp_db")
    assert spec.migrations is not None
    assert (spec.migrations.command, spec.migrations.lock_timeout_s) == (("alembic", "upgrade", "head"), 5.0)
    assert (spec.artifacts.retain, spec.rollback.bake_s, spec.rollback.timeout_s) == (5, 60.0, 300.0)
    assert [(each.name, each.expect) for each in spec.dependencies] == [("payments", 200)]
    assert [(each.url, each.on) for each in spec.notify] == [
        ("https://hooks.example.com/norn", ()),
        ("https://chat.example.com/hooks/ops", ("rollback.failed", "restore.failed")),
    ]


@pytest.mark.parametrize("text", examples())
def test_every_example_is_right(text: str) -> None:
    assert spec_of(text).app


def test_what_is_not_said_has_the_defaults_of_the_reference() -> None:
    spec = spec_of(WORKER)
    assert (spec.replicas, spec.deploy, spec.artifacts.retain) == (1, True, 5)
    assert (spec.rollback.auto, spec.rollback.bake_s, spec.rollback.timeout_s) == (True, 60.0, 300.0)
    assert (spec.env, spec.secrets, spec.repo, spec.postgres, spec.migrations) == ({}, (), None, None, None)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("python -m shop", ("python", "-m", "shop")),
        ("[python, -m, 'my shop']", ("python", "-m", "my shop")),
        ("run --title 'two words' \"and 'more'\"", ("run", "--title", "two words", "and 'more'")),
        ("sh -c \"a && b | c > d\"", ("sh", "-c", "a && b | c > d")),
        ("[sh, -c, a && b]", ("sh", "-c", "a && b")),
        ("run --port 8080", ("run", "--port", "8080")),
        ("[run, 8080, true]", ("run", "8080", "true")),
        (r"run a\;b", ("run", "a;b")),
    ],
)  # fmt: skip
def test_a_command_is_split_as_a_shell_would(written: str, words: tuple[str, ...]) -> None:
    assert spec_of(f"app: shop\nrole: worker\ncommand: {written}\n").command == words


@pytest.mark.parametrize("written", ["010", "yes", "1.10", "0x1F", "null_", "2026-11-24", "1e3", "'null'"])
def test_a_value_of_env_is_taken_as_it_is_written(written: str) -> None:
    assert spec_of(f"{WORKER}env: {{A: {written}}}\n").env == {"A": written.strip("'")}


def test_the_database_of_migrations_is_taken_where_services_name_none() -> None:
    spec = spec_of(f"{WORKER}migrations: {{command: m, database: shop_db}}\n")
    assert spec.postgres is not None
    assert spec.postgres.database == "shop_db"


@pytest.mark.parametrize(
    "more",
    ["core: {}", "volumes: []", "alerts: x", "schedule: 1", "services: {kv: {}}", "services: {events: {}}",
     "services: {postgres: {database: d, migrations: {}}}"],
)  # fmt: skip
def test_what_other_installations_use_is_a_warning_with_its_place(more: str) -> None:
    parsed: ParsedInfraspec = parse_infraspec(f"{WORKER}{more}\n")
    (warning,) = parsed.warnings
    assert warning.line == 4
    assert "is ignored" in warning.message


# ---- what is refused, and where ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "line", "column", "key", "hint"),
    [
        ("prot: 1", 4, 1, "prot", "Did you mean 'port'?"),
        ("build: {comand: x}", 4, 9, "build.comand", "Did you mean 'command'?"),
        ("build:\n  tset: x", 5, 3, "build.tset", "Did you mean 'test'?"),
        ("replicas: two", 4, 11, "replicas", "From 0 to 100"),
        ("replicas: 101", 4, 11, "replicas", ""),
        ("replicas: -1", 4, 11, "replicas", ""),
        ("replicas: '2'", 4, 11, "replicas", "without quotes"),
        ("replicas: 99999999999999999999", 4, 11, "replicas", ""),
        ("deploy: yes", 4, 9, "deploy", "true or false"),
        ("env: {1A: x}", 4, 7, "env", "no digit first"),
        ("env: {A: [x]}", 4, 10, "env", ""),
        ("env: {A: }", 4, 10, "env", ""),
        ("env: {A: 1, A: 2}", 4, 13, "env", ""),
        ("env: [A]", 4, 6, "env", "For example"),
        ("secrets: KEY", 4, 10, "secrets", "dash"),
        ("secrets: [A, A]", 4, 14, "secrets", ""),
        ("secrets: [a-b]", 4, 11, "secrets", "Letters"),
        ("rollback: {bake: 60}", 4, 18, "rollback.bake", "60s?"),
        ("rollback: {bake: soon}", 4, 18, "rollback.bake", "For example"),
        ("rollback: {bake: 8d}", 4, 18, "rollback.bake", "week"),
        ("rollback: {bake: 200h}", 4, 18, "rollback.bake", "week"),
        ("rollback: {timeout: 0s}", 4, 21, "rollback.timeout", "For example"),
        ("repo: {branch: main}", 4, 7, "repo", "Where to clone from."),
        ("repo: {url: 'ext::sh -c id'}", 4, 13, "repo.url", "For example"),
        ("repo: {url: '--upload-pack=x'}", 4, 13, "repo.url", "For example"),
        ("repo: {url: 'https://x/y', branch: '--x'}", 4, 36, "repo.branch", ""),
        ("repo: {url: 'https://x/y', branch: a..b}", 4, 36, "repo.branch", ""),
        ("build: {dockerfile: ../Dockerfile}", 4, 21, "build.dockerfile", ""),
        ("build: {dockerfile: /etc/passwd}", 4, 21, "build.dockerfile", ""),
        ("services: {postgres: {}}", 4, 22, "services.postgres", "name of the app's database"),
        ('services: {postgres: {database: "a\\tb"}}', 4, 33, "services.postgres.database", "control characters"),
        ("services: {postgres: {database: postgres}}", 4, 33, "services.postgres.database", "PostgreSQL's own"),
        (f"services: {{postgres: {{database: {'ü' * 32}}}}}", 4, 33, "services.postgres.database", "63 bytes"),
        ("migrations: {command: m}", 4, 13, "migrations", "services"),
        ("services: {postgres: {database: d}}\nmigrations: {}", 5, 13, "migrations", "Brings the database"),
        ("artifacts: {retain: 0}", 4, 21, "artifacts.retain", ""),
        ("artifacts: {registry: all}", 4, 23, "artifacts.registry", "There are: keep, delete."),
        ("dependencies: [{name: a}]", 4, 16, "dependencies[0]", "What is asked."),
        ("dependencies: [{name: a, url: 'https://u:p@x/'}]", 4, 31, "dependencies[0].url", "For example"),
        ("dependencies: [{name: a, url: 'http://x'}, {name: a, url: 'http://y'}]", 4, 44, "dependencies", ""),
        ("port: 80", 4, 7, "port", "Remove port"),
        ("healthcheck: /", 4, 14, "healthcheck", "Remove healthcheck"),
        ("env: {A: b}\nsecrets: [A]", 5, 10, "secrets", "stands in `secrets` alone"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_its_place_and_what_would_be_right(
    more: str, line: int, column: int, key: str, hint: str
) -> None:
    (problem,) = problems_of(f"{WORKER}{more}\n")
    assert (problem["line"], problem["column"], problem["key"]) == (line, column, key)
    assert hint in problem["hint"]


@pytest.mark.parametrize(
    "command",
    ["a && b", "a | b", "a; b", "a > b", "a < b", "run $PORT", "run $(id)", "run `id`", "a &", "a || b"],
)
def test_a_command_that_wants_a_shell_is_refused_and_shown_how(command: str) -> None:
    (problem,) = problems_of(f'app: shop\nrole: worker\ncommand: "{command}"\n')
    assert problem["hint"] == 'Where one is wanted: sh -c "…".'


@pytest.mark.parametrize("command", ["''", "[]", "['']", "'run \"open'", "{a: b}", ""])
def test_a_command_that_is_none_is_refused(command: str) -> None:
    assert problems_of(f"app: shop\nrole: worker\ncommand: {command}\n")[0]["key"] == "command"


@pytest.mark.parametrize("app", ["Shop", "my_shop", "-shop", "shop-", "a/b", "..", "'a b'", "x" * 51, "'shop\\n'"])
def test_an_app_is_a_dns_label(app: str) -> None:
    assert problems_of(f"app: {app}\nrole: worker\n")[0]["key"] == "app"


def test_the_app_is_called_as_its_directory() -> None:
    (problem,) = problems_of(WORKER, directory="store")
    assert "'store'" in problem["message"]
    assert spec_of(WORKER, directory="shop").app == "shop"


def test_a_webserver_wants_a_port_and_leaves_PORT_to_norn() -> None:  # noqa: N802
    assert "port is missing" in problems_of("app: shop\nrole: webserver\ncommand: run\n")[0]["message"]
    assert "PORT is given by Norn" in problems_of(f"{WEB}env: {{PORT: 1}}\n")[0]["message"]


def test_all_that_is_wrong_is_said_in_one_go_from_top_to_bottom() -> None:
    found = problems_of("app: Shop\nrole: server\nprot: 1\nreplicas: x\n")
    assert [(problem["line"], problem["key"]) for problem in found] == [
        (1, "app"),
        (2, "role"),
        (3, "prot"),
        (4, "replicas"),
    ]


def test_the_message_counts_the_others() -> None:
    with pytest.raises(InfraspecInvalid, match=r"shop\.yaml:1:6: .*\(and 1 more\)"):
        parse_infraspec("app: Shop\nrole: server\n", path="shop.yaml")


# ---- what does harm ----------------------------------------------------------------------------------------------

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (LAUGHS, "anchor"),
        (f"{WORKER}env: *x\n", "alias"),
        (f"{WORKER}env: {{<<: {{A: b}}}}\n", "merge key"),
        (f"{WORKER}env: !!python/object/apply:os.system [id]\n", "tag"),
        (f"{WORKER}env: {{A: !!str 1}}\n", "tag"),
        (f"{WORKER}app: other\n", "a second time (first in line 1)"),
        (f"{WORKER}---\n{WORKER}", "second document"),
        (f"{WORKER}x: {'[' * 50}{']' * 50}\n", "nested more than 20 deep"),
        (WORKER.encode() + b"# " + b"x" * 10_000_000, "10,000,"),
        (WORKER.encode() + b"#" * MAX_BYTES, "are read"),
        (b"app: sh\xe9p\n", "not UTF-8"),
        ("app: shop\x00\n", "NUL"),
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("- app\n", "no mapping"),
        ("app", "no mapping"),
        ("app: [\n", "not YAML"),
        ("app: 'x\n", "not YAML"),
        ("\tapp: x\n", "not YAML"),
        ("? [a]\n: b\n", "a key has to be a word"),
        ("app: \x07\n", "not YAML"),
    ],
    ids=lambda value: str(value)[:24].encode("unicode_escape").decode(),
)  # fmt: skip
def test_what_does_harm_in_yaml_is_refused_saying_what_it_is(text: str | bytes, word: str) -> None:
    found = problems_of(text)
    assert any(word in problem["message"] for problem in found), found
    assert all(problem["line"] >= 1 and problem["column"] >= 1 for problem in found)


def test_a_byte_order_mark_is_no_harm() -> None:
    assert spec_of(b"\xef\xbb\xbf" + WORKER.encode()).app == "shop"


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300)))
def test_whatever_it_says_it_is_an_infraspec_or_refused(text: str | bytes) -> None:
    try:
        parse_infraspec(text)
    except InfraspecInvalid as refused:
        assert refused.facts["problems"]  # noqa: PT017


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.sampled_from(["a", "5s", "/x"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
KEYS = [
    "app", "role", "port", "healthcheck", "replicas", "command", "env", "secrets", "hosts", "repo", "build", "services",
    "migrations", "artifacts", "rollback", "dependencies", "deploy", "core", "x",
]  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_whatever_values_its_keys_have_it_is_an_infraspec_or_refused(document: dict[str, Any]) -> None:
    valid = {"app": "shop", "role": "worker", "command": "run"}
    try:
        parse_infraspec(yaml.safe_dump(valid | document, allow_unicode=True))
    except InfraspecInvalid as refused:
        assert refused.facts["problems"]  # noqa: PT017


# ---- the JSON Schema ---------------------------------------------------------------------------------------------

SCHEMA = infraspec_schema()


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("text", examples())
def test_the_schema_takes_every_example(text: str) -> None:
    assert list(Draft202012Validator(SCHEMA).iter_errors(yaml.load(text, Yaml12))) == []


@pytest.mark.parametrize(
    "more",
    ["prot: 1", "replicas: two", "replicas: 101", "deploy: 1", "env: [A]", "env: {1A: x}", "secrets: KEY",
     "rollback: {bake: 60}", "rollback: {bake: soon}", "repo: {branch: main}", "artifacts: {retain: 0}",
     "dependencies: [{name: a}]", "port: 80", "healthcheck: health", "command: []", "build: {comand: x}",
     'services: {postgres: {database: "a\\tb"}}', "migrations: {}", "notify: [{url: ftp://x}]",
     "notify: [{on: [rollback]}]", "notify: [{url: 'http://x', on: [rolback]}]"],
)  # fmt: skip
def test_the_schema_refuses_what_the_parser_refuses(more: str) -> None:
    text = f"{WORKER}{more}\n" if "command" not in more else f"app: shop\nrole: worker\n{more}\n"
    assert problems_of(text)
    assert not Draft202012Validator(SCHEMA).is_valid(yaml.load(text, Yaml12))


# ---- receivers of notifications ----------------------------------------------------------------------------------

SECRET = "t0ps3cret"


@pytest.mark.parametrize(
    ("written", "key", "line", "column"),
    [
        (f"{{url: ftp://example.com/{SECRET}}}", "notify[1].url", 6, 11),
        (f"{{url: 'https:///{SECRET}'}}", "notify[1].url", 6, 11),
        (f"{{url: 'http://h:99999/{SECRET}'}}", "notify[1].url", 6, 11),
        (f"{{url: 'http://[::1/{SECRET}'}}", "notify[1].url", 6, 11),
        (f"{{url: 'http://h/{SECRET} {SECRET}'}}", "notify[1].url", 6, 11),
        (f"{{url: 'http://h/{SECRET}{'x' * 2_000}'}}", "notify[1].url", 6, 11),
        ("{on: [rollback]}", "notify[1]", 6, 5),
        (f"{{url: 'http://h/{SECRET}', on: [rolback]}}", "notify[1].on", 6, 38),
        (f"{{url: 'http://h/{SECRET}', on: []}}", "notify[1].on", 6, 37),
        (f"{{url: 'http://h/{SECRET}', on: [rollback, rollback]}}", "notify[1].on", 6, 48),
        (f"{{url: 'http://first/{SECRET}'}}", "notify", 6, 5),
    ],
)
def test_a_wrong_receiver_is_named_by_its_place_and_its_url_is_not_repeated(
    written: str, key: str, line: int, column: int
) -> None:
    text = f"{WORKER}notify:\n  - {{url: 'http://first/{SECRET}'}}\n  - {written}\n"
    (problem,) = problems_of(text)
    assert (problem["key"], problem["line"], problem["column"]) == (key, line, column)
    assert SECRET not in str(problem)


@pytest.mark.parametrize(
    ("written", "key"),
    [
        (f"services: {{postgres: {{database: shop, url: 'postgresql+psycopg://shop:{SECRET}@db/shop'}}}}",
         "services.postgres.url"),
        (f"repo: {{url: 'svn://shop:{SECRET}@example.com/shop'}}", "repo.url"),
        (f"dependencies: [{{name: pay, url: 'ftp://shop:{SECRET}@pay/'}}]", "dependencies[0].url"),
    ],
)  # fmt: skip
def test_a_wrong_url_that_may_hold_a_password_is_not_repeated(written: str, key: str) -> None:
    (problem,) = problems_of(f"{WORKER}{written}\n")
    assert problem["key"] == key
    assert SECRET not in str(problem)


def test_receivers_with_what_they_want_to_hear_of() -> None:
    spec = spec_of(
        f"{WORKER}notify: [{{url: 'http://u:p@h:1/x'}}, {{url: https://h, on: [rollback, deploy.failed]}}]\n"
    )
    assert [(each.url, each.on) for each in spec.notify] == [
        ("http://u:p@h:1/x", ()),
        ("https://h", ("rollback", "deploy.failed")),
    ]
    assert "u:p" not in repr(spec)
