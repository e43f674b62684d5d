"""What is said about a config that cannot be: where, what, what to do; all of it at once."""

from __future__ import annotations

import pytest
from config_texts import MINIMAL

from sabir.config import (
    load_config,
)
from sabir.errors import InputError


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "merge: {}",
            "line 6: merge: no such setting. A config takes: base, task, data, tasks, lora, update, baseline, "
            "merges, select, gate, serve, prices, run, evaluate, rivals, ensemble, estimate, seeds. "
            "Did you mean 'merges'?",
        ),
        (
            "lora:\n  rnk: 3",
            "line 7: lora.rnk: no such setting. 'lora' takes: rank, alpha, targets, dropout, rslora, "
            "epochs, learning_rate, batch_size, max_length, seed, warmup, schedule, weight_decay. "
            "Did you mean 'rank'?",
        ),
        (
            "select: {bye: x}",
            "line 6: select.bye: no such setting. 'select' takes: by, metric. Did you mean 'by'?",
        ),
        (
            "gate: {maxdrop: 0.1}",
            "line 6: gate.maxdrop: no such setting. 'gate' takes: max_drop, undecided, incumbent. "
            "Did you mean 'max_drop'?",
        ),
        (
            "update: {epoch: 1}",
            "line 6: update.epoch: no such setting. 'update' takes: mode, replay, epochs, learning_rate. "
            "Did you mean 'epochs'?",
        ),
        (
            "serve: {dir: x}",
            "line 6: serve.dir: no such setting. 'serve' takes: folder, form.",
        ),
        (
            "prices: {usd: 1}",
            "line 6: prices.usd: no such setting. 'prices' takes: usd_per_hour, usd_per_label.",
        ),
        (
            "run: {worker: 1}",
            "line 6: run.worker: no such setting. 'run' takes: backend, workers, device, store, "
            "micro_batch, address, memory_gib. Did you mean 'workers'?",
        ),
        (
            "evaluate: {levels: 1}",
            "line 6: evaluate.levels: no such setting. 'evaluate' takes: batch_size, level, resamples, "
            "max_unscored, generator, encoder, encoder_layer. Did you mean 'level'?",
        ),
        (
            "merges:\n  a: average\n  dare:\n    method: dare\n    densty: 0.2",
            "line 10: merges.dare.densty: no such setting. 'dare' takes: density, scale, seed. "
            "Did you mean 'density'?",
        ),
        (
            "merges: {t: {method: ties, weights: {dee: 1}}}",
            "line 6: merges.t.weights.dee: no such setting. 'weights' takes: de, en. Did you mean 'de'?",
        ),
        (
            "  ja: {fille: data/fr.jsonl, file: data/fr.jsonl}",
            "line 6: data.ja.fille: no such setting. A language "
            "takes: folder, file, train, valid, test, hub, subset, revision, adapter, fields, lora, update. "
            "Did you mean 'file'?",
        ),
        (
            "  ja: {file: data/fr.jsonl, update: {reply: 0.2}}",
            "line 6: data.ja.update.reply: no such setting. 'update' "
            "takes: mode, replay, epochs, learning_rate. Did you mean 'replay'?",
        ),
        (
            "  ja: {file: data/fr.jsonl, lora: {epoch: 1}}",
            "line 6: data.ja.lora.epoch: no such setting. 'lora' takes: "
            "rank, alpha, targets, dropout, rslora, epochs, learning_rate, batch_size, max_length, seed, "
            "warmup, schedule, weight_decay. Did you mean 'epochs'?",
        ),
        (
            "  ja: {file: data/fr.jsonl, fields: {inputs: x}}",
            "line 6: data.ja.fields.inputs: no such setting. 'fields' "
            "takes: input, output, id, instruction, domain, choices, group. Did you mean 'input'?",
        ),
    ],
)
def test_unknown_keys_are_refused_at_every_level_with_line_and_suggestion(refusals, text, sentence):
    assert refusals(f"{MINIMAL}{text}\n") == [f"config.yaml, {sentence}"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "lora: {rank: '16'}",
            "lora.rank: '16' is not a whole number of at least 1. Write 16 without quotes.",
        ),
        ("lora: {rank: 16.0}", "lora.rank: 16.0 is not a whole number of at least 1."),
        ("lora: {rank: true}", "lora.rank: true is not a whole number of at least 1."),
        ("lora: {rank: 0}", "lora.rank: 0 is not a whole number of at least 1."),
        ("lora: {rank: }", "lora.rank: no value is given. Expected a whole number of at least 1."),
        (
            "lora: {max_length: 1_000}",
            "lora.max_length: '1_000' is not a whole number of at least 1. Write 1000.",
        ),
        ("lora: {alpha: 0}", "lora.alpha: 0 is not a number above 0."),
        ("lora: {dropout: 1}", "lora.dropout: 1 is not a number of at least 0 and below 1."),
        (
            "lora: {dropout: '0,1'}",
            "lora.dropout: '0,1' is not a number of at least 0 and below 1. Write 0.1.",
        ),
        ("lora: {warmup: 3}", "lora.warmup: 3 is not a number of at least 0 and below 1."),
        ("lora: {rslora: yes}", "lora.rslora: 'yes' is not true or false. Write true."),
        (
            "lora: {schedule: cosin}",
            "lora.schedule: 'cosin' is not 'linear', 'cosine' or 'constant'. Did you mean 'cosine'?",
        ),
        ("lora: {targets: []}", "lora.targets: [] is not 'all-linear' or a non-empty list of texts."),
        ("lora: {targets: all}", "lora.targets: 'all' is not 'all-linear' or a non-empty list of texts."),
        ("lora: {epochs: -1}", "lora.epochs: -1 is not a number above 0."),
        ("lora: 3", "lora: 3 is not a mapping. Expected `key: value` pairs here."),
        ("lora: {alpha: .nan}", "lora.alpha: nan is not a number to compute with. Write a finite one."),
        (
            "baseline: combine",
            "baseline: 'combine' is not 'none', 'combined' or 'continued'. Did you mean 'combined'?",
        ),
        ("baseline: ~", "baseline: no value is given. Expected 'none', 'combined' or 'continued'."),
        ("update: contine", "update: 'contine' is not 'scratch' or 'continue'. Did you mean 'continue'?"),
        ("update: {mode: yes}", "update.mode: 'yes' is not 'scratch' or 'continue'."),
        ("update: {replay: 1.5}", "update.replay: 1.5 is not a number from 0 to 1."),
        ("update: {epochs: 0}", "update.epochs: 0 is not a number above 0."),
        ("update: {learning_rate: fast}", "update.learning_rate: 'fast' is not a number above 0."),
        ("update: 3", "update: 3 is not a mapping. Expected `key: value` pairs here."),
        ("serve: {form: gguf}", "serve.form: 'gguf' is not 'adapter' or 'model'."),
        ("serve: {folder: 3}", "serve.folder: 3 is not a path. Put it in quotes: '3'."),
        ("gate: {incumbent: 3}", "gate.incumbent: 3 is not a path. Put it in quotes: '3'."),
        ("gate: {max_drop: 2}", "gate.max_drop: 2 is not a number from 0 to 1."),
        ("gate: {undecided: fail}", "gate.undecided: 'fail' is not 'pass' or 'refuse'."),
        ("select: {by: mean}", "select.by: 'mean' is not 'macro_mean'."),
        ("select: {metric: 3}", "select.metric: 3 is not a text. Put it in quotes: '3'."),
        ("prices: {usd_per_hour: 0}", "prices.usd_per_hour: 0 is not a number above 0."),
        ("prices: {usd_per_hour: cheap}", "prices.usd_per_hour: 'cheap' is not a number above 0."),
        ("run: {backend: rey}", "run.backend: 'rey' is not 'local', 'inline' or 'ray'. Did you mean 'ray'?"),
        ("run: {memory_gib: 0}", "run.memory_gib: 0 is not a number above 0."),
        ("run: {workers: 0}", "run.workers: 0 is not a whole number of at least 1."),
        ("run: {device: gpu}", "run.device: 'gpu' is not 'auto', 'cpu' or 'cuda'. Write cuda."),
        ("run: {store: 3}", "run.store: 3 is not a path. Put it in quotes: '3'."),
        ("evaluate: {level: 95}", "evaluate.level: 95 is not a number above 0 and below 1."),
    ],
)
def test_wrong_values_are_refused_with_what_was_expected(refusals, text, sentence):
    assert refusals(f"{MINIMAL}{text}\n") == [f"config.yaml, line 6: {sentence}"]


