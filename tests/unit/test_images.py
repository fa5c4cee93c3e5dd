"""What a person may call a version."""

from __future__ import annotations

import pytest

from norn.domain.images import commit_prefix, image_tag


def test_a_tag_is_the_app_and_the_first_twelve_digits_of_the_commit() -> None:
    assert image_tag("shop", "0123456789abcdef" * 2) == "shop:0123456789ab"


def test_a_registry_stands_in_front() -> None:
    assert image_tag("shop", "f" * 40, "registry.example.com/team/") == f"registry.example.com/team/shop:{'f' * 12}"


@pytest.mark.parametrize(
    ("version", "prefix"),
    [
        ("shop:abc123", "abc123"),
        ("abc123", "abc123"),
        ("ABC123", "abc123"),
        ("registry.example.com:5000/team/shop:abc123", "abc123"),
        ("other:abc123", None),
        ("abc", None),
        ("shop:", None),
        ("latest", None),
        ("", None),
        ("abc123%", None),
        ("abc123\n", None),
        ("../abc123", None),
    ],
)
def test_what_names_a_commit_and_what_does_not(version: str, prefix: str | None) -> None:
    assert commit_prefix("shop", version) == prefix
