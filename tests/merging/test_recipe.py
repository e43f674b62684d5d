from __future__ import annotations

import itertools
import json
import subprocess
import sys

import pytest
import torch

from problems import PROBLEMS
from sabir.errors import InputError
from sabir.merging import streaming
from sabir.merging.choices import from_identity, make_recipe
from sabir.merging.dialects import DIALECTS
from sabir.merging.methods import METHODS
from sabir.merging.published import ALIASES, PRESETS, RECIPES
from sabir.merging.recipe import Recipe, adapter_weights, merge
from sabir.merging.spaces import SPACES

FULL = 99
WITH_DENSITY = [name for name in METHODS.names() if "density" in METHODS.get(name).settings]


def deltas(recipe, adapters):
    return {module: lowrank.delta() for module, lowrank in merge(recipe, adapters)}


def differ(one, other) -> float:
    """The largest difference of a module's delta, relative to the largest delta."""
    assert one.keys() == other.keys()
    norm = torch.linalg.vector_norm
    return float(max(norm(one[m] - other[m]) for m in other) / max(map(norm, other.values())))


def test_reading_recipes_loads_no_torch():
    code = (
        "import sys, sabir.merging.choices as r, sabir.merging.methods, sabir.lora.files\n"
        "[e.settings for e in r.METHODS]; r.make_recipe('ties-knots', settings={'density': 0.2})\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*RECIPES, *METHODS.names(), *ALIASES])
def test_every_name_runs_and_its_identity_gives_it_back(name, tmp_path):
    recipe = make_recipe(name)
    identity = json.loads(json.dumps(recipe.identity()))
    assert from_identity(identity).identity() == recipe.identity()
    adapters = PROBLEMS["random"](tmp_path)
    again = from_identity(identity)
    assert deltas(make_recipe(name), adapters).keys() == deltas(again, adapters).keys()
    assert differ(deltas(again, adapters), deltas(recipe, adapters)) == 0


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_row_recommends_can_be_set(name):
    row = RECIPES[name]
    assert row.source.startswith("https://")
    assert make_recipe(name, settings=row.recommended).settings == row.recommended


def test_what_others_call_the_same_is_one_of_ours():
    assert set(ALIASES.values()) <= set(RECIPES)
    assert not set(ALIASES) & ({*RECIPES} | {*METHODS.names()})
    assert make_recipe("DTS") == make_recipe("dare-ties-knots")
    assert make_recipe("svd") == make_recipe("task-arithmetic")


@pytest.mark.parametrize(("preset", "count"), [("paper-eight", 8), ("averages", 6)])
def test_every_merge_of_a_preset_can_be_made(preset, count):
    made = {}
    for merge_name, (recipe, settings, rest) in PRESETS[preset].items():
        grids = {key: value if isinstance(value, list) else [value] for key, value in settings.items()}
        rest = {**rest, "weights": {"de": 0.7, "en": 0.3}} if "weights" in rest else rest
        for values in itertools.product(*grids.values()):
            one = make_recipe(recipe, settings=dict(zip(grids, values, strict=True)), rank=16, **rest)
            made[merge_name, values] = json.dumps(one.identity())
    assert len(set(made.values())) == len(made) == count


def test_every_preset_is_tried():
    assert set(PRESETS) == {"paper-eight", "averages"}


def test_a_method_is_in_its_own_space_where_none_is_given():
    assert {make_recipe(name).space for name in METHODS.names()} == {"delta", "core"}
    assert make_recipe("tsv") == make_recipe("tsv-core") == make_recipe("tsv", space="core")


# -- refusals ------------------------------------------------------------------------------------------------

FULL_RANK = "has full rank: an exact adapter would be larger than the base's own layers."
APART = "space: merging A and B apart is wrong by the cross terms B_i A_j; it is here to compare with PEFT."
KNOTS_AS_CORE = "gives the same result in 'knots' as in 'core'."
DEPTH = {"depth": [0.1, 0.2]}


@pytest.mark.parametrize(
    ("name", "choices", "sentence"),
    [
        # misspelt
        (
            "dare",
            {"settings": {"densty": 0.5}, "where": "merges.dare"},
            "merges.dare.densty: no such setting. 'dare' takes: density, scale, seed. Did you mean "
            "'density'?",
        ),
        ("tiess", {}, "no such recipe or merge method: 'tiess'. Known are: "),
        ("iso-c", {}, "Did you mean 'iso_c'?"),
        ("ties", {"space": "knot"}, "Did you mean 'knots'?"),
        (
            "ties",
            {"dialect": "merge-kit"},
            "dialect: no such dialect: 'merge-kit'. Known are: sabir, paper, mergekit, peft. Did you mean "
            "'mergekit'?",
        ),
        (
            "ties",
            {"dtype": "float23"},
            "dtype: no such dtype: 'float23'. Known are: float32, bfloat16, float16. Did you mean 'float32'?",
        ),
        ("ties", {"settings": {"trim_over": "modul"}}, "expected 'adapter' or 'module', got 'modul'."),
        ("linear", {"settings": {"density": 1}}, "density: no such setting. 'linear' takes: scale."),
        # out of range
        ("ties", {"settings": {"density": 0}}, "density: expected a share above 0, at most 1, got 0."),
        ("ties", {"settings": {"density": 1.5}}, "got 1.5."),
        ("ties", {"settings": {"density": True}}, "got True."),
        ("ties", {"settings": {"density": "half"}}, "got 'half'."),
        ("ties", {"settings": {"density": [0.5]}}, "got [0.5]."),
        ("ties", {"settings": {"density": {"depth": [0.5, 1.5]}}}, "density.depth: expected a share above 0"),
        ("ties", {"settings": {"density": {"*": 0}}}, "density.*: expected a share above 0"),
        ("ties", {"settings": {"density": {"depth": [0.5]}}}, "density.depth: expected two points or more"),
        ("ties", {"settings": {"scale": float("nan")}}, "scale: expected a finite number, got nan."),
        ("dare", {"settings": {"seed": 0.5}}, "seed: expected a whole number, 0 or more, got 0.5."),
        ("dare", {"settings": {"seed": -1}}, "seed: expected a whole number, 0 or more, got -1."),
        ("dare", {"settings": {"seed": {"*": 1}}}, "for all modules, got {'*': 1}."),
        ("iso_cts", {"settings": {"common": 1.5}}, "common: expected a share from 0 to 1, got 1.5."),
        (
            "breadcrumbs",
            {"settings": {"outliers": 1}},
            "outliers: expected a share from 0 to below 1, got 1.",
        ),
        ("della", {"settings": {"epsilon": 0.5}}, "epsilon: expected a number from 0 to below 0.5, got 0.5."),
        # combinations
        ("linear", {"space": "knots"}, "'linear' gives the same result in 'knots' as in 'delta'."),
        ("linear", {"space": "core"}, "'linear' gives the same result in 'core' as in 'delta'."),
        (
            "tsv",
            {"space": "delta"},
            "space: 'tsv' acts on singular directions, and a delta's null space has ",
        ),
        ("iso_c", {"space": "delta"}, "space: 'iso_c' acts on singular directions"),
        ("tsv", {"space": "knots"}, f"space: 'tsv' {KNOTS_AS_CORE}"),
        ("iso_cts", {"space": "knots"}, f"space: 'iso_cts' {KNOTS_AS_CORE}"),
        ("ties-knots", {"space": "delta"}, "'ties-knots' is a merge in 'knots' space, got 'delta'."),
        ("ties", {"space": "factors"}, APART),
        ("linear", {"space": "factors"}, APART),
        ("tsv", {"space": "factors"}, APART),
        (
            "ties",
            {"space": "knots", "dialect": "mergekit"},
            "dialect: 'mergekit' does not merge in 'knots' space. It does in: delta.",
        ),
        ("ties", {"space": "core", "dialect": "peft"}, "'peft' does not merge in 'core' space."),
        ("ties", {"space": "core", "dialect": "paper"}, "It does in: delta, knots."),
        ("sce", {"dialect": "peft"}, "dialect: 'peft' has no 'sce'. It has: linear, ties, "),
        ("tsv", {"dialect": "paper"}, "dialect: 'paper' has no 'tsv'."),
        ("magnitude", {"dialect": "mergekit"}, "dialect: 'mergekit' has no 'magnitude'."),
        (
            "ties",
            {"dialect": "peft", "settings": {"trim_over": "adapter"}},
            "trim_over: 'peft' trims each module by itself.",
        ),
        (
            "breadcrumbs",
            {"dialect": "mergekit", "settings": {"trim_over": "adapter"}},
            "trim_over: 'mergekit' trims each module by itself.",
        ),
        (
            "ties",
            {"settings": {"density": DEPTH, "trim_over": "adapter"}},
            "trim_over: a density that differs by module trims each module by itself.",
        ),
        (
            "dare_ties",
            {"settings": {"trim_density": DEPTH}},
            "trim_density: the trim after the draw is over the whole adapter: expected one number.",
        ),
        (
            "dare_ties",
            {"dialect": "mergekit", "settings": {"trim_density": 0.5}},
            "trim_density: 'mergekit' has no trim after the draw.",
        ),
        ("della", {"settings": {"density": 0.1}}, "density 0.1 ± epsilon 0.15 leaves the range from 0 to 1."),
        ("della_linear", {"settings": {"density": 0.9}}, "epsilon: density 0.9 ± epsilon 0.15 leaves"),
        (
            "della",
            {"settings": {"density": 0.2, "epsilon": 0.2}},
            "epsilon: density 0.2 ± epsilon 0.2 leaves",
        ),
        ("della", {"settings": {"density": {"depth": [0.5, 0.9]}}}, "epsilon: density 0.9 ± epsilon 0.15"),
        # ranks
        *(
            (name, {"rank": "exact", "space": "delta"}, f"rank: {name!r} in 'delta' space {FULL_RANK}")
            for name in ("ties", "sce", "breadcrumbs")
        ),
        (
            "ties",
            {"rank": 0},
            "rank: expected a whole number above 0 or one of 'exact', 'serve', 'fold', got 0.",
        ),
        ("ties", {"rank": True}, "got True."),
        ("ties", {"rank": 2.0}, "got 2.0."),
        ("ties", {"rank": "folded"}, "one of 'exact', 'serve', 'fold', got 'folded'."),
        # weights
        ("ties", {"weights": {"de": "2"}}, "weights.de: expected a finite number, got '2'."),
        ("ties", {"weights": {"de": {"depth": [1]}}}, "weights.de.depth: expected two points or more"),
        ("ties", {"weights": [1.0, 2.0]}, "weights: expected a finite number, got [1.0, 2.0]."),
        ("ties", {"weights": 0}, "weights: every weight is 0."),
    ],
)
def test_a_wrong_choice_is_refused_with_a_sentence(name, choices, sentence):
    with pytest.raises(InputError) as caught:
        make_recipe(name, **choices)
    assert sentence in str(caught.value)
    assert len(caught.value.problems()) == 1


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(InputError) as caught:
        make_recipe("dare", settings={"density": 2, "sede": 1}, rank=-1)
    assert len(caught.value.problems()) == 3


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("della", {"settings": {"density": 1.0, "epsilon": 0.4}}),  # nothing is dropped
        ("della", {"settings": {"density": 0.8, "epsilon": 0.1}}),
        ("breadcrumbs", {"settings": {"density": 0.9, "outliers": 0.3}}),  # the density comes first
        ("breadcrumbs", {"settings": {"trim_over": "adapter"}}),
        ("ties", {"dialect": "peft", "settings": {"trim_over": "module"}}),
        ("ties", {"dialect": "peft", "space": "factors"}),
        ("ties", {"dialect": "paper", "weights": {"de": 2, "fr": 2}}),
        ("dare_ties", {"dialect": "paper", "settings": {"trim_density": 0.5}}),
        ("linear", {"rank": "exact"}),
        ("ties-knots", {"rank": "exact"}),
        ("ties", {"rank": "fold", "dtype": "bfloat16"}),
        ("tsv", {"rank": "serve"}),
        ("ties", {"settings": {"density": DEPTH, "trim_over": "module"}}),
    ],
)
def test_what_makes_sense_is_taken(name, choices):
    recipe = make_recipe(name, **choices)
    assert from_identity(json.loads(json.dumps(recipe.identity()))).identity() == recipe.identity()


