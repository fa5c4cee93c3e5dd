"""Command lines of the builders, names of images, and what a registry answers."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from norn.adapters.images import builder_store
from norn.adapters.images.builders import Builder, find_builder, last_stage
from norn.adapters.images.credentials import credentials
from norn.adapters.images.registry import Reference, Registry, is_local
from norn.adapters.images.registry_images import RegistryImages
from norn.bootstrap.installation import registry_name
from norn.domain.images import Image
from norn.domain.ports import Presence
from norn.errors import BuildFailed, NotDeployable, RegistryUnavailable, SettingInvalid

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("program", "argv"),
    [
        ("buildah", "buildah bud --layers --force-rm --tls-verify=false --label a=b --file D --tag t ."),
        ("podman", "podman build --tls-verify=false --label a=b --file D --tag t ."),
        ("docker", "docker build --label a=b --file D --tag t ."),
    ],
)
def test_a_build(program: str, argv: str) -> None:
    assert Builder(program, insecure=True).build(".", "D", "t", {"a": "b"}) == argv.split()


def test_tls_is_left_out_only_where_the_registry_has_none() -> None:
    assert Builder("podman").push("t") == ["podman", "push", "t"]


@pytest.fixture
def own_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A builder's store that no other test uses."""
    monkeypatch.setattr(builder_store, "_place", lambda: str(tmp_path))


@pytest.mark.usefixtures("own_store")
async def test_builds_are_made_beside_each_other_and_nothing_is_removed_meanwhile() -> None:
    async with builder_store.building(), builder_store.building():
        with builder_store.removing() as alone:
            assert not alone


@pytest.mark.usefixtures("own_store")
async def test_a_build_waits_for_the_end_of_a_removal() -> None:
    async def build() -> None:
        async with builder_store.building():
            pass

    with builder_store.removing() as alone:
        assert alone
        waiting = asyncio.create_task(build())
        assert await asyncio.wait([waiting], timeout=0.2) == (set(), {waiting})
    await waiting


@pytest.mark.usefixtures("own_store")
async def test_a_removal_that_hangs_is_an_error_of_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder_store, "_WAIT_S", 0.1)
    with builder_store.removing(), pytest.raises(BuildFailed):
        async with builder_store.building():
            pass


def test_a_command_is_an_argument_list_to_its_end() -> None:
    run = Builder("docker").run("n", "i", ["python3", "-c", "print('a; b')"])
    assert run == [["docker", "run", "--rm", "--name", "n", "--entrypoint", "python3", "i", "-c", "print('a; b')"]]


def test_the_last_stage_is_json_that_no_shell_sees() -> None:
    text = last_stage("base", ["sh", "-c", 'echo "$X"\nRUN false'])
    assert text == 'FROM base\nCMD ["sh", "-c", "echo \\"$X\\"\\nRUN false"]\n'
    assert last_stage("base", None) == "FROM base\n"


def test_an_unknown_builder_is_refused() -> None:
    with pytest.raises(SettingInvalid):
        find_builder("make")


@pytest.mark.parametrize(
    ("text", "registry", "repository", "version"),
    [
        ("r.example.com/team/web:abc", "r.example.com", "team/web", "abc"),
        ("127.0.0.1:5000/web", "127.0.0.1:5000", "web", "latest"),
        (f"localhost/web@{DIGEST}", "localhost", "web", DIGEST),
        ("nginx:1.25", "docker.io", "library/nginx", "1.25"),
        ("team/web", "docker.io", "team/web", "latest"),
    ],
)
def test_references(text: str, registry: str, repository: str, version: str) -> None:
    assert Reference.parse(text) == Reference(registry, repository, version)


def test_registries_of_this_machine_have_no_tls() -> None:
    assert [is_local(name) for name in ("127.0.0.1:5000", "localhost", "localhost.example.com")] == [True, True, False]
    assert registry_name("http://r.example.com/team/") == ("r.example.com/team", frozenset({"r.example.com"}))
    assert registry_name("r.example.com") == ("r.example.com", frozenset())


def test_logins_are_read_from_the_auth_file(tmp_path: Path) -> None:
    file = tmp_path / "auth.json"
    file.write_text(json.dumps({"auths": {"r.example.com": {"auth": base64.b64encode(b"me:pa:ss").decode()}}}))
    assert credentials("r.example.com", {"REGISTRY_AUTH_FILE": str(file)}) == ("me", "pa:ss")
    assert credentials("other.example.com", {"REGISTRY_AUTH_FILE": str(file)}) is None
    file.write_text("{")
    assert credentials("r.example.com", {"REGISTRY_AUTH_FILE": str(file)}) is None


class Answers(ThreadingHTTPServer):
    """A registry with one image, that answers with a certain status, or wants a token first."""

    status = 200
    wants_token = False


@pytest.fixture
def registry() -> Iterator[Answers]:
    class Handler(BaseHTTPRequestHandler):
        server: Answers

        def do_HEAD(self) -> None:
            status = self.server.status
            if self.server.wants_token and self.headers.get("Authorization") != "Bearer good":
                status = 401
            self.send_response(status)
            if status == 401:
                realm = f"http://127.0.0.1:{self.server.server_port}/token"
                self.send_header("WWW-Authenticate", f'Bearer realm="{realm}",service="r",scope="x"')
            self.send_header("Docker-Content-Digest", DIGEST)
            self.end_headers()

        def do_GET(self) -> None:
            body = json.dumps({"token": "good"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = Answers(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def presence(server: Answers) -> Presence:
    client = Registry()
    try:
        images = RegistryImages(client, "r.example.com", None)
        return (await images.look("web", Image(f"127.0.0.1:{server.server_port}/web:abc", DIGEST, ""))).presence
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("status", "found"),
    [(200, Presence.PRESENT), (404, Presence.GONE), (401, Presence.UNKNOWN), (500, Presence.UNKNOWN)],
)
async def test_only_a_404_means_gone(registry: Answers, status: int, found: Presence) -> None:
    registry.status = status
    assert await presence(registry) is found


async def test_a_token_is_fetched_where_the_registry_asks_for_one(registry: Answers) -> None:
    registry.wants_token = True
    assert await presence(registry) is Presence.PRESENT


async def test_silence_is_no_absence() -> None:
    client = Registry()
    with pytest.raises(RegistryUnavailable):
        await client.digest(Reference("127.0.0.1:1", "web", "abc"))
    await client.close()


def test_without_a_registry_nothing_can_be_deployed() -> None:
    with pytest.raises(NotDeployable, match="NORN_REGISTRY"):
        RegistryImages(Registry(), None, None).tag("web", "a" * 40)
