"""The command line from outside: documents on standard output, sentences on standard error, exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys

import pytest

from problems import random_factors, save_peft
from sabir import __version__
from small_project import settings, write_config, write_language, write_project

PROJECT = (
    *("check", "plan", "run", "show", "predict", "promote", "rollback", "releases", "blame", "export"),
    *("why", "gc", "verify", "forget"),
)
VERBS = ("demo", "init", "check", "plan", "run", "show", "predict", "merge", "list")


@pytest.fixture
def config(tmp_path):
    return write_project(tmp_path, ("en", "de"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project that has run, with one merge and no baseline."""
    from sabir import Project

    folder = tmp_path_factory.mktemp("finished")
    for language in ("en", "de"):
        write_language(folder, language, train=8, valid=2, test=2)
    merges = {"average": {"method": "linear"}}
    config = write_config(folder, settings(("en", "de"), merges=merges, baseline="none"))
    Project(config, overrides=["run.backend=inline"]).run()
    return config


def shell(command: str, **environment: str) -> subprocess.CompletedProcess:
    sabir = f"{sys.executable} -c 'from sabir.cli import main; main()'"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.replace("SABIR", sabir)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def test_the_verbs_stand_in_the_help_in_the_order_of_the_work(sabir):
    code, out, _ = sabir("--help")
    assert code == 0
    listed = re.findall(r"^\W+(\w+)  ", out[out.index("Commands") :], flags=re.MULTILINE)
    assert tuple(word for word in listed if word in VERBS) == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(sabir, verb):
    code, out, _ = sabir(verb, "--help")
    assert code == 0
    assert "Usage: sabir " + verb in out


def test_the_baselines_option_is_explained(sabir):
    assert "the old one stands in" in " ".join(sabir("run", "--help")[1].replace("│", " ").split())


def test_it_says_its_version(sabir):
    assert sabir("--version")[:2] == (0, f"sabir {__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [["frob"], ["run"], ["run", "x.yaml", "--frob"], ["merge", "a"], ["run", "x.yaml", "--workers", "0"]],
)
def test_wrong_usage_exits_2_with_a_sentence(sabir, arguments):
    code, out, err = sabir(*arguments)
    assert (code, out) == (2, "")
    assert err
    code, out, _ = sabir(*arguments, "--json")
    assert code == 2
    assert json.loads(out)["error"]["message"]


@pytest.mark.parametrize("verb", ["check", "plan", "run", "show", "predict"])
def test_an_error_is_a_sentence_and_with_json_a_document_too(sabir, tmp_path, verb):
    extra = ["text"] if verb == "predict" else []
    code, out, err = sabir(verb, tmp_path / "none.yaml", *extra)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    code, out, again = sabir(verb, tmp_path / "none.yaml", *extra, "--json")
    assert (code, again) == (2, err)
    assert set(json.loads(out)["error"]) == {"kind", "where", "message", "fix"}
    assert json.loads(out)["error"]["kind"] == "input"


def test_several_errors_are_all_in_the_document(sabir, config):
    config.write_text(config.read_text("utf-8") + "frob: 1\nbrob: 2\n", encoding="utf-8")
    code, out, err = sabir("check", config, "--json")
    assert code == 2
    assert len(json.loads(out)["errors"]) == len(err.splitlines()) == 2


def test_what_init_writes_is_read_and_only_lacks_the_data(sabir, tmp_path):
    code, out, _ = sabir("init", tmp_path / "new")
    assert code == 0
    path = tmp_path / "new" / "sabir.yaml"
    assert str(path) in out
    assert sabir("init", tmp_path / "new")[0] == 2
    code, _, err = sabir("check", path)
    assert code == 2
    assert all("'data/" in line and "Looked for" in line for line in err.splitlines())
    from sabir.demo.texts import splits

    for language in ("en", "de"):
        for split, messages in splits(language, train=8, valid=4, test=4, seed=0).items():
            file = path.parent / "data" / language / f"{split}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            rows = [
                {"input": one.text, "output": ["negative", "positive"][i % 2]}
                for i, one in enumerate(messages)
            ]
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    code, out, err = sabir("check", path)
    assert code == 0, err
    assert "is fine" in out