# -- identity ------------------------------------------------------------------------------------------------

LAYERED = {"depth": [0.2, 0.5, 1.0]}


@pytest.mark.parametrize(
    "choices",
    [
        {"settings": {"density": LAYERED, "scale": {"*.mlp.*": LAYERED, "*": 1}}},
        {"weights": {"de": LAYERED, "fr": 2, "ja": {"q_proj": 0, "*": 1}}},
        {"weights": 0.5},
        {"dialect": "mergekit", "settings": {"density": 0.5}},
        {"dialect": "paper", "dtype": "float16"},
        {"rank": "serve"},
        {"rank": "fold"},
        {"rank": "fold", "dtype": "float32"},
        {"rank": "fold", "dtype": "bfloat16"},
        {"rank": 16, "dtype": "bfloat16"},
        {"space": "core", "rank": 7, "settings": {"density": 0.3, "trim_over": "module"}},
    ],
)
def test_an_identity_says_all_and_can_be_written_down(choices):
    recipe = make_recipe("ties", **choices)
    written = json.loads(json.dumps(recipe.identity()))
    assert written == recipe.identity()
    again = from_identity(written)
    assert again.identity() == written
    names = ("method", "space", "rank", "dialect", "dtype", "weights")
    assert [getattr(again, name) for name in names] == [getattr(recipe, name) for name in names]
    assert {**recipe.settings, **again.settings} == recipe.settings  # but for defaults
    for key in choices:
        assert key in written


