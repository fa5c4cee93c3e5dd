"""Secrets are private files: whole or not there, under their own root, whatever they are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from norn.adapters.secrets import SecretFiles
from norn.domain.secrets import MAX_BYTES
from norn.errors import Invalid, UnknownSecret


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "secrets"


@pytest.fixture
def secrets(root: Path) -> SecretFiles:
    return SecretFiles(root)


@pytest.mark.parametrize("value", ["simple", "", "two\nlines\r\n", "ünï 🔑", "$(id) `id` ' \"", " spaces "])
async def test_a_value_comes_back_to_the_byte(secrets: SecretFiles, value: str) -> None:
    await secrets.set("shop", "KEY", value)
    assert await secrets.values("shop") == {"KEY": value}


async def test_files_and_directories_are_their_owners_alone(secrets: SecretFiles, root: Path) -> None:
    await secrets.set("shop", "KEY", "value")
    assert (root / "shop" / "KEY").stat().st_mode & 0o777 == 0o600
    assert (root / "shop").stat().st_mode & 0o777 == 0o700
    assert [path.name for path in (root / "shop").iterdir()] == ["KEY"]


@pytest.mark.parametrize("name", ["", "a-b", "../KEY", "/KEY", "KEY/..", "KEY\n", "1KEY", "KE Y", ".KEY", "K" * 300])
async def test_a_name_that_no_environment_takes_is_refused(secrets: SecretFiles, root: Path, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        await secrets.set("shop", name, "value")
    assert not root.exists()
    assert not name or name not in refused.value.message


@pytest.mark.parametrize("app", ["", "..", "a/b", "/etc", "Shop", "shop\n"])
async def test_an_app_that_is_no_label_is_refused(secrets: SecretFiles, root: Path, app: str) -> None:
    with pytest.raises(Invalid):
        await secrets.set(app, "KEY", "value")
    assert not root.exists()


@pytest.mark.parametrize("value", ["a\x00b", "x" * (MAX_BYTES + 1), "\ud800"], ids=["NUL", "too long", "no text"])
async def test_a_value_that_no_environment_takes_is_refused_and_the_old_one_stays(
    secrets: SecretFiles, value: str
) -> None:
    await secrets.set("shop", "KEY", "old")
    with pytest.raises(Invalid) as refused:
        await secrets.set("shop", "KEY", value)
    assert await secrets.values("shop") == {"KEY": "old"}
    assert value[:3] not in refused.value.message


async def test_unsetting_takes_it_away(secrets: SecretFiles) -> None:
    await secrets.set("shop", "KEY", "value")
    await secrets.unset("shop", "KEY")
    assert await secrets.names("shop") == []


async def test_unsetting_one_that_is_not_there_names_those_that_are(secrets: SecretFiles) -> None:
    await secrets.set("shop", "KEY", "value")
    with pytest.raises(UnknownSecret) as refused:
        await secrets.unset("shop", "KYE")
    assert refused.value.hint == "There are: KEY."
