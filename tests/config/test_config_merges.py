"""The section `merges`: what its entries stand for, and what is refused."""

from __future__ import annotations

import pytest
from config_texts import DESIGN, MINIMAL

from sabir.config import (
    Grid,
    MergeConfig,
    SearchConfig,
    members,
)


def test_a_grid_becomes_one_model_per_point_named_by_its_settings_in_alphabetical_order(read):
    merges = read(DESIGN).merges
    assert [member.name for member in members(merges["average"])] == ["merged/average"]
    ties = members(merges["ties"])
    assert ties[0].name == "merged/ties[density=0.2,scale=0.5]"
    assert ties[0].settings == {"density": 0.2, "scale": 0.5}
    assert len({member.name for member in ties}) == 6
    assert merges["ties-knots"].weights == {"en": 1.0, "de": 2.0}


def test_whole_numbers_where_the_method_takes_floats_give_the_same_models(read):
    merge = "merges:\n  ties: {method: ties, density: %s, scale: {grid: %s}}\n"
    whole, exact = (
        read(MINIMAL + merge % written).merges["ties"] for written in (("1", "[1, 2]"), ("1.0", "[1.0, 2.0]"))
    )
    assert members(whole) == members(exact)
    assert [member.name for member in members(whole)] == ["merged/ties[scale=1.0]", "merged/ties[scale=2.0]"]


def test_members_write_every_kind_of_value():
    grid = {"b": Grid((True, False)), "a": Grid((1, "x")), "c": 3}
    names = [member.name for member in members(MergeConfig("m", "m", None, None, grid, None, None))]
    assert names == [
        "merged/m[a=1,b=true]",
        "merged/m[a=1,b=false]",
        "merged/m[a=x,b=true]",
        "merged/m[a=x,b=false]",
    ]


def test_default_merges_have_the_recommended_settings(read):
    from sabir.merging.published import RECIPES

    config = read(MINIMAL)
    assert config.merges["ties"].settings == dict(RECIPES["ties"].recommended)


def test_no_merges_can_be_asked_for(read):
    assert read(MINIMAL + "merges: {}\n").merges == {}


def test_a_bare_text_names_a_recipe(read):
    merge = read(MINIMAL + "merges: {mine: ties-knots}\n").merges["mine"]
    assert (merge.recipe, merge.method, merge.settings) == ("ties-knots", None, {})
    assert [member.name for member in members(merge)] == ["merged/mine"]


def test_a_list_of_names_is_a_merge_each_and_one_name_a_list_of_one(read):
    assert read(MINIMAL + "merges: [ties-knots, average]\n").merges == (
        read(MINIMAL + "merges: {ties-knots: ties-knots, average: average}\n").merges
    )
    assert list(read(MINIMAL + "merges: average\n").merges) == ["average"]


@pytest.mark.parametrize("written", ["paper-eight", "[paper-eight]", "{mine: {preset: paper-eight}}"])
def test_the_preset_of_the_paper_is_eight_merges_in_its_dialect(read, written):
    merges = read(MINIMAL + f"merges: {written}\n").merges
    names = [member.name for merge in merges.values() for member in members(merge)]
    assert len(set(names)) == 8
    made = [merge.made(member.settings) for merge in merges.values() for member in members(merge)]
    assert {(one.method, one.space, one.dialect) for one in made} == {
        (method, space, "paper") for method in ("ties", "dare_ties") for space in ("delta", "knots")
    }
    assert len({str(one.identity()) for one in made}) == 8


def test_a_presets_merges_may_be_folded_and_stand_beside_others(read):
    merges = read(MINIMAL + "merges: {eight: {preset: paper-eight, rank: fold}, mine: average}\n").merges
    assert [merge.rank for merge in merges.values()] == ["fold"] * 4 + [None]


def test_names_that_other_tools_use_are_understood(read):
    theirs = read(MINIMAL + "merges: {a: dare_ties, b: ties_svd, c: DT, d: DTS, e: knots-ties}\n").merges
    made = {name: merge.made({}) for name, merge in theirs.items()}
    assert [(one.method, one.space) for one in made.values()] == [
        *(("dare_ties", "delta"), ("ties", "delta"), ("dare_ties", "delta")),
        *(("dare_ties", "knots"), ("ties", "knots")),
    ]