@pytest.mark.parametrize("name", METHODS.names())
def test_what_is_as_by_default_stays_out_of_the_identity(name):
    entry = METHODS.get(name)
    defaults = {key: one.default for key, one in entry.settings.items() if one.default is not None}
    recipe = make_recipe(
        name, settings=defaults, space=make_recipe(name).space, dialect="sabir", dtype="float32"
    )
    assert recipe.identity() == {"method": name}


def test_only_what_differs_is_in_the_identity():
    assert make_recipe("ties", settings={"density": 1, "scale": 1.0}).identity() == {"method": "ties"}
    assert make_recipe("ties", weights={"de": 1, "fr": 2}).identity() == {
        "method": "ties",
        "weights": {"fr": 2.0},
    }
    assert make_recipe("ties", weights={"de": 1}).identity() == {"method": "ties"}
    assert make_recipe("ties-knots", rank="exact").identity() == {"method": "ties", "space": "knots"}
    assert make_recipe("average").identity() == make_recipe("linear").identity() == {"method": "linear"}
    # of a folded model the base's own type is the default
    assert make_recipe("ties", rank="fold", dtype="float32").identity() == {
        "method": "ties",
        "rank": "fold",
        "dtype": "float32",
    }


def test_the_order_of_what_was_given_is_not_in_the_identity():
    one = make_recipe("ties", settings={"scale": 2, "density": 0.5}, weights={"fr": 3, "de": 2})
    other = make_recipe("ties", settings={"density": 0.5, "scale": 2}, weights={"de": 2, "fr": 3})
    assert json.dumps(one.identity()) == json.dumps(other.identity())


