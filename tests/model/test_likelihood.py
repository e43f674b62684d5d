"""Scores of labels and choices against a plain loop that reads every row alone, from its start, without a cache."""

from __future__ import annotations

import pytest
import torch

from model.tiny import ARCHITECTURES
from sabir.model import likelihood
from sabir.model.batches import by_length, left_padded
from sabir.model.likelihood import option_scores

END = 2
# different lengths; the second is the beginning of the third; the first two of one token and the end
LABELS = [[700, END], [701, END], [701, 702, END], [703, 704, 705, 706, END], [701, 702, 707, END]]
# A logit is of size 10 to 100 here, where float32 is exact to some 4e-6; passes in another order leave a few of
# these per layer, in each token of an answer.
NOISE = 2e-5  # per token of an answer
SLIDING = ["mistral", "gemma2", "gemma3_text"]  # layers that see the last tokens alone


def tolerance(options):
    return NOISE * max(map(len, options))


def prompts(count, *, low=1, high=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(low, high, (count,), generator=generator).tolist()
    return [[1, *torch.randint(3, 8000, (n,), generator=generator).tolist()] for n in lengths]


def choices(count, *, most=5, longest=12, seed=9):
    """As many sets of options, each of another number of them and of another length, all closed by the end."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high, n):
        return torch.randint(low, high, (n,), generator=generator).tolist()

    return [
        [[*draw(3, 8000, length), END] for length in draw(1, longest, 2 + draw(0, most - 1, 1)[0])]
        for _ in range(count)
    ]


def of_labels(model, rows, labels, **given):
    return option_scores(model, rows, [labels] * len(rows), pad_id=END, **given)


@torch.no_grad()
def slow_scores(model, prompts, options):
    """Oracle: one row and option at a time, no cache, no padding, float64 sums."""
    scores = []
    for prompt, own in zip(prompts, options, strict=True):
        scores.append([])
        for option in own:
            logits = model(input_ids=torch.tensor([[*prompt, *option]]), use_cache=False).logits[0].double()
            logs = logits.log_softmax(-1)
            scores[-1].append(float(sum(logs[len(prompt) + k - 1, token] for k, token in enumerate(option))))
    return scores


def assert_close(found, expected, within):
    assert [len(row) for row in found] == [len(row) for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=within, rel=0)


# --- against the plain loop ------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_of_labels_equal_a_plain_loop_for_every_architecture(models, architecture):
    model, rows = models(architecture), prompts(6)
    expected = slow_scores(model, rows, [LABELS] * 6)
    assert torch.tensor(expected).std() > 0.5  # labels differ by far more than the tolerance
    assert_close(of_labels(model, rows, LABELS, batch_size=4), expected, tolerance(LABELS))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_of_each_rows_own_options_equal_a_plain_loop(models, architecture):
    model, rows, options = models(architecture), prompts(7, seed=5), choices(7)
    assert len({len(own) for own in options}) > 2
    found = option_scores(model, rows, options, pad_id=END, batch_size=3)
    assert_close(found, slow_scores(model, rows, options), NOISE * 12)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_one_option_of_200_tokens_beside_short_ones_is_scored_right(models, architecture):
    model, rows, options = models(architecture), prompts(4, seed=6), choices(4, longest=4)
    long = [[*torch.randint(3, 8000, (199,), generator=torch.Generator().manual_seed(1)).tolist(), END]]
    options[2] = [options[2][0], *long, options[2][1]]
    found = option_scores(model, rows, options, pad_id=END, batch_size=4)
    assert_close(found, slow_scores(model, rows, options), tolerance(long))


def test_options_that_begin_alike_are_told_apart(models):
    """One the prefix of another, up to the end token; the same beginning in three of four."""
    model, rows = models("llama"), prompts(3, seed=8)
    options = [[[5, 6, END], [5, 6, 7, END], [5, 6, 7, 8, END], [9, END]]] * 3
    found = option_scores(model, rows, options, pad_id=END, batch_size=3)
    assert_close(found, slow_scores(model, rows, options), tolerance(options[0]))


def test_the_end_of_an_option_counts(models):
    model, rows = models("llama"), prompts(3, seed=3)
    closed = of_labels(model, rows, [[700, END]], batch_size=2)
    open_ = of_labels(model, rows, [[700]], batch_size=2)
    assert_close(open_, slow_scores(model, rows, [[[700]]] * 3), NOISE)
    assert all(one[0] < other[0] - 0.1 for one, other in zip(closed, open_, strict=True))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_scores_do_not_hang_on_how_attention_is_computed(bases, attention):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        bases["llama"], attn_implementation=attention, dtype=torch.float32
    )
    rows, options = prompts(5, seed=5), choices(5)
    found = option_scores(model.eval(), rows, options, pad_id=END, batch_size=3)
    assert_close(found, slow_scores(model, rows, options), NOISE * 12)


def test_a_base_that_counts_places_in_a_table_is_scored_right(tmp_path):
    """GPT-2 has no rotation, so its options are read one by one."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=8192, n_embd=32, n_layer=2, n_head=2, n_positions=128, initializer_range=0.5
    )
    model, rows, options = GPT2LMHeadModel(config).eval(), prompts(5, seed=5), choices(5)
    found = option_scores(model, rows, options, pad_id=END, batch_size=3)
    assert_close(found, slow_scores(model, rows, options), NOISE * 12)


