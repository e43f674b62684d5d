from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from adapters import save_embedding, save_tensors
from safetensors.torch import load_file

from problems import random_factors, save_peft
from sabir.errors import InputError, StoreError
from sabir.lora import write as writing
from sabir.lora.checks import check_supported
from sabir.lora.files import CONFIG, WEIGHTS, open_adapter
from sabir.lora.lowrank import LowRank
from sabir.lora.write import served_rank, target_names, write_adapter
from sabir.work.merge import merge_folders

Q = "model.layers.0.self_attn.q_proj"


def written(folder, adapter, **choices):
    return write_adapter(
        folder,
        ((module, adapter.read(module)) for module in adapter.modules),
        shapes=adapter.shapes,
        rank=max(adapter.ranks.values()),
        base_model="some/base",
        **choices,
    )


def test_the_canonical_adapter_reads_back_and_says_its_rank_plainly(tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1), lora_alpha=5, use_rslora=True)
    out = written(tmp_path / "out", adapter)
    assert set(out.ranks.values()) == {8}
    assert (out.config["r"], out.config["lora_alpha"], out.config["use_rslora"]) == (8, 8, False)
    for module in adapter.modules:
        assert torch.equal(out.read(module).delta(), adapter.read(module).delta())
    assert set(written(tmp_path / "exact", adapter, pad_to_served=False).ranks.values()) == {3}
    half = written(tmp_path / "half", adapter, dtype="bfloat16")
    assert torch.equal(half.read(Q).a, torch.cat([adapter.read(Q).a.bfloat16().float(), torch.zeros(5, 10)]))
    assert load_file(out.path / "adapter_model.safetensors").keys() == dict(out.tensors).keys()


def test_the_same_deltas_give_the_same_bytes_in_any_order(tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1))
    one = written(tmp_path / "one", adapter)
    two = write_adapter(
        tmp_path / "two",
        [(module, adapter.read(module)) for module in reversed(adapter.modules)],
        shapes=dict(reversed(adapter.shapes.items())),
        rank=3,
        base_model="some/base",
    )
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (one.path / name).read_bytes() == (two.path / name).read_bytes()


@pytest.mark.parametrize("error", [RuntimeError("boom"), OSError(28, "No space left on device")])
@pytest.mark.parametrize("existing", [False, True])
def test_nothing_half_written_is_left(error, existing, tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1))
    out = tmp_path / "out"
    if existing:
        out.mkdir()
        (out / "notes.txt").write_text("mine")

    def breaks():
        yield Q, adapter.read(Q)
        raise error

    with pytest.raises((RuntimeError, StoreError)):
        write_adapter(out, breaks(), shapes=adapter.shapes, rank=3, base_model=None)
    assert [path.name for path in out.glob("*")] == (["notes.txt"] if existing else [])
    assert out.exists() == existing


def test_a_folder_that_holds_an_adapter_is_not_written_over(tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1))
    with pytest.raises(InputError, match="holds an adapter already"):
        written(adapter.path, adapter)


def test_served_ranks_are_those_vllm_takes():
    assert [served_rank(r) for r in (1, 8, 9, 80, 320, 321, 768)] == [8, 8, 16, 128, 320, 512, 768]


def test_target_names_are_short_only_where_all_modules_of_that_name_are_meant(tmp_path):
    wanted = ["layers.0.q_proj", "layers.1.q_proj", "layers.0.up_proj"]
    assert target_names(wanted) == sorted(wanted)
    shapes = {name: (4, 4) for name in wanted}
    all_of_them = save_peft(tmp_path / "a", random_factors(1, shapes=shapes))
    some_layers = save_peft(tmp_path / "b", random_factors(1, shapes=shapes), layers_to_transform=[0])
    assert target_names(wanted, adapters=[all_of_them]) == ["q_proj", "up_proj"]
    assert target_names(wanted, adapters=[some_layers]) == sorted(wanted)


def test_a_module_of_rank_zero_is_written_as_zeros(tmp_path):
    empty = LowRank(torch.zeros(4, 0), torch.zeros(0, 6))
    out = write_adapter(tmp_path / "o", [("m", empty)], shapes={"m": (4, 6)}, rank=0, base_model=None)
    assert float(out.read("m").delta().abs().sum()) == 0
    assert CONFIG in {path.name for path in out.path.iterdir()}


