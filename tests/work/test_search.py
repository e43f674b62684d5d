"""Search: what is open, what is tried, what is chosen."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tiny import TINY_BASE, save_adapter
from sabir.errors import InputError
from sabir.lora.files import open_adapter
from sabir.merging.choices import from_identity, make_recipe
from sabir.merging.methods import METHODS
from sabir.merging.published import RECIPES
from sabir.tasks import make_task
from sabir.work import search as module
from sabir.work.merge import merge_into
from sabir.work.prepare import prepare
from sabir.work.search import Space, Span, open_space, optimise, search
from sabir.work.sources import Source
from work.test_work_functions import FakeWork

LANGUAGES = ("de", "fr")
NAMES = sorted({*RECIPES, *METHODS.names()})


def opened(name, *, fixed=(), over=None, languages=LANGUAGES, **choices):
    recipe = make_recipe(name, **choices)
    fixed = (*recipe.settings, *(("weights",) if recipe.weights is not None else ()), *fixed)
    return open_space(recipe, languages, fixed=fixed, over=over, where="merges.t.search")


# --- what is open ----------------------------------------------------------------------------------------


def test_every_number_that_is_not_fixed_is_open_and_a_weight_per_language():
    assert list(opened("ties").spans) == ["scale", "density", "weights.de", "weights.fr"]
    assert list(opened("ties", settings={"density": 0.2}).spans) == ["scale", "weights.de", "weights.fr"]
    assert list(opened("dare_ties", over=["density"]).spans) == ["density"]
    assert list(opened("tsv", languages=["de"]).spans) == ["scale"], (
        "one adapter has nothing to be weighed against"
    )
    assert "weights.de" not in opened("ties", dialect="paper").spans, "the paper weighs all alike"
    assert "trim_density" not in opened("dare_ties", dialect="mergekit").spans


@pytest.mark.parametrize("name", NAMES)
def test_the_first_points_are_what_is_recommended_and_the_methods_defaults(name):
    space = opened(name)
    recipe = make_recipe(name)
    known = METHODS.get(recipe.method).settings
    defaults = {key: 1.0 if key.startswith("weights") else known[key].default for key in space.spans}
    assert space.first[-1] == defaults
    if name in RECIPES and RECIPES[name].recommended:
        assert space.first[0].items() >= RECIPES[name].recommended.items()
    assert all(set(point) == set(space.spans) for point in space.first)


def test_a_space_is_read_back_as_it_was_written():
    space = opened("della")
    assert Space.from_json(json.loads(json.dumps(space.identity()))) == space


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None)
@given(share=st.lists(st.floats(0, 1), min_size=12, max_size=12))
def test_every_point_of_a_space_is_a_recipe(name, share):
    recipe = make_recipe(name)
    space = opened(name)
    point = {
        key: module._rounded(span.low + at * (span.high - span.low))
        for (key, span), at in zip(space.spans.items(), share, strict=False)
    }
    made = recipe_of(recipe, point)
    assert made.method == recipe.method
    assert from_identity(made.identity()).identity() == made.identity()


def recipe_of(recipe, point, languages=LANGUAGES):
    return module.at_point(recipe.identity(), point, languages)


@pytest.mark.parametrize(
    "fixed", [{"epsilon": 0.3}, {"density": 0.8}, {"density": {"depth": [0.2, 0.6]}}, {}]
)
@pytest.mark.parametrize("over", [["density"], ["epsilon"], ["density", "epsilon"]])
def test_chances_stay_chances_whichever_of_density_and_epsilon_is_open(fixed, over):
    if set(fixed) & set(over):
        return
    space = opened("della", settings=fixed, over=over)
    recipe = make_recipe("della", settings=fixed)
    for ends in (
        {key: span.low for key, span in space.spans.items()},
        {k: s.high for k, s in space.spans.items()},
    ):
        recipe_of(recipe, ends)


def test_weights_are_multiples_of_what_the_method_takes_by_itself():
    linear = make_recipe("linear").identity()
    assert (
        "weights" not in module.at_point(linear, {"weights.de": 1.0, "weights.fr": 1.0}, LANGUAGES).identity()
    )
    made = module.at_point(linear, {"weights.de": 0.5, "weights.fr": 2.0}, LANGUAGES)
    assert made.weights == {"de": 0.25, "fr": 1.0}


# --- the optimiser ---------------------------------------------------------------------------------------

SQUARE = Space({"x": Span(0.1, 2.0, log=True), "y": Span(0.0, 2.0)}, ({"x": 0.5, "y": 1.0},))


def tried(
    method, seed=0, budget=25, space=SQUARE, value=lambda p: -((p["x"] - 0.7) ** 2) - (p["y"] - 1.2) ** 2
):
    points = []

    def judged(point):
        points.append(dict(point))
        return value(point)

    optimise(judged, space, method=method, budget=budget, seed=seed, done=lambda: len(points) >= budget)
    return points


@pytest.mark.parametrize("method", ["tpe", "gp", "random"])
def test_the_same_seed_tries_the_same_points_and_the_first_ones_first(method):
    points = tried(method)
    assert points == tried(method)
    assert points != tried(method, seed=1)
    assert points[0] == {"x": 0.5, "y": 1.0}
    assert len(points) == 25
    assert all(0.1 <= point["x"] <= 2 and 0 <= point["y"] <= 2 for point in points)


@pytest.mark.parametrize("method", ["tpe", "gp"])
def test_it_finds_more_than_chance(method):
    def best(points):
        return min(abs(point["x"] - 0.7) + abs(point["y"] - 1.2) for point in points)

    seeds = range(5)
    assert sum(best(tried(method, s)) for s in seeds) < sum(best(tried("random", s)) for s in seeds)


def test_it_says_nothing_on_the_terminal_and_leaves_optunas_voice_as_it_was(capfd):
    import optuna

    before = optuna.logging.get_verbosity()
    tried("tpe")
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


def test_a_space_with_nothing_new_ends_early():
    points = []
    space = Space({"x": Span(1.0, 1.0)}, ({"x": 1.0},))
    optimise(lambda p: points.append(p) or 0.0, space, method="tpe", budget=3, seed=0, done=lambda: False)
    assert len(points) == 3 * module.TRIES


def test_without_optuna_a_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs Optuna\. Install it: pip install 'sabir\[search\]'\."):
        tried("tpe")


def test_importing_it_loads_neither_torch_nor_optuna():
    code = "import sys, sabir.work.search; sys.exit(bool({'torch', 'optuna', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the step --------------------------------------------------------------------------------------------

BASE = {"name": "org/base", "folder": str(TINY_BASE), "revision": None}
LABELS = ("sport", "politics")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two adapters and the rows of their languages, as folders of finished steps."""
    folder = tmp_path_factory.mktemp("inputs")
    task = {"name": "classification", "settings": {"labels": list(LABELS)}}
    found = {}
    for seed, language in enumerate(LANGUAGES):
        rows = "".join(
            json.dumps({"input": f"{language} text number {i}", "output": LABELS[(i * 7 + seed) % 3 % 2]})
            + "\n"
            for i in range(12)
        )
        for split in ("train", "valid", "test"):
            (folder / f"{language}-{split}.jsonl").write_text(rows, encoding="utf-8")
        source = Source(
            language,
            files={split: folder / f"{language}-{split}.jsonl" for split in ("train", "valid", "test")},
        )
        from sabir.work.prepare import load

        summary = load(source, make_task(task["name"], task["settings"]))[1]
        work = FakeWork(
            folder / f"rows-{language}",
            settings=summary.digests,
            args={"source": source.to_json(), "task": task},
        )
        list(prepare([work]))
        found[f"rows/{language}"] = work.out
        found[language] = save_adapter(folder / language, TINY_BASE, seed=seed + 1, size=0.3)
    return found


