"""Tables on terminals of any width: what is folded, and what never is."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from sabir.cli.printing import print_table
from sabir.report.layout import WORD, laid_out, parted
from sabir.report.tables import Table

RELEASES = (
    ("release", "when (UTC)", "by", "model", "new in it", "mean accuracy", "verdict", "device h", "USD"),
    [
        (
            *("1", "2026-11-21 16:43", "root", "merged/average[scale=2.0]", "de, en, fr"),
            *("0.567", "pass", "0.0050", "0.0100"),
        ),
        (
            *(
                "2  <- current",
                "2026-11-21 16:44",
                "root",
                "merged/average[scale=1.0]",
                "fr (+240 rows), recipe",
            ),
            *("0.508", "undecided (accepted)", "0.0037", "0.0073"),
        ),
    ],
)
CHANGES = (
    ("language", "old", "new", "new - old", "p", "moved", "answers changed", "drop it would show"),
    [("de", "1.000", "1.000", "+0.000 [-0.088, +0.088]", "1.000", "", "0.0 %", "0.145")],
)
COSTS = (
    ("run", "work", "a device each", "2 devices", "one device", "device h", "USD"),
    [
        ("6. update (unfinished)", "train: combined, continued", "1 min 2 s", "31 s", "62 s", "0.01", "0.02"),
        ("", "  difference", "-59.0 %", "+103.9 %", "-59.0 %", "-59.0 %", "-59.0 %"),
        ("", "  evaluate the rest", "0.3 s", "0.4 s", "0.7 s", "0.0002", "<0.0001"),
    ],
)


def words(texts):
    return [word for text in texts for word in text.split()]


def texts(columns, rows):
    return [*columns, *(cell for row in rows for cell in row)]


@pytest.mark.parametrize("table", [RELEASES, CHANGES, COSTS])
@pytest.mark.parametrize("room", [20, 60, 80, 100, 140])
def test_no_word_is_broken_on_a_terminal_of_any_width(table, room):
    layout = laid_out(*table, room)
    kept = set(words(texts(layout.columns, layout.rows)))
    assert {word for word in words(texts(*table)) if len(word) <= WORD} <= kept
    for cells in (layout.columns, *layout.rows):
        for cell, width in zip(cells, layout.widths, strict=True):
            assert all(cell_len(line) <= width for line in cell.split("\n"))


@pytest.mark.parametrize("table", [RELEASES, CHANGES, COSTS])
def test_the_tables_of_a_project_fit_on_eighty_columns(table):
    assert laid_out(*table, 80).width <= 80


def test_a_table_that_fits_is_left_as_it_is():
    assert laid_out(*CHANGES, 140).columns == CHANGES[0]
    assert list(laid_out(*CHANGES, 140).rows) == CHANGES[1]


def test_intervals_and_verdicts_stay_on_one_line_where_texts_can_give_way():
    row = ("a text that is long enough to be folded at its blanks", "+0.000 [-0.088, +0.088]", "undecided")
    (folded,) = laid_out(("why", "new - old", "verdict"), [row], 60).rows
    assert folded[1:] == row[1:]
    assert len(folded[0].split("\n")) > 1


def test_heads_give_way_before_texts():
    (row,) = laid_out(("language", "drop it would show"), [("de", "0.145")], 20).rows
    assert row == ("de", "0.145")
    assert (
        laid_out(("language", "drop it would show"), [("de", "0.145")], 20).columns[1] != "drop it would show"
    )


def test_what_is_folded_keeps_its_indent():
    layout = laid_out(("work", "USD"), [("  evaluate the rest of it", "1")], 20)
    assert all(line.startswith("  ") for line in layout.rows[0][0].split("\n"))


def test_a_long_name_comes_apart_at_its_seams_and_only_where_it_must():
    name = "merged/average[scale=1.0]"
    assert laid_out(("model", "n"), [(name, "1")], 40).rows == ((name, "1"),)
    (row,) = laid_out(("model", "n"), [(name, "1")], 20).rows
    assert row[0] == "merged/average\n[scale=1.0]"


def test_a_table_that_cannot_fit_is_wider_than_the_terminal():
    layout = laid_out(("verdict", "p"), [("undecided", "0.001")], 8)
    assert layout.rows == (("undecided", "0.001"),)
    assert layout.width > 8


def test_a_table_without_rows_has_its_heads():
    assert laid_out(("model", "n"), [], 80).columns == ("model", "n")


def test_a_title_is_one_line_above_a_narrow_table(capsys):
    title = "merged/average[scale=1.0] against release/4: accuracy on test rows, paired by row"
    print_table(Table(title, ("language", "p"), (("de", "1.000"),), ("A note.",)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == title
    assert [line.split() for line in lines if line][1] == ["language", "p"]
    assert lines[-2] == "A note."


def test_a_table_wider_than_its_place_is_not_cut_off(capsys):
    names = tuple(f"language-{number:02}" for number in range(20))
    print_table(Table("Quality", names, (names,)))
    out = capsys.readouterr().out
    assert all(out.count(name) == 2 for name in names[1:])
    assert max(map(len, out.splitlines())) <= 140
    parts = sum(set(line.strip()) == {"─"} for line in out.splitlines())
    assert parts > 1
    assert out.count(names[0]) == 2 * parts, "each begins with the first column"


# --- tables of many columns --------------------------------------------------------------------------------


def wide(models, languages):
    heads = ("model", *(f"l{number:02}" for number in range(languages)), "mean [95 % interval]")
    rows = tuple(
        (f"merged/recipe-{model}[density=0.2,scale=1.0]", *(["0.500="] * languages), "0.500* [0.450, 0.550]")
        for model in range(models)
    )
    return Table("Quality", heads, rows, ("A note.",), frozenset({(1, 0), (1, 2), (0, languages + 1)}))


@pytest.mark.parametrize("room", [60, 100, 200])
def test_a_hundred_languages_and_twenty_models_fit_on_any_terminal(room):
    table = wide(20, 100)
    parts = parted(table, room)
    assert all(laid_out(part.columns, part.rows, room).width <= room for part in parts)
    assert [head for part in parts for head in part.columns[1:]] == list(table.columns[1:])
    for at, row in enumerate(table.rows):
        assert [cell for part in parts for cell in part.rows[at][1:]] == list(row[1:])
        assert {part.rows[at][0] for part in parts} == {row[0]}, "each part names its rows"


def test_parts_share_title_notes_and_marks_among_them():
    table = wide(2, 30)
    parts = parted(table, 80)
    assert [part.title for part in parts] == ["Quality", *([""] * (len(parts) - 1))]
    assert [part.notes for part in parts] == [*([()] * (len(parts) - 1)), ("A note.",)]
    marked = {(row, part.columns[at]) for part in parts for row, at in part.strong}
    assert marked == {(1, "model"), (1, "l01"), (0, "mean [95 % interval]")}
    assert all((1, 0) in part.strong for part in parts)


def test_numbers_are_not_folded_where_a_table_can_come_apart():
    for part in parted(wide(3, 12), 60):
        layout = laid_out(part.columns, part.rows, 60)
        assert not any("\n" in cell for row in layout.rows for cell in row[1:])


@pytest.mark.parametrize("table", [RELEASES, CHANGES, COSTS])
def test_a_table_that_fits_stays_whole(table):
    whole = Table("", table[0], tuple(table[1]))
    assert parted(whole, 140) == [whole]


def test_a_column_too_wide_for_the_terminal_is_a_part_of_its_own():
    table = Table("", ("model", "verdict", "p"), (("base", "undecided-and-more", "0.001"),))
    assert [part.columns for part in parted(table, 10)] == [("model", "verdict"), ("model", "p")]


def test_a_table_of_one_column_or_no_rows_stays_whole():
    for table in (Table("", ("a-word-that-is-wide",), (("x",),)), Table("", (), ())):
        assert parted(table, 5) == [table]