def test_check_counts_the_rows(sabir, config):
    code, out, err = sabir("check", config)
    assert code == 0
    assert "en: 24 train, 6 valid, 6 test rows" in out
    assert err.startswith("warning: data: few rows")
    document = json.loads(sabir("check", config, "--json")[1])
    assert document["rows"]["de"] == {"train": 24, "valid": 6, "test": 6}


def test_plan_says_what_would_run_in_a_few_lines(sabir, tmp_path):
    grid = {"grid": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]}
    merges = {"ties": {"method": "ties", "density": grid, "scale": {"grid": [0.5, 1.0]}}}
    config = write_project(tmp_path, ("en", "de", "fr"), merges=merges)
    document = json.loads(sabir("plan", config, "--json")[1])
    assert len(document["steps"]) > 150
    code, out, _ = sabir("plan", config)
    assert code == 0
    assert len(out.splitlines()) < 20
    assert "adapter/de" in out
    assert "ties x 20" in out
    assert f"{len(document['steps'])} steps to run, 0 reused." in out
    assert "is not known yet" in out
    assert not (tmp_path / ".sabir" / "steps").exists()


def test_show_before_any_run_says_so(sabir, config):
    code, out, _ = sabir("show", config)
    assert (code, out) == (0, f"Nothing has been run yet. Start with: sabir run {config}\n")


def test_show_prints_quality_time_and_what_is_open(sabir, finished):
    code, out, err = sabir("show", finished)
    assert (code, err) == (0, "")
    assert "each language's own adapter" in out
    assert "merged/average  <- selected" in out
    assert "device h" in out
    assert "No price is set" in out
    assert "missing or out of date" not in out
    out = sabir("show", finished, "--set", "lora.epochs=2")[1]
    assert "steps are missing or out of date. See why: sabir plan" in out


@pytest.mark.parametrize("arguments", [["--scores"], ["--steps"], ["--compare", "merged/average", "base"]])
def test_show_has_a_table_for_every_question(sabir, finished, arguments):
    code, out, _ = sabir("show", finished, *arguments)
    assert code == 0
    assert len(out.splitlines()) > 4


def test_one_metric_is_shown_by_itself(sabir, finished):
    out = sabir("show", finished, "--scores", "--metric", "macro_f1")[1]
    assert "macro_f1" in out
    assert "macro_recall" not in out
    out = sabir("show", finished, "--metric", "macro_f1")[1]
    assert out.startswith("Quality: macro f1")
    assert "device h" not in out, "only the table that was asked for"
    code, _, err = sabir("show", finished, "--metric", "macrof1")
    assert code == 2
    assert "Did you mean 'macro_f1'?" in err


def test_scores_and_comparisons_are_rows_for_other_programs_too(sabir, finished):
    document = json.loads(sabir("show", finished, "--json")[1])
    lines = sabir("show", finished, "--scores", "--csv")[1].splitlines()
    assert len(lines) == 1 + len(document["scores"])
    assert lines[0].startswith("task,model,language,split,metric,value")
    lines = sabir("show", finished, "--scores", "--metric", "accuracy", "--csv")[1].splitlines()
    assert len(lines) == 1 + sum(row["metric"] == "accuracy" for row in document["scores"])
    compared = ("show", finished, "--compare", "merged/average", "base")
    rows = json.loads(sabir(*compared, "--json")[1])["comparisons"]
    lines = sabir(*compared, "--csv")[1].splitlines()
    assert len(lines) == 1 + len(rows)
    assert all(line.startswith("merged/average,base,") for line in lines[1:])


