"""BERTScore against a slow float64 implementation on tiny encoders, and against published values."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from sabir.errors import InputError
from sabir.metrics import measure, signature
from sabir.model.encoder import Encoder

# The three pairs of bert-score's own test, and its F by roberta-large, layer 17, without IDF.
# Source: tests/test_score_function.py of https://github.com/Tiiiger/bert_score (MIT).
ANSWERS = (
    "28-year-old chef found dead in San Francisco mall",
    "A 28-year-old chef who recently moved to San Francisco was found dead in the staircase of a local shopping "
    "center.",
    "The victim's brother said he cannot imagine anyone who would want to harm him,\"Finally, it went uphill "
    'again at him."',
)
TARGETS = (
    "28-Year-Old Chef Found Dead at San Francisco Mall",
    "A 28-year-old chef who had recently moved to San Francisco was found dead in the stairwell of a local mall "
    "this week.",
    "But the victim's brother says he can't think of anyone who would want to hurt him, saying, \"Things were "
    'finally going well for him."',
)
PUBLISHED = (0.9833561182022095, 0.9782299995422363, 0.916214644908905)

PAIRS = (
    ("昨日は雨が降った。", "昨日は一日中雨が降った。"),
    ("Die Katze träumt.", "Die Katze schläft auf dem alten Sofa und träumt."),
    ("昨天雨。", "कल पूरे दिन बारिश हुई थी।"),
    ("ฝนตกหนัก", "เมื่อวานนี้ฝนตกหนักทั้งวัน"),
    ("비가", "어제는 하루 종일 비가 내렸다."),
    (ANSWERS[0], TARGETS[0]),
)


def scores(pairs, encoder) -> np.ndarray:
    answered, actual = zip(*pairs, strict=True)
    return measure("bertscore_f1", answered, actual, encoder=encoder).statistics[:, 0]


def by_the_book(answer: str, target: str, encoder: Encoder) -> float:
    """One pair in float64, token by token, without batch or padding: section 3 of arXiv:1904.09675."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder.folder)
    model = AutoModel.from_pretrained(encoder.folder).double().eval()

    def tokens(text):
        blank = (
            " " if type(tokenizer).__name__ == "RobertaTokenizer" else ""
        )  # add_prefix_space of bert-score
        ids = tokenizer(blank + text)["input_ids"]
        cut = ids if len(ids) <= encoder.max_length else [*ids[: encoder.max_length - 1], ids[-1]]
        with torch.no_grad():
            layers = model(torch.tensor([cut]), output_hidden_states=True).hidden_states
        vectors = layers[-1 if encoder.layer is None else encoder.layer][0].numpy()
        counted = [token not in (tokenizer.cls_token_id, tokenizer.sep_token_id) for token in cut]
        return vectors, counted

    def mean_of_best(mine, counted, others):
        best = []
        for vector, counts in zip(mine, counted, strict=True):
            if counts:
                cosines = [vector @ o / np.sqrt((vector @ vector) * (o @ o)) for o in others]
                best.append(max(0.0, *cosines))
        return sum(best) / len(best)

    (answered, answered_counted), (actual, actual_counted) = tokens(answer), tokens(target)
    precision = mean_of_best(answered, answered_counted, actual)
    recall = mean_of_best(actual, actual_counted, answered)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("kind", ["Bert", "DebertaV2", "Roberta", "XLMRoberta"])
@pytest.mark.parametrize("layer", [1, 2, None])
def test_scores_are_those_of_a_slow_float64_implementation(encoders, kind, layer):
    encoder = Encoder(str(encoders[kind]), kind, layer=layer, max_length=64, batch_size=4)
    expected = [by_the_book(answer, target, encoder) for answer, target in PAIRS]
    assert scores(PAIRS, encoder) == pytest.approx(expected, abs=2e-6)  # float32 against float64
    assert np.ptp(expected) > 0.05  # or a constant would pass


def test_texts_too_long_are_cut_at_max_length(encoder):
    short = replace(encoder, max_length=8)
    expected = [by_the_book(answer, target, short) for answer, target in PAIRS]
    assert scores(PAIRS, short) == pytest.approx(expected, abs=2e-6)
    assert scores([(ANSWERS[1] * 50, TARGETS[1])], short) == scores([(ANSWERS[1], TARGETS[1])], short)


@pytest.mark.parametrize("kind", ["Bert", "DebertaV2", "Roberta", "XLMRoberta"])
def test_batch_size_order_and_padding_change_nothing_beyond_float_noise(encoders, kind):
    encoder = Encoder(str(encoders[kind]), kind, layer=2, max_length=64)
    alone = np.array([scores([pair], encoder)[0] for pair in PAIRS])
    for batch_size in (1, 2, 100):
        found = scores(PAIRS[::-1], replace(encoder, batch_size=batch_size))
        assert found[::-1] == pytest.approx(alone, abs=2e-6)