def test_settings_and_weights_may_differ_by_module(read):
    text = """\
merges:
  deep:
    method: ties
    density: {depth: [0.2, 1]}
    scale: {"*.mlp.*": 1, "*": {depth: [0, 2]}}
    weights: {de: {q_proj: 2, "*": 1}}
"""
    deep = read(MINIMAL + text).merges["deep"]
    assert deep.settings == {
        "density": {"depth": [0.2, 1.0]},
        "scale": {"*.mlp.*": 1.0, "*": {"depth": [0.0, 2.0]}},
    }
    assert deep.weights == {"de": {"q_proj": 2, "*": 1}}
    assert [member.name for member in members(deep)] == ["merged/deep"]


@pytest.mark.parametrize("rank", ["exact", "serve", "fold", "16"])
def test_a_rank_is_a_number_or_what_it_is_for(read, rank):
    merge = f"{{method: ties, space: knots, rank: {rank}, dialect: paper, dtype: bfloat16}}"
    made = read(f"{MINIMAL}merges: {{t: {merge}}}\n").merges["t"].made({})
    assert str(made.rank) == rank
    assert (made.dialect, made.dtype) == ("paper", "bfloat16")


def test_words_are_settings_too(read):
    merge = read(MINIMAL + "merges: {t: {method: ties, density: 0.2, trim_over: module}}\n").merges["t"]
    assert merge.settings == {"density": 0.2, "trim_over": "module"}


def test_a_search_has_its_defaults_and_is_one_merge(read):
    searched = read(MINIMAL + "merges: {t: {method: ties, search: {budget: 5}}}\n").merges["t"]
    assert searched.search == SearchConfig(method="tpe", budget=5, seed=0, over=None)
    assert [member.name for member in members(searched)] == ["merged/t"]
    assert read(MINIMAL + "merges: {t: {method: ties, search: }}\n").merges["t"].search is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "merges: [ties, {method: ties}]",
            "merges[1]: {'method': 'ties'} is no name of a recipe. A list holds names; write settings as "
            "`name: {method: ties, density: 0.5}`.",
        ),
        ("merges: [ties, ties]", "merges[1]: 'ties' stands there twice. Keep one of the two."),
        ("merges: 3", "merges: 3 is not a mapping. Expected `key: value` pairs here."),
        ("merges: {t: 3}", "merges.t: 3 is not a mapping. Expected `key: value` pairs here."),
        (
            "merges: {t: }",
            "merges.t: nothing is given. Write one, such as `t: {method: ties}`; see `sabir list recipes`.",
        ),
        (
            "merges: {t: {density: 0.5}}",
            "merges.t: neither recipe: nor method: is given. "
            "Write one, such as `t: {method: ties}`; see `sabir list recipes`.",
        ),
        (
            "merges: {t: {method: ties, recipe: ties}}",
            "merges.t: recipe: and method: are both given. "
            "Write one, such as `t: {method: ties}`; see `sabir list recipes`.",
        ),
        ("merges: {'a.b': ties}", "merges.a.b: 'a.b' cannot name a merge. Use letters, digits, - and _."),
        (
            "merges: {t: {method: ties, density: [0.1]}}",
            "merges.t.density: [0.1] is not a single value. To try several, write {grid: [0.2, 0.5]}.",
        ),
        (
            "merges: {t: {method: ties, density: {grid: 3}}}",
            "merges.t.density: 3 is no grid. Expected values: {grid: [0.2, 0.5]}.",
        ),
        (
            "merges: {t: {method: ties, density: {grid: []}}}",
            "merges.t.density: [] is no grid. Expected values: {grid: [0.2, 0.5]}.",
        ),
        (
            "merges: {t: {method: ties, density: {grid: [1, 1.0]}}}",
            "merges.t.density: [1, 1.0] names a value twice. Keep one of the two.",
        ),
        ("merges: {t: {method: ties, weights: {de: x}}}", "merges.t.weights.de: 'x' is not a number."),
        (
            "merges: {t: {method: ties, rank: 0}}",
            "merges.t.rank: 0 is not a whole number of at least 1, 'exact', 'serve' or 'fold'.",
        ),
        (
            "merges: {t: {method: ties, density: {}}}",
            "merges.t.density: {} is not a single value. To try several, write {grid: [0.2, 0.5]}.",
        ),
        (
            "merges: {t: {method: ties, density: {grid: [0.2], depth: [0.1, 0.2]}}}",
            "merges.t.density: a grid stands alone. Write {grid: [0.2, 0.5]} and nothing else.",
        ),
        (
            "merges: {t: {preset: paper-eigth}}",
            "merges.t.preset: no such preset: 'paper-eigth'. Known are: paper-eight, averages. "
            "Did you mean 'paper-eight'?",
        ),
        (
            "merges: {t: {preset: paper-eight, density: 0.2}}",
            "merges.t.density: no such setting. A preset takes: preset, rank, dtype.",
        ),
        (
            "merges: {t: {preset: paper-eight}, ties-knots: average}",
            "merges.t: its preset has a merge named 'ties-knots' too. Give your own entry another name.",
        ),
        (
            "merges: {t: {method: ties, search: {budgt: 3}}}",
            "merges.t.search.budgt: no such setting. 'search' takes: method, budget, seed, over. "
            "Did you mean 'budget'?",
        ),
        (
            "merges: {t: {method: ties, search: {method: tpa}}}",
            "merges.t.search.method: 'tpa' is not 'tpe', 'gp' or 'random'. Did you mean 'tpe'?",
        ),
        (
            "merges: {t: {method: ties, search: {budget: 501}}}",
            "merges.t.search.budget: 501 is not a whole number from 1 to 500.",
        ),
        (
            "merges: {t: {method: ties, density: {grid: [0.2, 1]}, search: {budget: 3}}}",
            "merges.t.density: a grid and a search do not go together. Leave the setting out, so that the "
            "search looks for it, or leave out search:.",
        ),
        (
            "merges: {t: {method: ties, search: {over: [densty]}}}",
            "merges.t.search.over: 'densty' cannot be searched. 'ties' can be searched over: scale, density, "
            "weights. Did you mean 'density'?",
        ),
        (
            "merges: {t: {method: ties, scale: 1, search: {over: [scale]}}}",
            "merges.t.search.over: 'scale' is fixed by this entry. Leave out one of the two.",
        ),
        (
            "merges: {t: {method: linear, scale: 1, weights: {de: 1, en: 1}, search: {budget: 3}}}",
            "merges.t.search: there is nothing to search: every setting is fixed. Leave one open.",
        ),
    ],
)
def test_wrong_merges_are_refused_with_what_was_expected(refusals, text, sentence):
    assert refusals(f"{MINIMAL}{text}\n") == [f"config.yaml, line 6: {sentence}"]