# -- recipes that equal simpler ones -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    return PROBLEMS["random"](tmp_path_factory.mktemp("random") / "adapters")


def twin(recipe: Recipe) -> Recipe:
    """The recipe that the sentence of `equivalent` names: its last quoted word."""
    simpler = recipe.equivalent.split("'")[-2]
    space = recipe.space
    if simpler == "linear" and SPACES.get(space).facts["lossless"]:
        space = "delta"
    return make_recipe(simpler, space=space, rank=recipe.rank, dialect=recipe.dialect)


@pytest.mark.parametrize("space", SPACES.names())
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("method", WITH_DENSITY)
def test_a_recipe_that_says_it_equals_a_simpler_one_does(method, dialect, space, adapters):
    rules = DIALECTS[dialect]
    spaces = rules.spaces or [name for name in SPACES.names() if name != "factors"]
    if method not in (rules.methods or WITH_DENSITY) or space not in spaces:
        with pytest.raises(InputError):
            make_recipe(method, space=space, dialect=dialect)
        return
    rank = FULL if space == "delta" else None
    recipe = make_recipe(method, space=space, dialect=dialect, settings={"density": 1}, rank=rank)
    if recipe.equivalent:
        assert differ(deltas(recipe, adapters), deltas(twin(recipe), adapters)) < 2e-6
    else:
        added_up = method in rules.adds_up  # then the agreeing entries are no mean as they are in 'ties'
        assert method in ("ties", "sce") or added_up


