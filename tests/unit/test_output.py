"""What a step prints is kept within bounds, passed on as it comes, and never lost at its end."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from norn.operations.output import HEAD_CHARS, TAIL_CHARS, StepOutput


class Followed:
    """Collects what is flushed."""

    def __init__(self) -> None:
        self.kept = ""
        self.heard: list[str] = []

    async def __call__(self, kept: str, new: str) -> None:
        self.kept = kept
        self.heard.append(new)


async def test_what_is_new_is_passed_on_once() -> None:
    followed = Followed()
    output = StepOutput(followed)
    output.write("one ")
    await output.flush()
    output.write("two")
    await output.flush()
    assert followed.heard == ["one ", "two"]
    assert followed.kept == "one two"


async def test_it_is_passed_on_while_the_step_runs() -> None:
    followed = Followed()
    async with StepOutput(followed) as output:
        output.line("compiling")
        async with asyncio.timeout(20):
            while not followed.heard:
                await asyncio.sleep(0.01)
    assert followed.heard == ["compiling\n"]


async def test_the_beginning_and_the_end_of_a_flood_are_kept_and_the_gap_is_named() -> None:
    output = StepOutput(Followed())
    output.write("begin")
    for _ in range(100):
        output.write("x" * 50_000)
    output.write("end")
    text = output.text
    assert text.startswith("begin")
    assert text.endswith("end")
    assert "characters left out" in text
    assert len(text) < HEAD_CHARS + TAIL_CHARS + 100


async def test_who_follows_a_flood_is_told_where_the_rest_is() -> None:
    followed = Followed()
    output = StepOutput(followed)
    for _ in range(100):
        output.write("x" * 50_000)
    await output.flush()
    heard = "".join(followed.heard)
    assert heard.endswith("[more output is in the record]\n")
    assert len(heard) < 1_100_000


def test_a_nul_which_postgresql_cannot_keep_is_replaced() -> None:
    output = StepOutput(Followed())
    output.write("a\x00b")
    assert output.text == "a\ufffdb"


def test_what_was_printed_before_an_interruption_stays() -> None:
    output = StepOutput(Followed(), kept="before\n")
    output.line("after")
    assert output.text == "before\nafter\n"


@given(st.lists(st.text(alphabet="ab\n", max_size=300)))
def test_what_fits_is_kept_as_it_was(texts: list[str]) -> None:
    output = StepOutput(Followed())
    for text in texts:
        output.write(text)
    assert output.text == "".join(texts)