def search_work(
    inputs, out, *, method="ties", space="knots", budget=6, seed=3, over=None, fixed=None, **choices
):
    recipe = make_recipe(method, space=space, settings=fixed, **choices)
    searched = open_space(recipe, LANGUAGES, fixed=recipe.settings, over=over)
    decided = {
        "recipe": recipe.identity(),
        "search": {"method": "tpe", "budget": budget, "seed": seed},
        "space": searched.identity(),
        "metric": "accuracy",
        "labels": list(LABELS),
        "decoding": {"answer": "label", "labels": list(LABELS)},
        "max_length": dict.fromkeys(LANGUAGES, 64),
    }
    args = {"base": BASE, "kept": str(out.parent / "kept"), "batch_size": 4}
    return FakeWork(out, name="merged/tuned", settings=decided, args=args, inputs=inputs)


def searched(work):
    [(name, outcome)] = search([work])
    assert name == "merged/tuned"
    json.dumps(outcome)  # goes into a record
    return outcome["result"]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def done(inputs, tmp_path_factory):
    work = search_work(inputs, tmp_path_factory.mktemp("done") / "out")
    return work, searched(work)


def test_the_budget_is_the_number_of_merges_scored_and_none_is_scored_twice(done):
    work, result = done
    assert len(result["trials"]) == 6
    assert len({json.dumps(trial["settings"] | (trial["weights"] or {})) for trial in result["trials"]}) == 6
    assert [event[:2] for event in work.events] == [(n, 6) for n in range(1, 7)]