@pytest.mark.parametrize("method", [name for name in WITH_DENSITY if name not in ("ties", "sce")])
def test_a_recipe_that_drops_something_equals_no_simpler_one(method):
    assert make_recipe(method).equivalent == ""
    assert make_recipe(method, settings={"density": 0.5}).equivalent == ""
    assert make_recipe(method, settings={"density": {"depth": [1.0, 0.5]}}).equivalent == ""
    assert make_recipe(method, settings={"density": 1.0}).equivalent.startswith(
        "At density 1 nothing is dropped"
    )


@pytest.mark.parametrize("dialect", ["sabir", "paper"])
def test_a_second_trim_of_all_entries_is_the_trim_of_ties(dialect, tmp_path):
    choices = {"density": 1.0, "trim_density": 0.5}
    drawn = make_recipe("dare_ties", settings=choices, dialect=dialect, rank=99)
    assert drawn.equivalent.endswith("'dare_ties' is 'ties' at density 0.5.")
    adapters = PROBLEMS["random"](tmp_path)
    ties = dict(merge(make_recipe("ties", settings={"density": 0.5}, dialect=dialect, rank=99), adapters))
    for module, lowrank in merge(drawn, adapters):
        assert torch.equal(lowrank.delta(), ties[module].delta())


def test_breadcrumbs_without_outliers_are_a_trim_of_each_module(tmp_path):
    adapters = PROBLEMS["random"](tmp_path)
    for method, simpler in (("breadcrumbs", "magnitude"), ("breadcrumbs_ties", "ties")):
        crumbs = make_recipe(method, settings={"density": 0.5, "outliers": 0.0}, rank=99)
        assert f"is {simpler!r}" in crumbs.equivalent
        trim = {"density": 0.5, "trim_over": "module"}
        expected = dict(merge(make_recipe(simpler, settings=trim, rank=99), adapters))
        for module, lowrank in merge(crumbs, adapters):
            assert torch.equal(lowrank.delta(), expected[module].delta())


