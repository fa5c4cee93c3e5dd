"""No value of a secret is in what is passed on, however it is printed and in whatever pieces it comes."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norn.domain.scrubbing import LEAST_CHARS, MARK, NOTHING, Scrubber, Stream

KEY = "hunter2/two+two=4"
PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF\nAASCBKcwggSjAgEAAoIBAQC7VJTU\n-----END KEY-----\n"


def streamed(stream: Stream, pieces: Sequence[str]) -> str:
    return "".join([*(stream.write(piece) for piece in pieces), stream.rest()])


@pytest.mark.parametrize(
    "printed",
    [
        KEY,
        quote(KEY, safe=""),
        base64.b64encode(KEY.encode()).decode(),
        base64.urlsafe_b64encode(KEY.encode()).decode(),
        base64.b64encode(f"user:{KEY}".encode()).decode(),
        base64.b64encode(f"a:{KEY}@host".encode()).decode(),
        base64.b64encode(f"bb:{KEY}@host".encode()).decode(),
        json.dumps({"key": KEY}),
    ],
)
def test_a_value_is_found_however_it_is_written(printed: str) -> None:
    text = Scrubber([KEY]).text(f"the key is {printed}, and more")
    assert MARK in text
    for form in (KEY, quote(KEY, safe=""), base64.b64encode(KEY.encode()).decode()[:-4]):
        assert form not in text
    assert text.startswith("the key is ")
    assert text.endswith(", and more")


def test_every_long_line_of_a_value_with_several_is_one() -> None:
    text = Scrubber([PEM]).text("  AASCBKcwggSjAgEAAoIBAQC7VJTU\r\n-----END KEY-----")
    assert text == f"  {MARK}\r\n-----END KEY-----"


def test_of_a_url_its_password_is_one() -> None:
    scrubber = Scrubber(["postgresql://shop:s3cr%2Ft-pass@db:5432/shop"])
    assert scrubber.text("password s3cr%2Ft-pass or s3cr/t-pass") == f"password {MARK} or {MARK}"


def test_values_under_four_characters_are_left_out() -> None:
    assert Scrubber(["abc", " ab \n"]).text("abc ab") == "abc ab"


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("clone https://ada:geheim@example.com/x.git", f"clone https://ada:{MARK}@example.com/x.git"),
        ("redis://:geheim@cache", f"redis://:{MARK}@cache"),
        ("postgresql://a:b@c@db/x", f"postgresql://a:{MARK}@db/x"),
        ("https://ghp_0123456789abcdefghij@github.com/x", f"https://{MARK}@github.com/x"),
        ("ssh://git@example.com:22/x", "ssh://git@example.com:22/x"),
        ("http://127.0.0.1:8800/a@b", "http://127.0.0.1:8800/a@b"),
        ('{"url":"http://x:80","mail":"a@b"}', '{"url":"http://x:80","mail":"a@b"}'),
    ],
)
def test_credentials_in_urls_go_whatever_they_are(text: str, scrubbed: str) -> None:
    assert NOTHING.text(text) == scrubbed
    for at in range(len(text)):
        assert streamed(NOTHING.stream(), [text[:at], text[at:]]) == scrubbed


def test_long_credentials_in_a_url_go_from_a_stream_whatever_the_pieces() -> None:
    token = "t" * 5_000
    assert streamed(NOTHING.stream(), [f"https://{token[:4_000]}", f"{token[4_000:]}@example.com"]) == (
        f"https://{MARK}@example.com"
    )


def test_a_piece_of_a_longer_text_may_begin_and_end_within_a_value() -> None:
    assert Scrubber(["correct-horse"]).json({"output": "rect-horse\nit broke: correct-h"}) == {
        "output": f"{MARK}\nit broke: {MARK}"
    }


def test_texts_of_a_document_are_scrubbed_at_any_depth() -> None:
    document = {"message": "correct-horse", "problems": [{"why": ("correct-horse", 5, None)}]}
    assert Scrubber(["correct-horse"]).json(document) == {"message": MARK, "problems": [{"why": [MARK, 5, None]}]}


def test_what_is_no_value_is_passed_on_at_once() -> None:
    stream = Scrubber(["correct-horse"]).stream()
    assert stream.write("compiling cor") == "compiling "
    assert stream.write("e.c\n") == "core.c\n"


# ---- whatever the pieces -----------------------------------------------------------------------------------------

letters = st.text("ab-/:@ \n", max_size=12)
values = st.lists(st.text("ab-/:@", min_size=LEAST_CHARS, max_size=24), min_size=1, max_size=4)


@st.composite
def printed(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Some values, and a text with some of them in it, in pieces."""
    secrets = draw(values)
    text = "".join(draw(st.lists(st.one_of(letters, st.sampled_from(secrets)), max_size=12)))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return secrets, [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(printed())
def test_no_value_is_in_what_is_passed_on_whatever_the_pieces(given: tuple[list[str], list[str]]) -> None:
    secrets, pieces = given
    passed = streamed(Scrubber(secrets).stream(), pieces)
    assert [value for value in secrets if value.strip() in passed] == []


@given(printed())
def test_the_pieces_make_no_difference(given: tuple[list[str], list[str]]) -> None:
    secrets, pieces = given
    scrubber = Scrubber(secrets)
    assert streamed(scrubber.stream(), pieces) == scrubber.text("".join(pieces))


@given(st.lists(st.text("xyz \n", max_size=20), max_size=10))
def test_a_text_without_secrets_stays_as_it_is(pieces: list[str]) -> None:
    assert streamed(Scrubber(["correct-horse", "battery"]).stream(), pieces) == "".join(pieces)


@given(printed())
def test_scrubbing_twice_is_scrubbing_once(given: tuple[list[str], list[str]]) -> None:
    secrets, pieces = given
    scrubber = Scrubber(secrets)
    once = scrubber.text("".join(pieces))
    assert scrubber.text(once) == once