@pytest.mark.parametrize(
    ("arguments", "heads"),
    [
        ([], ["| model |", "| run |", "Advice:"]),
        (["--scores"], ["| model | language | metric |"]),
        (["--compare", "merged/average", "base"], ["| a | b | language |"]),
        (["--steps", "--costs"], ["| step |", "| run |"]),
        (["--changes"], []),
    ],
)
def test_tables_come_as_markdown(sabir, finished, arguments, heads):
    code, out, err = sabir("show", finished, *arguments, "--markdown")
    assert (code, err) == (0, "")
    assert [sum(line.startswith(head) for line in out.splitlines()) for head in heads] == [1] * len(heads)
    assert "─" not in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--csv", "--json", "--scores"], "--csv: and --json are two forms of one thing."),
        (["--markdown", "--json"], "--markdown: and --json are two forms of one thing."),
        (["--csv"], "--csv: goes with one of --scores, --compare and --costs."),
        (["--csv", "--scores", "--costs"], "--csv: goes with one of --scores, --compare and --costs."),
        (
            ["--metric", "accuracy", "--costs"],
            "--metric: goes with --scores, --compare, or the table of quality.",
        ),
        (["--since", "1"], "--since: goes with --costs."),
    ],
)
def test_forms_and_options_that_do_not_go_together_are_refused(sabir, finished, arguments, sentence):
    code, _, err = sabir("show", finished, *arguments)
    assert code == 2
    assert err.startswith(sentence)


@pytest.mark.parametrize("verb", PROJECT)
def test_every_verb_of_a_project_can_be_allowed_to_run_code_of_the_users_own(sabir, config, verb):
    (config.parent / f"asked_by_{verb}.py").write_text("1 / 0\n", encoding="utf-8")
    needed = {"blame": ("1", "de"), "why": ("data/de",), "export": ("--out", "x"), "predict": ("x",)}
    own = ("--set", f"task={{name: 'asked_by_{verb}:task'}}")
    code, _, err = sabir(verb, config, *needed.get(verb, ()), *own)
    assert code == 2
    assert "which is not run unasked. If you trust it: --allow-code" in err
    code, _, err = sabir(verb, config, *needed.get(verb, ()), *own, "--allow-code")
    assert code == 2
    assert "cannot be imported (ZeroDivisionError: division by zero)" in err, "it was run"


@pytest.mark.parametrize("verb", ["check", "plan", "show", "run"])
def test_json_is_one_document_and_nothing_else(sabir, finished, verb):
    code, out, _ = sabir(verb, finished, "--json")
    assert code == 0
    assert isinstance(json.loads(out), dict)


def test_a_run_with_nothing_to_do_says_so(sabir, finished):
    assert sabir("run", finished)[1].startswith("Nothing to do: everything is up to date.")


def test_predict_takes_arguments_a_file_and_standard_input(sabir, finished, tmp_path):
    texts = ["wo ist mein Paket", "die Karte geht nicht"]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    by_argument = sabir("predict", finished, *texts)
    assert by_argument[0] == 0
    assert len(by_argument[1].splitlines()) == 2
    assert set(by_argument[1].splitlines()) <= {"delivery", "payment"}
    assert sabir("predict", finished, "--file", tmp_path / "texts.txt")[1] == by_argument[1]
    assert sabir("predict", finished, stdin="\n".join(texts))[1] == by_argument[1]
    document = json.loads(sabir("predict", finished, *texts, "--json")[1])
    assert [answer["input"] for answer in document["predictions"]] == texts


def test_predict_without_text_or_without_a_run_is_refused(sabir, finished, config):
    code, out, err = sabir("predict", finished)
    assert (code, out) == (2, "")
    assert err == "predict: there is no text. Give one as an argument, or one a line.\n"
    code, out, err = sabir("predict", finished, "fine", "")
    assert (code, out, err) == (2, "", "text 2: there is no text in it. Give one, or leave it out.\n")
    code, _, err = sabir("predict", config, "text", "--set", "merges={}")
    assert code == 2
    assert "no release is in use, and there is no merge that could stand in for one. Add one" in err
    code, _, err = sabir("predict", config, "text")
    assert code == 2
    assert "no merge of today's data is selected yet" in err
    assert sabir("predict", finished, "--file", config.parent / "none.txt")[0] == 2