@pytest.mark.parametrize(
    ("method", "space", "same_in"),
    [
        ("linear", "knots", "delta"),
        ("linear", "core", "delta"),
        ("tsv", "knots", "core"),
        ("iso_c", "knots", "core"),
        ("iso_cts", "knots", "core"),
    ],
)
def test_a_space_that_is_refused_as_the_same_is_the_same(method, space, same_in, adapters):
    refused = streaming.Merged(
        adapters,
        method=METHODS.get(method),
        space=SPACES.get(space),
        dialect=DIALECTS["sabir"],
        settings={},
        weights=adapter_weights(Recipe(method), list(adapters)),
        rank=FULL,
    )
    got = {module: lowrank.delta() for module, lowrank in refused}
    assert differ(got, deltas(make_recipe(method, space=same_in, rank=FULL), adapters)) < 2e-6


# -- weights -------------------------------------------------------------------------------------------------


def test_weights_default_to_the_mean_for_sums_and_to_one_for_elections():
    for method in METHODS.names():
        mean = method in ("linear", "dare", "magnitude", "della_linear", "breadcrumbs")
        weight = 0.5 if mean else 1.0
        assert adapter_weights(Recipe(method), ["a", "b"]) == {"a": weight, "b": weight}
    assert adapter_weights(Recipe("ties", weights={"b": 2.0}), ["a", "b"]) == {"a": 1.0, "b": 2.0}
    assert adapter_weights(make_recipe("task-arithmetic"), ["a", "b"]) == {"a": 1.0, "b": 1.0}
    assert adapter_weights(Recipe("ties", weights=0.3), ["a", "b"]) == {"a": 0.3, "b": 0.3}


@pytest.mark.parametrize(
    ("method", "weights", "sentence"),
    [
        ("ties", {"dee": 2.0}, "weights.dee: no such adapter. Adapters are: de, fr. Did you mean 'de'?"),
        ("linear", {"de": 2.0}, "weights: no weight for 'fr'. Name every adapter; 0 leaves one out."),
        ("linear", {"de": 0.0, "fr": 0.0}, "weights: every weight is 0."),
        ("linear", {"de": 0.0, "fr": {"depth": [0.0, 0.0]}}, "weights: every weight is 0."),
    ],
)
def test_weights_that_do_not_fit_the_adapters_are_refused(method, weights, sentence):
    with pytest.raises(InputError) as caught:
        adapter_weights(Recipe(method, weights=weights), ["de", "fr"])
    assert sentence in str(caught.value)


@pytest.mark.parametrize("weights", [{"de": 2.0}, {"de": {"depth": [1.0, 2.0]}}])
def test_an_adapter_that_is_not_named_weighs_one_and_paper_weighs_all_alike(weights):
    recipe = make_recipe("ties", weights=weights, dialect="paper")
    with pytest.raises(InputError, match="'paper' weighs all adapters alike"):
        adapter_weights(recipe, ["de", "fr"])
    assert adapter_weights(make_recipe("ties", weights={"de": 1.0}, dialect="paper"), ["de", "fr"])


def test_a_number_too_large_for_a_float_is_refused_like_any_other():
    for choices in ({"settings": {"scale": 10**400}}, {"weights": {"de": 10**400}}, {"weights": 10**400}):
        with pytest.raises(InputError, match="expected a finite number"):
            make_recipe("ties", **choices)


@pytest.mark.parametrize("choices", [{"settings": {"density": {}}}, {"weights": {"de": {}}}])
def test_a_value_by_module_that_says_nothing_is_refused_before_anything_is_read(choices):
    with pytest.raises(InputError):
        make_recipe("ties", **choices)


def test_one_adapter_alone_differs_from_nobody(tmp_path):
    adapters = PROBLEMS["random"](tmp_path)
    for alone, weights in (({"de": adapters["de"]}, None), (adapters, {"de": 1.0, "fr": 0.0, "ja": 0.0})):
        with pytest.raises(InputError, match="'sce' keeps what adapters differ in, and 'de' is alone"):
            merge(make_recipe("sce", weights=weights), alone)
        assert dict(merge(make_recipe("sce", settings={"density": 1.0}, weights=weights), alone))