def test_every_type_is_cast_once_at_the_end(tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        out = written(tmp_path / name, adapter, dtype=name)
        stored = load_file(out.path / WEIGHTS)
        for module in adapter.modules:
            read = adapter.read(module)
            b, a = (stored[f"base_model.model.{module}.lora_{side}.weight"] for side in "BA")
            assert b.dtype == a.dtype == dtype
            assert torch.equal(b, torch.cat([read.b, torch.zeros(len(read.b), 5)], dim=1).to(dtype))
            assert torch.equal(a, torch.cat([read.a, torch.zeros(5, read.a.shape[1])]).to(dtype))


@pytest.mark.parametrize("rank", [1, 8])  # padded, and not
def test_a_value_too_large_for_the_type_is_refused(rank, tmp_path):
    large, small = torch.full((4, rank), 1e5), torch.ones(rank, 4)
    for side in (LowRank(large, small), LowRank(small.T, large.T)):
        with pytest.raises(InputError, match="holds values too large for float16"):
            write_adapter(
                tmp_path / "out",
                [("m", side)],
                shapes={"m": (4, 4)},
                rank=rank,
                base_model=None,
                dtype="float16",
            )
    assert not (tmp_path / "out").exists()


def test_an_embedding_and_what_was_trained_whole_come_back(tmp_path):
    adapter = save_embedding(tmp_path / "de", lora_alpha=5)
    head = {"score.weight": torch.randn(2, 4), "classifier.out_proj.bias": torch.randn(2)}
    out = written(
        tmp_path / "out",
        adapter,
        embeddings=adapter.embeddings,
        fan_in_fan_out=True,
        saved=head.items(),
        saved_shapes={name: tuple(values.shape) for name, values in head.items()},
        task_type="SEQ_CLS",
    )
    check_supported(out)
    assert (out.embeddings, out.fan_in_fan_out) == (adapter.embeddings, True)
    assert torch.equal(out.read("model.embed_tokens").delta(), adapter.read("model.embed_tokens").delta())
    assert out.config["modules_to_save"] == ["classifier.out_proj", "score"]
    assert out.config["task_type"] == "SEQ_CLS"
    assert all(torch.equal(out.read_saved(name), values) for name, values in head.items())


def test_texts_are_asked_for_when_all_deltas_were_written(tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1))
    (tmp_path / "tokenizer.json").write_text("{}")
    seen = []

    def lowranks():
        for module in adapter.modules:
            seen.append(module)
            yield module, adapter.read(module)

    out = write_adapter(
        tmp_path / "out",
        lowranks(),
        shapes=adapter.shapes,
        rank=3,
        base_model=None,
        texts=lambda: {"README.md": f"{len(seen)} modules"},
        copies=[tmp_path / "tokenizer.json"],
    )
    assert (out.path / "README.md").read_text() == "3 modules"
    assert (out.path / "tokenizer.json").read_text() == "{}"


@pytest.mark.parametrize(
    "present", ["config.json", "model.safetensors", "adapter_model.bin", "README.md", "tokenizer.json"]
)
def test_a_folder_with_a_model_or_with_one_of_the_files_is_refused(present, tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1))
    (tmp_path / "tokenizer.json").write_text("{}")
    out = tmp_path / "out"
    out.mkdir()
    (out / present).write_text("mine")
    with pytest.raises(InputError, match="already"):
        written(out, adapter, texts=lambda: {"README.md": ""}, copies=[tmp_path / "tokenizer.json"])
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(present, "mine")]
    with pytest.raises(InputError, match="is a file"):
        written(out / present, adapter)