def test_the_first_trials_weigh_all_alike(done):
    _, result = done
    first, second = result["trials"][:2]
    assert first["settings"] == {"scale": 0.5, "density": 1.0}
    assert second["settings"] == {"scale": 1.0, "density": 1.0}
    assert first["weights"] is second["weights"] is None
    assert all(set(trial["weights"]) == set(LANGUAGES) for trial in result["trials"][2:])


def test_the_best_is_chosen_and_of_equals_the_first(done):
    _, result = done
    values = [trial["value"] for trial in result["trials"]]
    assert result["chosen"] == result["trials"][values.index(max(values))]
    assert len(set(values)) > 1, "the test means nothing where all are equal"


def test_its_folder_is_the_merge_with_these_settings_written_by_hand(done, inputs, tmp_path):
    work, result = done
    chosen = result["chosen"]
    recipe = make_recipe("ties", space="knots", settings=chosen["settings"], weights=chosen["weights"])
    merge_into(
        tmp_path / "by-hand",
        recipe,
        {language: open_adapter(inputs[language]) for language in LANGUAGES},
        base_model=BASE["name"],
        revision=None,
        base_folder=BASE["folder"],
    )
    assert files(work.out) == files(tmp_path / "by-hand")
    assert from_identity(result["recipe"]).identity() == recipe.identity()


def test_the_same_seed_gives_the_same_bits_and_another_one_other_trials(done, inputs, tmp_path):
    work, result = done
    again = search_work(inputs, tmp_path / "again")
    assert searched(again)["trials"] == result["trials"]
    assert files(again.out) == files(work.out)
    other = search_work(inputs, tmp_path / "other", seed=4)
    assert searched(other)["trials"][2:] != result["trials"][2:]


def test_a_search_that_was_stopped_goes_on_and_ends_the_same(done, inputs, tmp_path, monkeypatch):
    work, result = done
    scored = []
    whole = module._Search.score

    def dies_at_the_fourth(self, folder):
        if len(scored) == 3:
            raise KeyboardInterrupt
        scored.append(folder)
        return whole(self, folder)

    out = tmp_path / "out"
    monkeypatch.setattr(module._Search, "score", dies_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        list(search([search_work(inputs, out)]))
    with open(out / module.TRIALS, "a", encoding="utf-8") as file:
        file.write('["half a li')
    monkeypatch.setattr(
        module._Search, "score", lambda self, folder: scored.append(folder) or whole(self, folder)
    )
    assert searched(search_work(inputs, out))["trials"] == result["trials"]
    assert len(scored) == 6, "three before, three after"
    assert files(out) == files(work.out)


def test_a_searched_merge_may_be_folded_into_the_base(inputs, tmp_path):
    work = search_work(inputs, tmp_path / "out", space="delta", budget=2, over=["scale"], rank="fold")
    result = searched(work)
    assert (work.out / "config.json").is_file()
    assert result["recipe"]["rank"] == "fold"
    assert not (work.out / "trial").exists()
