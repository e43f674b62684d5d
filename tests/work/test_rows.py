"""What an adapter was trained on, and the rows that a continuation takes: laws that hold for any rows."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sabir.tasks import Prompt
from sabir.work.prepare import Example
from sabir.work.rows import choose, line_of, read_rows, write_rows


def row(text, target="good", identity=""):
    return Example(identity or text, Prompt("Is it good?\n\n", text, "\n\nAnswer:"), target)


rows = st.lists(st.builds(row, st.sampled_from("abcdefgh"), st.sampled_from(["good", "bad"])), max_size=30)
shares = st.floats(0, 1)
seeds = st.integers(0, 5)


def lines(examples):
    return Counter(map(line_of, examples))


def many(count, start=0):
    return [row(f"text {i}") for i in range(start, start + count)]


@given(rows, rows, shares, seeds)
def test_a_row_is_new_replayed_or_left_out_and_none_twice(old, added, replay, seed):
    choice = choose(old + added, lines(old), replay=replay, seed=seed)
    assert lines(choice.new) == lines(added)
    assert not lines(choice.replayed) - lines(old)
    assert lines(choice.rows) == lines(choice.new) + lines(choice.replayed)
    assert not choice.gone


@given(rows, rows, shares, seeds, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_chooses_nothing(old, added, replay, seed, random):
    everything = old + added
    one = choose(everything, lines(old), replay=replay, seed=seed)
    random.shuffle(everything)
    other = choose(everything, lines(old), replay=replay, seed=seed)
    assert lines(one.new) == lines(other.new)
    assert lines(one.replayed) == lines(other.replayed)


@given(rows, rows, shares, seeds)
def test_whether_an_old_row_is_replayed_depends_on_no_other_row(old, added, replay, seed):
    alone = choose(old, lines(old), replay=replay, seed=seed)
    assert lines(choose(old + added, lines(old), replay=replay, seed=seed).replayed) == lines(alone.replayed)
    for one in old:
        (by_itself,) = [bool(choose([one], lines([one]), replay=replay, seed=seed).replayed)]
        assert (line_of(one) in lines(alone.replayed)) == by_itself


@given(rows, shares, shares, seeds)
def test_a_larger_share_replays_what_a_smaller_one_does_and_more(old, one, other, seed):
    smaller, larger = (
        lines(choose(old, lines(old), replay=replay, seed=seed).replayed) for replay in sorted((one, other))
    )
    assert not smaller - larger


@given(rows, rows, seeds)
def test_nothing_and_everything_are_shares(old, added, seed):
    assert choose(old + added, lines(old), replay=0.0, seed=seed).replayed == ()
    assert lines(choose(old + added, lines(old), replay=1.0, seed=seed).replayed) == lines(old)


@given(rows, rows, shares)
def test_rows_that_are_gone_are_counted(kept, lost, replay):
    assert Counter(choose(kept, lines(kept + lost), replay=replay, seed=0).gone) == lines(lost)


def test_about_the_share_is_replayed_and_another_seed_replays_others():
    old = many(4000)
    chosen = [choose(old, lines(old), replay=0.1, seed=seed).replayed for seed in (0, 1)]
    for replayed in chosen:
        assert 343 < len(replayed) < 457  # three standard deviations of a binomial, p = 0.1, n = 4000, are 57
    both = lines(chosen[0]) & lines(chosen[1])
    assert both.total() < 100  # by chance 40


def test_a_row_with_another_answer_or_prompt_is_new_and_one_with_another_id_is_not():
    parent = lines([row("a", identity="1")])
    assert choose([row("a", identity="2")], parent, replay=0, seed=0).new == ()
    assert choose([row("a", "bad")], parent, replay=0, seed=0).new
    other = Example("1", Prompt("Otherwise?\n\n", "a", "\n\nAnswer:"), "good")
    assert choose([other], parent, replay=0, seed=0).new == (other,)


def test_rows_txt_is_golden(tmp_path):
    write_rows(tmp_path, [row("b"), row("a"), row("b")], {})
    assert (tmp_path / "rows.txt").read_text() == GOLDEN


GOLDEN = """\
051996f84c4b55a0 3e23e8160039594a
051996f84c4b55a0 3e23e8160039594a
74267e5943cb1d0f ca978112ca1bbdca
"""  # the second column is what `printf b | sha256sum` gives


@given(rows, rows)
def test_what_is_written_is_read_back_with_what_the_parent_stands_for(tmp_path_factory, own, parent):
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder, own, lines(parent))
    assert read_rows(folder) == lines(own) | lines(parent)


def test_an_adapter_that_says_nothing_of_its_rows_is_known_to(tmp_path):
    assert read_rows(tmp_path) is None