@pytest.mark.parametrize("what", ["methods", "spaces", "recipes", "tasks", "metrics", "backends"])
def test_list_shows_every_kind(sabir, what):
    code, out, _ = sabir("list", what)
    assert code == 0
    entries = json.loads(sabir("list", what, "--json")[1])[what]
    assert entries
    for entry in entries:
        assert {"name", "summary", "settings", "source"} <= {*entry}
        assert entry["name"] in out


def test_list_of_nothing_known_names_what_there_is(sabir):
    code, _, err = sabir("list", "method")
    assert code == 2
    assert "Did you mean 'methods'?" in err


def test_merge_writes_an_adapter_and_its_document(sabir, tmp_path):
    for seed, name in enumerate(("a", "b")):
        save_peft(tmp_path / name, random_factors(seed))
    merged = ("merge", tmp_path / "a", tmp_path / "b", "--recipe", "ties-knots")
    code, out, err = sabir(*merged, "--out", tmp_path / "one", "--weights", "1,2")
    assert (code, err) == (0, "")
    assert out.startswith(f"Wrote {tmp_path}/one: rank ")
    document = json.loads(sabir(*merged, "--out", tmp_path / "two", "--json")[1])
    assert {"out", "rank", "modules", "parameters", "energy_kept", "wall_s", "peak_bytes"} <= {*document}
    assert set(document["energy_kept_by_adapter"]) == {"a", "b"}
    assert {"path", "digest"} == {*document["adapters"][0]}
    assert sabir(*merged, "--out", tmp_path / "three", "--weights", "1,x")[0] == 2
    assert sabir(*merged, "--out", tmp_path / "one")[0] == 2


@pytest.fixture
def two(tmp_path):
    for seed, name in enumerate(("de", "fr")):
        save_peft(tmp_path / name, random_factors(seed))
    return tmp_path / "de", tmp_path / "fr"


def test_merge_takes_settings_by_module_and_weights_by_name(sabir, two, tmp_path):
    code, out, err = sabir(
        *("merge", *two, "--method", "ties", "--rank", "4", "--out", tmp_path / "out", "--json"),
        *("--set", "density={depth: [0.2, 0.8]}", "--set", "trim_over=module", "--weights", "fr=2,de=0.5"),
    )
    assert code == 0, err
    recipe = json.loads(out)["recipe"]
    assert recipe["settings"]["density"] == {"depth": [0.2, 0.8]}
    assert recipe["weights"] == {"de": 0.5, "fr": 2.0}
    assert recipe["rank"] == 4
    by_module = ("merge", *two, "--recipe", "average", "--out", tmp_path / "two", "--json")
    code, out, err = sabir(*by_module, "--set", "weights={de: {depth: [0.2, 1.0]}, fr: 1}")
    assert code == 0, err
    assert json.loads(out)["recipe"]["weights"] == {"de": {"depth": [0.2, 1.0]}, "fr": 1.0}


def test_merge_says_on_standard_error_what_a_user_should_know(sabir, two, tmp_path):
    code, out, err = sabir(
        "merge", two[0], two[0], "--method", "ties", "--rank", "1", "--out", tmp_path / "out"
    )
    assert code == 0
    assert "warning: 'de' and 'de#2' are the same adapter: it counts twice." in err
    assert "warning: Rank 8 keeps" not in err + out  # padding is no rank
    assert re.search(r"warning: Rank 1 keeps 0\.\d+ of the merge's energy \(de 0\.\d+, de#2 0\.\d+\)\.", err)
    assert "warning" not in out