# --- what plays no part ----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_batch_size_and_order_change_no_score(models, architecture):
    model, rows, options = models(architecture), prompts(9, seed=1), choices(9, seed=2)
    alone = option_scores(model, rows, options, pad_id=END, batch_size=1)
    for batch_size in (2, 4, 9):
        together = option_scores(model, rows, options, pad_id=END, batch_size=batch_size)
        assert_close(together, alone, NOISE * 12)
    turned = option_scores(model, rows[::-1], [own[::-1] for own in options[::-1]], pad_id=END, batch_size=4)
    assert_close([row[::-1] for row in turned[::-1]], alone, NOISE * 12)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_few_rows_at_a_time_where_memory_is_short_change_no_score(models, architecture, monkeypatch):
    model, rows, options = models(architecture), prompts(6, seed=1), choices(6, seed=2)
    whole = option_scores(model, rows, options, pad_id=END, batch_size=6)
    done = []
    monkeypatch.setattr(likelihood, "LOGITS", 1)
    single = option_scores(model, rows, options, pad_id=END, batch_size=6, on_batch=done.append)
    assert done == [1, 2, 3, 4, 5, 6]
    assert_close(single, whole, NOISE * 12)


def test_the_padding_token_changes_no_score(models):
    model, rows = models("llama"), prompts(5, seed=2)
    one, other = (option_scores(model, rows, [LABELS] * 5, pad_id=pad, batch_size=5) for pad in (0, 4321))
    assert_close(one, other, 1e-5)


def test_an_adapter_changes_every_score(bases, models, tmp_path):
    from model.tiny import save_adapter
    from sabir.model.loading import adapted

    folder, rows = save_adapter(tmp_path / "a", bases["llama"], seed=1), prompts(4)
    bare = of_labels(models("llama"), rows, LABELS, batch_size=4)
    with adapted(models("llama"), folder) as model:
        found = of_labels(model, rows, LABELS, batch_size=4)
        assert_close(found, slow_scores(model, rows, [LABELS] * 4), tolerance(LABELS))
    for one, other in zip(found, bare, strict=True):
        assert all(abs(a - b) > 0.1 for a, b in zip(one, other, strict=True))


# --- how it is done --------------------------------------------------------------------------------------


def calls_of(model, rows, options, monkeypatch):
    """The number of tokens of each pass, those that fill up included."""
    seen, forward = [], model.forward

    def counted(*args, **given):
        seen.append(given["input_ids"].numel())
        return forward(*args, **given)

    monkeypatch.setattr(model, "forward", counted)
    option_scores(model, rows, options, pad_id=END, batch_size=len(rows))
    return seen


def test_a_prompt_is_read_once_and_so_is_what_its_options_begin_with(models, monkeypatch):
    rows = [[1, *range(10, 20)]] * 2
    options = [[[5, 6, END], [5, 7, END], [5, 6, 8, END]]] * 2  # 5; 5 6; 5 7; 5 6 8: the end is not read
    assert calls_of(models("llama"), rows, options, monkeypatch) == [2 * 11, 2 * 4]


@pytest.mark.parametrize("architecture", SLIDING)
def test_where_layers_slide_each_option_has_its_own_row(models, architecture, monkeypatch):
    rows = [[1, *range(10, 20)]] * 2
    options = [[[5, 6, END], [5, 7, END], [9, END]]] * 2
    assert calls_of(models(architecture), rows, options, monkeypatch) == [2 * 11, 2 * 3 * 2]


def test_options_of_one_token_need_no_second_pass(models, monkeypatch):
    assert len(calls_of(models("llama"), prompts(3), [[[700], [701]]] * 3, monkeypatch)) == 1


def test_no_prompts_have_no_scores(models):
    assert option_scores(models("llama"), [], [], pad_id=END, batch_size=4) == []


def test_progress_counts_every_prompt(models):
    done = []
    of_labels(models("llama"), prompts(5), LABELS, batch_size=2, on_batch=done.append)
    assert done == [2, 4, 5]


def test_padding_stands_on_the_left():
    ids, mask = left_padded([[5, 6, 7], [8]], 0, torch.device("cpu"))
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_batches_hold_every_row_once_longest_first():
    rows = [[0] * n for n in (3, 1, 5, 3, 2)]
    assert list(by_length(rows, 2)) == [[2, 0], [3, 4], [1]]
    assert list(by_length([], 2)) == []
