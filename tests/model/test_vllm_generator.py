"""What vLLM is asked, shown on a stand-in for it: no machine of ours has it."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from model.tiny import save_adapter
from sabir.errors import InputError
from sabir.model import vllm_generator
from sabir.model.vllm_generator import VllmModels, generator_missing


@pytest.fixture
def vllm(monkeypatch):
    """A module `vllm` that keeps its calls and answers 7, 1000 and the adapter's number, the prompt's length."""
    module, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    module.engines, module.calls = [], []

    class LLM:
        def __init__(self, **given):
            module.engines.append(given)

        def generate(self, prompts, decoding, *, lora_request, use_tqdm):
            module.calls.append((prompts, decoding, lora_request, use_tqdm))
            number = 1000 + (lora_request.number if lora_request else 0)
            answers = [[7, number, len(prompt["prompt_token_ids"])] for prompt in prompts]
            return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(ids))]) for ids in answers]

    module.LLM = LLM
    module.SamplingParams = lambda **given: given
    request.LoRARequest = lambda name, number, path: SimpleNamespace(name=name, number=number, path=path)
    for name, one in (("vllm", module), ("vllm.lora", lora), ("vllm.lora.request", request)):
        monkeypatch.setitem(sys.modules, name, one)
    monkeypatch.setattr(vllm_generator, "find_spec", lambda name: object())
    return module


@pytest.fixture
def adapters(bases, tmp_path):
    return [save_adapter(tmp_path / str(rank), bases["llama"], seed=rank, rank=rank) for rank in (2, 12)]


def test_one_engine_serves_the_base_and_every_adapter(vllm, bases, adapters):
    models = VllmModels(bases["llama"], adapters=adapters, longest=96)
    done, found = [], []
    for folder in (None, *adapters):
        with models.at(folder) as model:
            found.append(
                model.generate([[1, 2], [3]], max_new_tokens=5, stop_ids=[2, 9], on_batch=done.append)
            )
    assert found == [[[7, number, 2], [7, number, 1]] for number in (1000, 1001, 1002)]
    assert done == [2, 2, 2]
    [engine] = vllm.engines
    assert engine["model"] == engine["tokenizer"] == str(bases["llama"])
    assert (engine["enable_lora"], engine["max_loras"], engine["max_lora_rank"]) == (True, 1, 16)
    assert (engine["max_model_len"], engine["generation_config"], engine["seed"]) == (96, "vllm", 0)
    prompts, decoding, request, bar = vllm.calls[1]
    assert prompts == [{"prompt_token_ids": [1, 2]}, {"prompt_token_ids": [3]}]
    assert decoding == {
        "temperature": 0.0,
        "max_tokens": 5,
        "stop_token_ids": [2, 9],
        "ignore_eos": True,
        "detokenize": False,
    }
    assert request.path == str(adapters[0])
    assert bar is False
    assert vllm.calls[0][2] is None


def test_a_whole_model_has_an_engine_of_its_own(vllm, bases, adapters):
    models = VllmModels(bases["llama"], adapters=adapters[:1], longest=64)
    for folder in (adapters[0], bases["qwen3"]):
        with models.at(folder) as model:
            model.generate([[1]], max_new_tokens=5, stop_ids=[2])
    assert [engine["model"] for engine in vllm.engines] == [str(bases["llama"]), str(bases["qwen3"])]
    assert "enable_lora" not in vllm.engines[1]
    assert vllm.calls[1][2] is None


def test_a_rank_beyond_vllms_is_refused_by_sentence(vllm, bases, adapters, monkeypatch):
    monkeypatch.setattr(vllm_generator, "RANKS", (4, 8))
    models = VllmModels(bases["llama"], adapters=adapters, longest=64)
    with (
        pytest.raises(InputError, match=r"an adapter has rank 12, and vLLM takes up to 8\."),
        models.at(None),
    ):
        pass


def test_where_it_is_not_installed_the_command_is_told(bases, monkeypatch):
    monkeypatch.setattr(vllm_generator, "find_spec", lambda name: None)
    assert generator_missing("vllm") == "pip install vllm"
    assert generator_missing("transformers") is None
    with pytest.raises(
        InputError, match=r"^evaluate.generator: vLLM is not installed\. Run: pip install vllm"
    ):
        VllmModels(bases["llama"], adapters=[], longest=64)


def test_importing_it_loads_neither_vllm_nor_torch():
    import subprocess

    code = "import sys, sabir.model.vllm_generator; sys.exit('torch' in sys.modules or 'vllm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
