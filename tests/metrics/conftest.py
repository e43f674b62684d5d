"""Tiny encoders with random weights, each with a tokenizer of its own kind, written as transformers writes them."""

from __future__ import annotations

import pytest

from sabir.model.encoder import Encoder

TEXTS = (
    "28-year-old chef found dead in San Francisco mall",
    "28-Year-Old Chef Found Dead at San Francisco Mall",
    "Die Katze schläft auf dem alten Sofa und träumt.",
    "昨日は一日中雨が降った。",
    "昨天下了一整天雨。",
    "कल पूरे दिन बारिश हुई थी।",
    "เมื่อวานนี้ฝนตกหนักทั้งวัน",
    "ذهب الأولاد إلى المدارس صباحا",
    "어제는 하루 종일 비가 내렸다.",
)


def _bert_tokenizer():
    """Word pieces: every character, and every whole word of the first two texts."""
    from transformers import BertTokenizer

    characters = sorted(set("".join(TEXTS)) - {" "})
    pieces = [*characters, *(f"##{character}" for character in characters)]
    pieces += sorted({word for text in TEXTS[:2] for word in text.replace("-", " ").split()} - set(pieces))
    vocab = {piece: i for i, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces])}
    return BertTokenizer(vocab=vocab, do_lower_case=False)


def _roberta_tokenizer():
    """Bytes, with a few merges, so that a word has another first token after a blank."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import RobertaTokenizer

    merges = [("Ġ", "D"), ("Ġ", "A"), ("i", "e"), ("ĠD", "ie"), ("c", "h")]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet())]
    pieces += [left + right for left, right in merges]
    return RobertaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges)


@pytest.fixture(scope="session")
def encoders(tmp_path_factory):
    """Folders of encoders with three layers, by kind of model."""
    import torch
    import transformers

    size = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    folders = {}
    for kind, tokenizer in (
        ("Bert", _bert_tokenizer()),
        ("DebertaV2", _bert_tokenizer()),
        ("Roberta", _roberta_tokenizer()),
        ("XLMRoberta", _roberta_tokenizer()),
    ):
        more = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]} if kind == "DebertaV2" else {}
        config = getattr(transformers, f"{kind}Config")(
            vocab_size=len(tokenizer),
            max_position_embeddings=66,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.4,  # with the usual 0.02 all tokens are nearly alike
            **size,
            **more,
        )
        torch.manual_seed(0)
        folders[kind] = tmp_path_factory.mktemp("encoders") / kind
        getattr(transformers, f"{kind}Model")(config).save_pretrained(folders[kind])
        tokenizer.save_pretrained(folders[kind])
    return folders


@pytest.fixture(scope="session")
def encoder(encoders):
    """A tiny BERT after its second layer."""
    return Encoder(str(encoders["Bert"]), "tiny-bert", layer=2, max_length=64, batch_size=3)