def test_texts_that_fail_leave_nothing(tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1))
    (tmp_path / "tokenizer.json").write_text("{}")

    def fails():
        raise RuntimeError("boom")

    for texts in (fails, lambda: {"a.txt": "x", "tokenizer.json": "twice"}):
        with pytest.raises((RuntimeError, InputError)):
            written(tmp_path / "out", adapter, texts=texts, copies=[tmp_path / "tokenizer.json"])
        assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_leaves_nothing_that_looks_complete(tmp_path):
    """The limit on a file's size stands for the full disk: the kernel refuses the write."""
    program = """
import resource, sys
from problems import random_factors, save_peft
from sabir.errors import StoreError
from sabir.lora.write import write_adapter
from pathlib import Path
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
adapter = save_peft(folder / "de", random_factors(1, shapes={"m": (500, 400)}))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    write_adapter(folder / "out", [("m", adapter.read("m"))], shapes=adapter.shapes, rank=3, base_model=None)
except StoreError as error:
    print(error)
"""
    folder = tmp_path / "x"
    ran = subprocess.run(
        [sys.executable, "-c", program, str(folder), "20000"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert "the adapter could not be written: File too large. Nothing half-written was left." in ran.stdout
    assert not (folder / "out").exists()


def test_padding_is_left_out_of_the_file_where_the_file_system_can(tmp_path):
    lowrank = LowRank(torch.ones(4, 1), torch.ones(1, 1 << 18))
    shapes = {"m": (4, 1 << 18)}
    out = write_adapter(tmp_path / "out", [("m", lowrank)], shapes=shapes, rank=64, base_model=None)
    weights = out.path / WEIGHTS
    values = load_file(weights)["base_model.model.m.lora_A.weight"]
    assert (float(values[0].sum()), float(values[1:].abs().sum())) == (1 << 18, 0)
    (tmp_path / "hole").touch()
    os.truncate(tmp_path / "hole", 1 << 20)
    if (tmp_path / "hole").stat().st_blocks:
        pytest.skip("this file system has no holes")
    assert weights.stat().st_size > 64 << 20
    assert weights.stat().st_blocks * 512 < 4 << 20


def test_names_of_targets_stay_short_for_the_union_of_different_modules(tmp_path):
    one = save_peft(tmp_path / "a", random_factors(1, shapes={"x.0.q_proj": (4, 4), "x.1.q_proj": (4, 4)}))
    two = save_peft(
        tmp_path / "b", random_factors(1, shapes={"x.0.up_proj": (4, 4)}), layers_to_transform=[0]
    )
    assert target_names([*one.shapes, *two.shapes], adapters=[one, two]) == ["q_proj", "x.0.up_proj"]
    assert target_names(["x.0.q_proj"], adapters=[one]) == ["x.0.q_proj"]


def test_of_two_writers_into_one_folder_one_is_refused(tmp_path):
    adapter, out = save_peft(tmp_path / "de", random_factors(1)), tmp_path / "deep" / "out"
    other = save_peft(tmp_path / "ja", random_factors(2))

    def interrupted():
        yield Q, adapter.read(Q)
        with pytest.raises(InputError, match="is there: another run writes it, or one was killed"):
            written(out, other)
        yield from ((module, adapter.read(module)) for module in adapter.modules if module != Q)

    first = write_adapter(out, interrupted(), shapes=adapter.shapes, rank=3, base_model=None)
    assert all(torch.equal(first.read(m).delta(), adapter.read(m).delta()) for m in adapter.modules)
    assert {path.name for path in out.iterdir()} == {CONFIG, WEIGHTS}


def test_a_run_that_ends_between_a_look_and_the_claim_is_not_written_over(tmp_path, monkeypatch):
    adapter, out = save_peft(tmp_path / "de", random_factors(1)), tmp_path / "out"
    make_folders = writing.make_folders

    def late(folder, undo):
        monkeypatch.setattr(writing, "make_folders", make_folders)
        written(folder, adapter)
        make_folders(folder, undo)

    monkeypatch.setattr(writing, "make_folders", late)
    with pytest.raises(InputError, match="holds an adapter already"):
        written(out, save_peft(tmp_path / "ja", random_factors(2)))
    assert {path.name for path in out.iterdir()} == {CONFIG, WEIGHTS}


@pytest.mark.parametrize("when", ["deltas", "texts"])
def test_a_killed_run_leaves_nothing_but_partial_files(when, tmp_path):
    program = """
import os, signal, sys
from pathlib import Path
from problems import random_factors, save_peft
from sabir.lora.write import write_adapter
folder, when = Path(sys.argv[1]), sys.argv[2]
adapter = save_peft(folder / "de", random_factors(1))
(folder / "tokenizer.json").write_text("{}")
def die(now):
    if now == when:
        os.kill(os.getpid(), signal.SIGKILL)
def lowranks():
    for module in adapter.modules:
        yield module, adapter.read(module)
    die("deltas")
def texts():
    yield "README.md", "x"
    die("texts")
write_adapter(folder / "out", lowranks(), shapes=adapter.shapes, rank=3, base_model=None,
              copies=[folder / "tokenizer.json"], texts=lambda: dict(texts()))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "x"), when]
    ran = subprocess.run(command, check=False, cwd=Path(__file__).parents[1])
    assert ran.returncode == -signal.SIGKILL
    out = tmp_path / "x" / "out"
    assert all(path.name.startswith(".") and path.suffix == ".partial" for path in out.iterdir())
    adapter = open_adapter(tmp_path / "x" / "de")
    with pytest.raises(InputError, match=r"safetensors\.partial: is there.* Remove it if none is at work"):
        written(out, adapter)
    (out / f".{WEIGHTS}.partial").unlink()
    again = written(out, adapter, copies=[tmp_path / "x" / "tokenizer.json"], texts=lambda: {"README.md": ""})
    assert {path.name for path in again.path.iterdir()} == {CONFIG, WEIGHTS, "README.md", "tokenizer.json"}


@pytest.mark.parametrize("below", ["sub", "deep/sub"])
def test_an_output_below_a_file_is_one_sentence(below, tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="the adapter could not be written: Not a directory"):
        written(tmp_path / "file" / below, adapter)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("call", ["mkdir", "touch", "exists", "rename", "unlink"])
def test_a_folder_without_permission_is_one_sentence(call, tmp_path, monkeypatch):
    adapter = save_peft(tmp_path / "de", random_factors(1))

    def refuses(*_, **__):
        raise PermissionError(13, "Permission denied")

    def fails():
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, call, refuses)
        with pytest.raises(StoreError, match=r"Permission denied|No space left on device"):
            written(tmp_path / "deep" / "out", adapter, texts=fails)
    if call != "unlink":
        assert not (tmp_path / "deep").exists()


def test_parents_that_were_made_go_again_and_others_stay(tmp_path):
    adapter = save_peft(tmp_path / "de", random_factors(1))
    (tmp_path / "old").mkdir()

    def fails():
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError):
        written(tmp_path / "old" / "a" / "b", adapter, texts=fails)
    assert list((tmp_path / "old").iterdir()) == []


@pytest.mark.parametrize("rank", [1, 8])  # padded, and not
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_merge_that_overflowed_is_not_written(rank, value, tmp_path):
    large, small = torch.full((4, rank), value), torch.ones(rank, 4)
    for side in (LowRank(large, small), LowRank(small.T, large.T)):
        for dtype in ("float32", "bfloat16", "float16"):
            with pytest.raises(InputError, match=r"the merge is too large for float32\. Lower the scale"):
                write_adapter(
                    tmp_path / "out",
                    [("m", side)],
                    shapes={"m": (4, 4)},
                    rank=rank,
                    base_model=None,
                    dtype=dtype,
                )
    assert not (tmp_path / "out").exists()


def test_an_embedding_and_conv1d_merge_end_to_end(tmp_path):
    generator = torch.Generator().manual_seed(0)
    weights, raws = {"de": 0.25, "ja": 2.0}, {}
    conv, table = "transformer.h.0.attn.c_attn", "transformer.wte"
    names = {
        conv: (f"base_model.model.{conv}.lora_B.weight", f"base_model.model.{conv}.lora_A.weight"),
        table: (f"base_model.model.{table}.lora_embedding_B", f"base_model.model.{table}.lora_embedding_A"),
    }
    for name in weights:
        raws[name] = {
            stored: torch.randn(shape, generator=generator)
            for module, (outputs, inputs) in {conv: (18, 6), table: (6, 40)}.items()
            for stored, shape in zip(names[module], ((outputs, 3), (3, inputs)), strict=True)
        }
        save_tensors(
            tmp_path / name,
            raws[name],
            r=3,
            lora_alpha=6,
            fan_in_fan_out=True,
            target_modules=["c_attn", "wte"],
            base_model_name_or_path="org/gpt",
            task_type="CAUSAL_LM",
        )
    folders = [tmp_path / name for name in weights]
    merge_folders(folders, out=tmp_path / "linear", method="linear", weights=weights)
    merge_folders(folders, out=tmp_path / "ties", method="ties", space="knots", weights=weights)
    for out in (tmp_path / "linear", tmp_path / "ties"):
        config, stored = json.loads((out / CONFIG).read_text()), load_file(out / WEIGHTS)
        assert config["target_modules"] == ["c_attn", "wte"]
        assert (config["r"], config["lora_alpha"], config["fan_in_fan_out"]) == (8, 8, True)
        assert config["base_model_name_or_path"] == "org/gpt"
        assert {name: tuple(values.shape) for name, values in stored.items()} == {
            names[conv][0]: (18, 8),
            names[conv][1]: (8, 6),
            names[table][0]: (6, 8),
            names[table][1]: (8, 40),
        }
        merged = open_adapter(out)
        check_supported(merged)
        assert merged.embeddings == {table}
    stored = load_file(tmp_path / "linear" / WEIGHTS)
    for b, a in names.values():
        expected = sum(
            2.0 * weights[name] * raws[name][b].double() @ raws[name][a].double() for name in weights
        )
        torch.testing.assert_close(stored[b].double() @ stored[a].double(), expected, rtol=1e-4, atol=1e-4)
