"""The verbs that judge without labels: what they ask of the project, what they print, how they end."""

from __future__ import annotations

import json

import pytest

from sabir.errors import InputError

ROW = {
    "language": "de",
    "domain": "books",
    "window": "",
    "estimator": "calibrated-disagreement",
    "error": 0.21,
    "low": 0.16,
    "high": 0.26,
    "level": 0.9,
    "n": 500,
    "n_labelled": 0,
    "budget": 0.15,
    "alarm": True,
    "flags": ["extrapolating: more disagreement than any labelled segment"],
    "raw": 0.3,
    "disagreement_reference": 0.1,
    "drift_p": 0.001,
    "weight": 500.0,
    "how": "regression-t over 5 labelled segments",
}
ADVICE = {
    "action": "retrain",
    "language": "de",
    "p_over_budget": 0.97,
    "expected_gain": 0.02,
    "estimated_usd": 1.5,
    "estimated_device_s": 3600.0,
    "labels": 0,
    "why": "it is over its budget",
}
ESTIMATED = {
    "release": "3",
    "model": "merged/ties",
    "members": {"kind": "adapters", "names": ["adapter/en", "adapter/de"], "n": 2},
    "estimator": "calibrated-disagreement",
    "level": 0.9,
    "estimates": [ROW, {**ROW, "language": "en", "error": 0.1, "low": 0.05, "high": 0.14, "alarm": False}],
    "advice": [ADVICE],
    "history": [
        {**ROW, "window": "2026-W46", "created": "2026-11-15", "release": "2", "model": "merged/ties"}
    ],
    "warnings": [],
}
WEEKS = {**ESTIMATED, "estimates": [{**row, "window": "2026-W47"} for row in ESTIMATED["estimates"]]}
BACKTEST = {
    "model": "merged/ties",
    "level": 0.9,
    "segments": [
        {
            **{"language": "de", "domain": "books", "estimator": "constant", "members": None},
            **{"estimated": 0.123, "true": 0.321, "low": 0.1, "high": 0.2, "n": 500},
            **{"fold": "language", "labels": 0, "metric": "error", "near_chance": False},
        }
    ],
    "summary": [
        {
            **{"estimator": "constant", "members": None, "mae": 0.034, "mae_low": 0.02, "mae_high": 0.05},
            **{"noise_floor": 0.01, "coverage": 0.9, "intervals": 1, "spearman": None, "regret": 0.0},
            **{"better_than_silver": None, "better_than_silver_low": None, "better_than_silver_high": None},
            **dict.fromkeys(("against_constant", "against_raw", "against_silver")),
            **{"near_chance": 0, "n": 1, "told": 1, "fold": "language", "labels": 0, "metric": "error"},
        }
    ],
    "best": {"estimator": "constant", "members": None, "why": "Nothing beats it here."},
    "warnings": [],
}


@pytest.fixture
def project(monkeypatch):
    """A project that keeps what it is asked and gives what is set as its `document`."""

    class Stub:
        document = ESTIMATED
        opened: tuple = ()
        asked: dict = {}  # noqa: RUF012
        warnings = ()

        def __init__(self, config, **more):
            Stub.opened = (str(config), more)

        def estimate(self, production, *, warn, agree, listener, **more):
            for warning in Stub.warnings:
                warn(warning)
            Stub.asked = {"production": str(production), "agreed": agree("It costs 2 USD."), **more}
            return Stub.document

        def backtest(self, *, warn, agree, listener, **more):
            Stub.asked = {"agreed": agree("It costs 2 USD."), **more}
            return BACKTEST

    monkeypatch.setattr("sabir.project.Project", Stub)
    return Stub


def test_without_options_nothing_is_set_and_nothing_is_agreed_to(sabir, project):
    code, out, err = sabir("estimate", "a.yaml", "texts.jsonl")
    assert (code, err) == (0, "")
    assert project.opened[0] == "a.yaml"
    assert project.asked == {
        "production": "texts.jsonl",
        "agreed": False,
        **dict.fromkeys(("labels", "choose", "out", "model", "members", "estimator", "window", "workers")),
    }
    assert "Estimated error of release 3 (merged/ties)" in out
    assert "0.210 [0.160, 0.260]" in out
    assert "ALARM" in out
    assert "What to do first" in out


def test_every_option_reaches_the_project(sabir, project, tmp_path):
    given = ["--labels", "l.csv", "--choose", 200, "--out", tmp_path / "c.jsonl", "--model", "own"]
    given += ["--members", "seeds", "--estimator", "atc", "--window", "week", "--workers", 2, "--yes"]
    code, out, _ = sabir(
        "estimate", "a.yaml", "t.csv", *given, "--set", "estimate.level=0.95", "--task", "topic"
    )
    assert code == 0
    told = {key: str(value) if key in ("labels", "out") else value for key, value in project.asked.items()}
    assert told == {
        "production": "t.csv",
        "agreed": True,
        "labels": "l.csv",
        "choose": 200,
        "out": str(tmp_path / "c.jsonl"),
        "model": "own",
        "members": "seeds",
        "estimator": "atc",
        "window": "week",
        "workers": 2,
    }
    assert project.opened[1] == {"overrides": ["estimate.level=0.95"], "allow_code": False, "task": "topic"}
    assert f"Wrote {tmp_path / 'c.jsonl'}. Fill in the empty `output` of each text, then add: --labels" in out


