"""What a restore would lose, as said to people and to scripts."""

from __future__ import annotations

import pytest

from norn.domain.loss import Loss, TableLoss

NOTES = TableLoss("public.notes", 120, 3)
LOG = TableLoss("public.log", None, None, "no primary key")
SLOW = TableLoss("public.slow", 7, None, "took longer than 60 s")
SAME = TableLoss("public.same", 0, 0)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (NOTES, "public.notes: 120 rows written, 3 deleted since"),
        (TableLoss("public.a", 1, 0), "public.a: 1 row written since"),
        (TableLoss("public.a", 0, 2), "public.a: 2 rows deleted since"),
        (LOG, "public.log: unknown (no primary key)"),
        (SLOW, "public.slow: 7 rows written since, deleted: unknown (took longer than 60 s)"),
        (TableLoss("public.a", None, 0, "x"), "public.a: 0 rows deleted since, written: unknown (x)"),
        (TableLoss("public.a", None, None), "public.a: unknown"),
        (SAME, "public.same: nothing"),
    ],
    ids=["both", "written", "deleted", "unknown", "half unknown", "half unknown, half nothing", "no reason", "nothing"],
)
def test_a_table_says_what_it_loses(table: TableLoss, said: str) -> None:
    assert table.text() == said


def test_tables_that_lose_nothing_are_left_out() -> None:
    assert Loss.of([NOTES, SAME]).tables == (NOTES,)


def test_tables_come_in_the_order_of_their_names() -> None:
    assert Loss.of([SLOW, NOTES, LOG]).tables == (LOG, NOTES, SLOW)


def test_no_table_is_nothing() -> None:
    assert Loss.of([SAME]).nothing


def test_an_unknown_table_is_not_nothing() -> None:
    assert not Loss.of([LOG]).nothing


def test_half_known_to_be_nothing_is_not_nothing() -> None:
    assert not Loss.of([TableLoss("public.a", 0, None, "no primary key")]).nothing


def test_the_sum_of_rows_written_is_of_what_is_known() -> None:
    assert Loss.of([NOTES, LOG, SLOW]).written == 127


def test_the_sum_of_rows_deleted_is_of_what_is_known() -> None:
    assert Loss.of([NOTES, LOG, SLOW]).deleted == 3


def test_unknown_are_the_tables_of_which_not_all_is_known() -> None:
    assert Loss.of([NOTES, LOG, SLOW]).unknown == (LOG, SLOW)


def test_a_person_reads_a_line_for_each_table() -> None:
    assert Loss.of([NOTES, LOG]).text().splitlines() == [LOG.text(), NOTES.text()]


def test_what_is_written_as_json_is_read_again() -> None:
    loss = Loss.of([NOTES, LOG, SLOW])
    assert Loss.from_json(loss.to_json()) == loss


def test_a_script_reads_the_sums_beside_the_tables() -> None:
    document = Loss.of([SLOW]).to_json()
    assert document == {
        "nothing": False,
        "written": 7,
        "deleted": 0,
        "tables": [{"table": "public.slow", "written": 7, "deleted": None, "why": "took longer than 60 s"}],
    }


@pytest.mark.parametrize("value", [{}, {"tables": [{"table": "a"}]}], ids=["no tables", "no counts"])
def test_what_is_no_loss_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(KeyError):
        Loss.from_json(value)