def test_merge_analyzes_without_writing_and_with(sabir, two, tmp_path):
    code, out, _ = sabir("merge", *two, "--analyze")
    assert code == 0
    assert "Cosines" in out
    assert "Energy kept by rank" in out
    assert json.loads(sabir("merge", *two, "--analyze", "--json")[1])["analysis"]["pairs"]
    both = json.loads(
        sabir("merge", *two, "--analyze", "--recipe", "ties-core", "--out", tmp_path / "out", "--json")[1]
    )
    assert both["analysis"]["pairs"]
    assert both["rank"] == 8
    assert sabir("merge", *two)[0] == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--recipe", "tsv", "--space", "knots"], "Leave the space out"),
        (["--recipe", "ties-knotz"], "Did you mean 'ties-knots'?"),
        (["--method", "ties", "--set", "densty=0.2"], "densty: no such setting."),
        (["--method", "ties", "--set", "density=0.2", "--density", "0.3"], "is given twice."),
        (["--method", "ties", "--density", "0"], "expected a share above 0, at most 1, got 0.0."),
        (["--method", "ties", "--weights", "1,2,3"], "there are 3 for 2 adapters."),
        (["--method", "ties", "--weights", "it=1"], "no such adapter."),
        (["--method", "ties", "--set", "weights=3"], "expected a list or a mapping, got 3."),
        (["--method", "ties", "--weights", "de=1,de=2"], "names an adapter twice."),
        (["--recipe", "paper-eight"], "is a preset of several merges"),
        (["--method", "ties", "--dialect", "pfet"], "Did you mean 'peft'?"),
        (["--method", "linear", "--rank", "fold"], "Give its folder: --base DIR."),
        (["--method", "linear", "--base", "nowhere"], "is no model folder"),
        (["--method", "ties", "--recipe", "ties"], "one of the two"),
        (["--recipe", "ties", "--rank", "exact"], "has full rank"),
    ],
)
def test_a_merge_that_cannot_be_is_one_sentence_and_leaves_nothing(sabir, two, tmp_path, arguments, sentence):
    code, out, err = sabir("merge", *two, *arguments, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_reader_that_has_seen_enough_is_no_error(finished):
    for command in (f"SABIR show {finished} --json | head -1", "SABIR list metrics | head -1"):
        done = shell(command)
        assert (done.returncode, done.stderr) == (0, "")


def test_no_color_is_respected_and_pipes_get_plain_text(finished):
    assert "\x1b" not in shell(f"SABIR show {finished}").stdout
    command = f'script -qec "SABIR show {finished}" /dev/null'
    if shell("command -v script").returncode:
        pytest.skip("there is no `script` to stand for a terminal")
    assert "\x1b[1;32m" in shell(command, TERM="xterm-256color").stdout
    assert "32m" not in shell(command, TERM="xterm-256color", NO_COLOR="1").stdout


def test_a_merge_counts_its_modules_on_the_terminal_it_has(monkeypatch):
    from sabir import progress

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        count = progress.module_count("merging", stream)
        count(1, 2)
        monkeypatch.setattr(progress.time, "monotonic", lambda: 1e9)  # long after
        count(2, 2)
        monkeypatch.undo()
    assert "reading the adapters" in terminal.getvalue()
    assert terminal.getvalue().endswith("module 2 of 2\n")
    assert pipe.getvalue() == "merging: module 2 of 2\n"


def test_a_disk_that_fills_up_leaves_nothing_of_a_merge(two, tmp_path):
    done = shell(f"ulimit -f 1; SABIR merge {two[0]} {two[1]} --recipe ties-knots --out {tmp_path / 'out'}")
    assert done.returncode == 2
    assert "the adapter could not be written" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_merge_that_is_interrupted_says_that_nothing_was_written_and_once(
    sabir, two, tmp_path, monkeypatch
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("sabir.work.merge.merge_into", interrupted)
    code, out, err = sabir("merge", *two, "--recipe", "average", "--out", tmp_path / "out")
    assert (code, out, err) == (130, "", "stopped; nothing was written.\n")
