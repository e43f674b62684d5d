from __future__ import annotations

import subprocess
import sys

import pytest

from problems import PROBLEMS
from sabir.errors import InputError
from sabir.merging.methods import METHODS
from sabir.merging.recipe import RECIPES, Recipe, adapter_weights, from_identity, make_recipe, merge


def test_reading_recipes_loads_no_torch():
    code = (
        "import sys, sabir.merging.recipe as r, sabir.merging.methods, sabir.lora.files\n"
        "[e.settings for e in r.METHODS]; r.make_recipe('ties-knots', settings={'density': 0.2})\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "choices", "sentence"),
    [
        (
            "dare",
            {"settings": {"densty": 0.5}, "where": "merges.dare"},
            "merges.dare.densty: no such setting. 'dare' takes: density, scale, seed. Did you mean "
            "'density'?",
        ),
        ("tiess", {}, "no such recipe or merge method: 'tiess'. Known are: "),
        ("ties", {"space": "knot"}, "Did you mean 'knots'?"),
        ("ties", {"settings": {"density": 0}}, "density: expected a share above 0, at most 1, got 0."),
        ("ties", {"settings": {"density": 1.5}}, "got 1.5."),
        ("ties", {"settings": {"density": True}}, "got True."),
        ("ties", {"settings": {"density": "half"}}, "got 'half'."),
        ("ties", {"settings": {"scale": float("nan")}}, "scale: expected a finite number, got nan."),
        ("dare", {"settings": {"seed": 0.5}}, "seed: expected a whole number, 0 or more, got 0.5."),
        ("linear", {"space": "knots"}, "'linear' gives the same result in 'knots' as in 'delta'."),
        ("ties-knots", {"space": "delta"}, "'ties-knots' is a merge in 'knots' space, got 'delta'."),
        ("ties", {"rank": "exact"}, "rank: 'ties' in 'delta' space has full rank"),
        (
            "ties",
            {"rank": 0},
            "rank: expected a whole number above 0 or one of 'exact', 'serve', 'fold', got 0.",
        ),
        ("ties", {"rank": True}, "got True."),
        ("ties", {"weights": {"de": "2"}}, "weights.de: expected a finite number, got '2'."),
        ("ties", {"weights": {"de": 0.0}}, "weights: every weight is 0."),
    ],
)
def test_a_wrong_choice_is_refused_with_a_sentence(name, choices, sentence):
    with pytest.raises(InputError) as caught:
        make_recipe(name, **choices)
    assert sentence in str(caught.value)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(InputError) as caught:
        make_recipe("dare", settings={"density": 2, "sede": 1}, rank=-1)
    assert len(caught.value.problems()) == 3


@pytest.mark.parametrize("name", [*RECIPES, *METHODS.names()])
def test_every_recipe_runs_and_its_identity_gives_it_back(name, tmp_path):
    recipe = make_recipe(name)
    assert from_identity(recipe.identity()).identity() == recipe.identity()
    assert len(dict(merge(recipe, PROBLEMS["random"](tmp_path)))) == 3


def test_defaults_stay_out_of_the_identity():
    assert make_recipe("ties", settings={"density": 1, "scale": 1.0}).identity() == {"method": "ties"}
    assert make_recipe("ties", weights={"de": 1, "fr": 2}).identity() == {
        "method": "ties",
        "weights": {"fr": 2.0},
    }
    assert make_recipe("ties-knots", rank="exact").identity() == {"method": "ties", "space": "knots"}
    assert make_recipe("average").identity() == make_recipe("linear").identity()


def test_dare_at_density_one_says_what_it_equals():
    assert "'dare' is 'linear'" in make_recipe("dare", settings={"density": 1}).equivalent
    assert make_recipe("dare").equivalent == ""


def test_weights_default_to_the_mean_for_sums_and_to_one_for_elections():
    assert adapter_weights(Recipe("linear"), ["a", "b"]) == {"a": 0.5, "b": 0.5}
    assert adapter_weights(Recipe("ties"), ["a", "b"]) == {"a": 1.0, "b": 1.0}
    assert adapter_weights(Recipe("ties", weights={"b": 2.0}), ["a", "b"]) == {"a": 1.0, "b": 2.0}
    assert adapter_weights(make_recipe("task-arithmetic"), ["a", "b"]) == {"a": 1.0, "b": 1.0}


def test_weights_that_name_no_adapter_or_leave_a_sum_open_are_refused():
    with pytest.raises(
        InputError, match=r"weights.dee: no such adapter. Adapters are: de, fr. Did you mean 'de'\?"
    ):
        adapter_weights(Recipe("ties", weights={"dee": 2.0}), ["de", "fr"])
    with pytest.raises(InputError, match="no weight for 'fr'"):
        adapter_weights(Recipe("linear", weights={"de": 2.0}), ["de", "fr"])