def test_json_is_the_document_and_nothing_else(sabir, project, tmp_path):
    more = ("--choose", 5, "--out", tmp_path / "c.jsonl")
    for arguments in (("estimate", "a.yaml", "t.jsonl"), ("estimate", "a.yaml", "t.jsonl", *more)):
        code, out, err = sabir(*arguments, "--json")
        assert (code, err) == (0, "")
        assert json.loads(out) == ESTIMATED
    assert json.loads(sabir("backtest", "a.yaml", "--json")[1]) == BACKTEST


def test_warnings_go_to_standard_error(sabir, project):
    project.warnings = ("texts.jsonl: 3 texts are the same as another.",)
    code, out, err = sabir("estimate", "a.yaml", "t.jsonl", "--json")
    assert err == "warning: texts.jsonl: 3 texts are the same as another.\n"
    assert json.loads(out) == ESTIMATED
    assert code == 0


def test_earlier_windows_are_shown_when_asked_for(sabir, project):
    project.document = WEEKS
    assert "Error over time" not in sabir("estimate", "a.yaml", "t.jsonl")[1]
    assert "Error over time: 2026-W46 to 2026-W47" in sabir("estimate", "a.yaml", "t.jsonl", "--history")[1]
    assert json.loads(sabir("estimate", "a.yaml", "t.jsonl", "--json")[1])["history"], (
        "programs get it anyway"
    )


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_an_alarm_is_no_error_unless_it_shall_be(sabir, project, form):
    arguments = ("estimate", "a.yaml", "t.jsonl", *form)
    assert sabir(*arguments)[0] == 0
    code, out, _ = sabir(*arguments, "--fail-on-alarm")
    assert code == 3
    assert out == sabir(*arguments)[1], "it is told all the same"
    project.document = {**ESTIMATED, "estimates": [{**row, "alarm": False} for row in ESTIMATED["estimates"]]}
    assert sabir(*arguments, "--fail-on-alarm")[0] == 0


@pytest.mark.parametrize(("written", "meant"), [("day", "day"), ("month", "month"), ("1", 1), ("500", 500)])
def test_windows_are_spans_or_numbers(sabir, project, written, meant):
    assert sabir("estimate", "a.yaml", "t.jsonl", "--window", written)[0] == 0
    assert project.asked["window"] == meant


@pytest.mark.parametrize(
    ("written", "hint"),
    [("0", ""), ("-5", ""), ("weak", " Did you mean 'week'?"), ("1.5", ""), ("", ""), ("五", "")],
)
def test_other_windows_are_refused(sabir, project, written, hint):
    code, out, err = sabir("estimate", "a.yaml", "t.jsonl", f"--window={written}")
    assert (code, out) == (2, "")
    assert err == f"--window: {written!r} is none. Write day, week, month or a number of texts.{hint}\n"
    assert project.asked == {}


def test_a_choice_has_a_number_and_a_new_file(sabir, project, tmp_path):
    there = tmp_path / "there.jsonl"
    there.write_text("labels", encoding="utf-8")
    refused = {
        ("--choose", "5"): "--choose: needs a file to write to.",
        ("--out", "a.jsonl"): "--out: goes with --choose.",
        ("--choose", "5", "--out", "a.csv"): "--out: a.csv does not end in .jsonl.",
        ("--choose", "5", "--out", str(there)): f"--out: {there} is there already.",
    }
    for arguments, said in refused.items():
        code, _, err = sabir("estimate", "a.yaml", "t.jsonl", *arguments)
        assert code == 2
        assert err.startswith(said)
    assert sabir("estimate", "a.yaml", "t.jsonl", "--choose", "0", "--out", "a.jsonl")[0] == 2
    assert project.asked == {}
    assert project.opened == (), "it is said before anything is opened"


def test_an_error_of_the_project_is_a_sentence_and_a_document(sabir, project, monkeypatch):
    def refuse(*_, **__):
        raise InputError("t.jsonl, line 3", "there is no language.", "Every row names its own.")

    monkeypatch.setattr(project, "estimate", refuse)
    code, out, err = sabir("estimate", "a.yaml", "t.jsonl")
    assert (code, out) == (2, "")
    assert err == "t.jsonl, line 3: there is no language. Every row names its own.\n"
    code, out, _ = sabir("estimate", "a.yaml", "t.jsonl", "--json")
    assert code == 2
    assert json.loads(out)["error"]["where"] == "t.jsonl, line 3"


def test_a_backtest_asks_for_every_kind_of_members_unless_some_are_named(sabir, project):
    assert sabir("backtest", "a.yaml")[0] == 0
    assert project.asked == {"agreed": False, "model": None, "members": None, "workers": None}
    arguments = ("--members", "adapters", "--members", "seeds", "--model", "own", "--workers", 1, "--yes")
    assert sabir("backtest", "a.yaml", *arguments)[0] == 0
    assert project.asked == {"agreed": True, "model": "own", "members": ["adapters", "seeds"], "workers": 1}


def test_a_backtest_says_how_far_off_each_was_and_what_to_believe(sabir, project):
    code, out, _ = sabir("backtest", "a.yaml")
    assert code == 0
    assert "Languages left out in turn: how far off estimates were" in out
    assert "0.034 [0.020, 0.050]" in out
    assert "Nothing beats it here." in out
    assert "0.321" not in out
    assert "0.321" in sabir("backtest", "a.yaml", "--segments")[1]


@pytest.mark.parametrize("verb", ["estimate", "backtest"])
def test_each_verb_explains_itself(sabir, verb):
    code, out, _ = sabir(verb, "--help")
    assert code == 0
    assert f"Usage: sabir {verb}" in out
