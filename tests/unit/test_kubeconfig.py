"""Which API server, and who asks: KUBECONFIG, contexts, the service account, plugins."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from lightkube.config.client_adapter import user_auth

from norn.adapters.kubernetes import client
from norn.adapters.kubernetes.client import Cluster, load_config
from norn.errors import SettingInvalid


def written(path: Path, *names: str, current: str = "", user: dict[str, Any] | None = None, host: str = "") -> Path:
    """A kubeconfig with a cluster, a user and a context of each name."""
    document = {
        "clusters": [{"name": name, "cluster": {"server": f"https://{host or name}"}} for name in names],
        "users": [{"name": name, "user": user or {"token": f"token of {path.stem}"}} for name in names],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in names],
    }
    path.write_text(yaml.safe_dump(document | ({"current-context": current} if current else {})))
    return path


def of(*paths: Path) -> dict[str, str]:
    return {"KUBECONFIG": os.pathsep.join(map(str, paths))}


def found(context: str | None, environment: dict[str, str]) -> tuple[str, str | None]:
    config = load_config(context, environment)
    return config.cluster.server, config.user.token if config.user is not None else None


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a pod's service account nor this machine's own kubeconfig."""
    monkeypatch.setattr(client, "SERVICE_ACCOUNT", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))


# ---- files -------------------------------------------------------------------------------------------------------


def test_a_context_may_be_in_one_file_and_be_chosen_in_the_other(tmp_path: Path) -> None:
    first = written(tmp_path / "first", "test", current="live")
    second = written(tmp_path / "second", "live")
    assert found(None, of(first, second)) == ("https://live", "token of second")


def test_of_two_files_that_say_something_else_the_first_wins(tmp_path: Path) -> None:
    first = written(tmp_path / "first", "live", current="live")
    second = written(tmp_path / "second", "live", "test", current="test", host="other")
    assert found(None, of(first, second)) == ("https://live", "token of first")


def test_a_file_that_is_not_there_is_passed_over(tmp_path: Path) -> None:
    there = written(tmp_path / "there", "live", current="live")
    assert found(None, of(tmp_path / "gone", there)) == ("https://live", "token of there")


def test_without_kubeconfig_it_is_the_file_at_home(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    written(tmp_path / ".kube" / "config", "home", current="home")
    assert found(None, {}) == ("https://home", "token of config")


def test_where_there_is_no_file_at_all_the_error_names_them(tmp_path: Path) -> None:
    with pytest.raises(SettingInvalid, match=r"gone or .*missing"):
        load_config(None, of(tmp_path / "gone", tmp_path / "missing"))


@pytest.mark.parametrize("text", ["- a list", "clusters: [{}]", "{", "contexts: 7"])
def test_a_file_that_is_no_kubeconfig_is_a_wrong_setting(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(SettingInvalid):
        load_config(None, of(tmp_path / "config"))


def test_files_that_a_kubeconfig_names_lie_beside_it(tmp_path: Path) -> None:
    first = written(tmp_path / "first", "test", current="live")
    (tmp_path / "more").mkdir()
    second = written(tmp_path / "more" / "second", "live", user={"client-certificate": "a.crt", "client-key": "/b.key"})
    user = load_config(None, of(first, second)).user
    assert user is not None
    assert (user.client_cert, user.client_key) == (str(tmp_path / "more" / "a.crt"), "/b.key")


# ---- the context -------------------------------------------------------------------------------------------------


def test_the_context_that_is_set_wins_over_the_current_one(tmp_path: Path) -> None:
    config = written(tmp_path / "config", "test", "live", current="test")
    assert found("live", of(config))[0] == "https://live"


def test_norn_kube_context_is_the_context_of_every_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from norn.config import load_settings

    monkeypatch.setenv("KUBECONFIG", str(written(tmp_path / "config", "test", "live", current="test")))
    monkeypatch.setenv("NORN_KUBE_CONTEXT", "live")
    settings = load_settings()
    cluster = Cluster(settings.namespace, settings.kube_context)
    assert cluster.client.config.cluster.server == "https://live"


def test_a_context_that_is_not_there_is_a_wrong_setting(tmp_path: Path) -> None:
    config = written(tmp_path / "config", "live", current="live")
    with pytest.raises(SettingInvalid, match="kubeconfig"):
        load_config("elsewhere", of(config))


# ---- in a pod ----------------------------------------------------------------------------------------------------


@pytest.fixture
def in_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = tmp_path / "serviceaccount"
    account.mkdir()
    (account / "token").write_text("token of the pod")
    (account / "namespace").write_text("apps")
    (account / "ca.crt").write_text("")
    monkeypatch.setattr(client, "SERVICE_ACCOUNT", str(account))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")


@pytest.mark.usefixtures("in_a_pod")
def test_in_a_pod_it_is_the_service_account() -> None:
    assert found(None, {}) == ("https://10.0.0.1:443", "token of the pod")


@pytest.mark.usefixtures("in_a_pod")
def test_kubeconfig_wins_over_the_service_account(tmp_path: Path) -> None:
    config = written(tmp_path / "config", "live", current="live")
    assert found(None, of(config))[0] == "https://live"


# ---- plugins -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_a_plugin_gives_the_token(tmp_path: Path, version: str) -> None:
    api = f"client.authentication.k8s.io/{version}"
    plugin = tmp_path / "plugin"
    plugin.write_text(
        "#!/bin/sh\n"
        """echo '{"apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential","""
        """ "status": {"token": "from the plugin"}}'\n"""
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    user = {"exec": {"apiVersion": api, "command": str(plugin), "interactiveMode": "Never"}}
    config = load_config(None, of(written(tmp_path / "config", "live", current="live", user=user)))
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.headers["authorization"])
        return httpx2.Response(200)

    transport = httpx2.MockTransport(answer)
    async with httpx2.AsyncClient(auth=user_auth(config.user), transport=transport) as http:
        await http.get("https://live/")
    assert asked == ["Bearer from the plugin"]