def test_equal_texts_score_one_and_empty_ones_zero(encoder):
    rows = [("Die Katze", "Die Katze"), ("", "Die Katze"), (" \n", "Die Katze"), ("Die Katze", "")]
    found = scores(rows, encoder)
    assert found[0] == pytest.approx(1, abs=1e-6)
    assert found[0] <= 1
    assert found[1:].tolist() == [0, 0, 0]
    assert scores(rows[1:], replace(encoder, folder="nowhere")).tolist() == [0, 0, 0]  # nothing to encode


def test_unscored_answers_are_left_out(encoder):
    found = measure("bertscore_f1", [None, "雨"], ["雨", "雨"], encoder=encoder)
    assert np.isnan(found.statistics[:, 0]).tolist() == [True, False]
    assert (found.unscored, found.undefined) == (1, 0)


def test_the_signature_holds_what_changes_scores_and_nothing_else(encoder):
    assert signature("bertscore_f1", encoder=encoder).startswith(
        "bertscore_f1|v:1|encoder:tiny-bert|layer:2|max_length:64|transformers-"
    )
    elsewhere = replace(encoder, folder="/elsewhere", batch_size=1, device="cuda")
    assert signature("bertscore_f1", encoder=elsewhere) == signature("bertscore_f1", encoder=encoder)
    assert "|layer:last|" in signature("bertscore_f1", encoder=replace(encoder, layer=None))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"folder": "nowhere"}, "there is no config.json"),
        ({"layer": 4}, "has layers 1 to 3"),
        ({"layer": 0}, "has layers 1 to 3"),
        ({"max_length": 67}, "reads 3 to 66 tokens"),
    ],
)
def test_an_encoder_that_does_not_serve_is_refused(encoder, change, said):
    with pytest.raises(InputError, match=said):
        scores(PAIRS, replace(encoder, **change))


def test_roberta_reads_two_tokens_fewer_than_it_has_positions(encoders):
    encoder = Encoder(str(encoders["XLMRoberta"]), "x", max_length=65)
    with pytest.raises(InputError, match="reads 3 to 64 tokens"):
        scores(PAIRS, encoder)


def test_weights_that_are_not_there_are_not_made_up(encoders, tmp_path):
    """transformers fills them with random numbers, and any text would get a score."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoConfig, AutoTokenizer

    AutoConfig.from_pretrained(encoders["Bert"]).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(encoders["Bert"]).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no weights in safetensors"):
        scores(PAIRS, Encoder(str(tmp_path), "x", max_length=64))
    weights = load_file(encoders["Bert"] / "model.safetensors")
    kept = {name: each for name, each in weights.items() if "layer.1.attention" not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=r"lacks weights of the encoder, such as 'encoder\.layer\.1\.attention"
    ):
        scores(PAIRS, Encoder(str(tmp_path), "x", max_length=64))
    assert len(scores(PAIRS, Encoder(str(tmp_path), "x", layer=1, max_length=64))) == len(PAIRS)  # not needed


@pytest.mark.parametrize(("kind", "longest"), [("Bert", 66), ("XLMRoberta", 64)])
def test_of_an_encoder_with_few_positions_as_many_tokens_are_read_as_it_has(encoders, kind, longest):
    encoder = Encoder(str(encoders[kind]), kind)
    assert f"|max_length:{longest}|" in signature("bertscore_f1", encoder=encoder)
    assert scores([(ANSWERS[1] * 50, TARGETS[1])], encoder) == scores(
        [(ANSWERS[1] * 50, TARGETS[1])], replace(encoder, max_length=longest)
    )


def test_an_encoder_with_many_positions_reads_512(tmp_path):
    from transformers import BertConfig

    BertConfig(max_position_embeddings=8192).save_pretrained(tmp_path)
    assert "|max_length:512|" in signature("bertscore_f1", encoder=Encoder(str(tmp_path), "x"))


def test_a_model_that_writes_is_no_encoder(tmp_path):
    from transformers import BertConfig, GPT2Config, Qwen3Config

    for number, (config, kind) in enumerate(
        [
            (Qwen3Config(architectures=["Qwen3ForCausalLM"]), "qwen3"),
            (GPT2Config(architectures=["GPT2LMHeadModel"]), "gpt2"),
            (BertConfig(is_decoder=True), "bert"),
        ]
    ):
        config.save_pretrained(tmp_path / str(number))
        with pytest.raises(InputError, match=f"holds a {kind} that writes texts"):
            scores(PAIRS, Encoder(str(tmp_path / str(number)), "x"))


def test_an_encoder_with_a_decoder_is_refused(tmp_path):
    from transformers import T5Config

    T5Config(num_layers=1, d_model=8).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="holds a t5, not an encoder alone"):
        scores(PAIRS, Encoder(str(tmp_path), "x"))


def test_published_scores_of_roberta_large():
    folder = os.environ.get("SABIR_ROBERTA_LARGE")
    if not folder:
        pytest.skip("needs the weights of roberta-large: set SABIR_ROBERTA_LARGE to their folder")
    encoder = Encoder(folder, "roberta-large", layer=17)
    found = scores(list(zip(ANSWERS, TARGETS, strict=True)), encoder)
    assert found == pytest.approx(PUBLISHED, abs=1e-5)  # bert-score's own tolerance