@pytest.mark.parametrize(
    ("base", "what"),
    [
        ("embeded", "Did you mean 'embedded'?"),
        ("gpt2", "neither a folder nor a hub name"),
        ("./nowhere", "'./nowhere' is no folder"),
        ("a/b/c", "neither a folder nor a hub name"),
        ("3", "3 is not a non-empty text. Put it in quotes: '3'."),
    ],
)
def test_a_base_that_is_neither_folder_nor_hub_name_is_refused(refusals, base, what):
    (sentence,) = refusals(MINIMAL.replace("embedded", base))
    assert sentence.startswith("config.yaml, line 1: base: ")
    assert what in sentence


def test_what_is_missing_is_named(refusals):
    assert [sentence.split(". Write")[0] for sentence in refusals("baseline: none\n")] == [
        "config.yaml: base: it is missing",
        "config.yaml: task: it is missing",
        "config.yaml: data: it is missing",
    ]
    assert len(refusals("base:\ntask:\ndata:\n")) == 3
    assert "there is no language" in refusals(MINIMAL.split("data:")[0] + "data: {}\n")[0]


def test_everything_wrong_is_told_at_once(refusals):
    told = refusals(
        "base: embeded\ntask: {name: classification, label: [a]}\ndata:\n  DE: data/nowhere\n"
        "lora: {rank: x, alfa: 3}\nbaseline: all\nmerges:\n  a: {method: dare, densty: 0.1, scale: big}\n"
        "gate: {max_drop: 7}\nrum: {}\n"
    )
    places = {sentence.split(": ")[1] for sentence in told}
    assert places == {
        "rum",
        "base",
        "task.label",
        "task.labels",
        "data.DE",
        "lora.rank",
        "lora.alfa",
        "baseline",
        "merges.a.densty",
        "merges.a.scale",
        "gate.max_drop",
    }
    assert len(told) == 12  # data.DE twice: its name and its folder
    in_file = [sentence for sentence in told if ", line " in sentence]
    assert in_file == sorted(in_file, key=lambda sentence: int(sentence.split("line ")[1].split(":")[0]))