@pytest.mark.parametrize(
    ("merge", "path", "what"),
    [
        ("{method: teis}", "merges.t", "Did you mean 'ties'?"),
        ("tise", "merges.t", "Did you mean 'ties'?"),
        ("{method: ties, space: knot}", "merges.t.space", "Did you mean 'knots'?"),
        ("{method: ties, density: 1.5}", "merges.t.density", "1.5"),
        ("{method: ties, density: {grid: [0.5, 1.5]}}", "merges.t.density", "1.5"),
        ("{method: ties, density: much}", "merges.t.density", "'much'"),
        ("{method: linear, space: knots}", "merges.t.space", "Leave the space out"),
        ("{method: linear, weights: {de: 1}}", "merges.t.weights", "no weight for 'en'"),
        ("{method: ties, dialect: mergkit}", "merges.t.dialect", "Did you mean 'mergekit'?"),
        ("{method: tsv, dialect: peft}", "merges.t.dialect", "'peft' has no 'tsv'"),
        ("{method: ties, dtype: float64}", "merges.t.dtype", "Known are: float32, bfloat16, float16."),
        (
            "{method: ties, trim_over: layer}",
            "merges.t.trim_over",
            "expected 'adapter' or 'module', got 'layer'",
        ),
        ("{method: ties, density: {depth: [0.2, 1.5]}}", "merges.t.density.depth", "got 1.5"),
        ("{method: ties, density: {depth: [0.2]}}", "merges.t.density.depth", "two points or more"),
        ("{method: ties, scale: {'*.mlp.*': x, '*': 1}}", "merges.t.scale.*.mlp.*", "got 'x'"),
        ("{method: ties, weights: {de: {depth: [1]}}}", "merges.t.weights.de.depth", "two points or more"),
        ("{method: ties, rank: exact}", "merges.t.rank", "has full rank"),
        ("{preset: paper-eight, dtype: float63}", "merges.t.dtype", "Did you mean 'float32'?"),
    ],
)
def test_what_merging_says_about_a_recipe_gets_its_line_and_is_told_once(refusals, merge, path, what):
    (sentence,) = refusals(f"{MINIMAL}merges:\n  t: {merge}\n")
    assert sentence.startswith(f"config.yaml, line 7: {path}: ")
    assert what in sentence


def test_a_grid_too_large_to_search_is_refused(refusals):
    grid = f"{{grid: [{', '.join(str(n / 100) for n in range(1, 41))}]}}"
    (sentence,) = refusals(f"{MINIMAL}merges: {{t: {{method: ties, density: {grid}, scale: {grid}}}}}\n")
    assert "its grid has 1600 members" in sentence