def test_duplicate_keys_are_refused_with_both_lines(refusals):
    (sentence,) = refusals(f"{MINIMAL}  de: data/no\n")
    assert sentence.startswith("config.yaml, line 6: data.de stands here and in line 4 already.")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("lora.epoch=5", "--set lora.epoch: no such setting."),
        ("lora.epochs=many", "--set lora.epochs: 'many' is not a number above 0."),
        ("nothing.at.all=5", "config.yaml: nothing: no such setting."),
        ("lora={epoch: 5}", "--set lora: lora.epoch: no such setting."),
        (
            "data.de.lora.epochs=5",
            "--set data.de.lora.epochs: data.de is 'data/de' in config.yaml, not a mapping.",
        ),
        ("lora.epochs", "--set lora.epochs: there is no value. Write key=value, such as lora.epochs=5."),
        ("=5", "--set =5: '' is no key."),
        ("lora..rank=5", "--set lora..rank=5: 'lora..rank' is no key."),
        ("lora.rank=[1", "--set lora.rank, line 1: not valid YAML"),
        ("data.de=data/nowhere", "--set data.de: 'data/nowhere' is neither a folder nor"),
    ],
)
def test_wrong_settings_from_the_command_line_are_named_as_such(refusals, override, sentence):
    (told,) = refusals(MINIMAL, override)
    assert told.startswith(sentence)


def test_a_missing_config_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"there is no such file\. `sabir init` writes one"):
        load_config(tmp_path / "config.yaml")
