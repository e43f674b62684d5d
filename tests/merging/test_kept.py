"""Facts about single adapters that outlive a merge: they spare walks and change no bit."""

from __future__ import annotations

import errno
import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from problems import PROBLEMS, random_factors, save_peft
from sabir.merging import tiles as tiles_of
from sabir.merging.choices import make_recipe
from sabir.merging.kept import VERSION, Kept
from sabir.merging.order import Found
from sabir.merging.recipe import merge

RECIPES = [
    make_recipe(method, rank=8, settings={"density": 0.3, "trim_over": over}, dialect=dialect)
    for method, over, dialect in (
        ("ties", "adapter", "sabir"),
        ("ties", "module", "sabir"),
        ("ties", "adapter", "paper"),
        ("ties", "module", "mergekit"),
        ("magnitude", "module", "peft"),
        ("magnitude", "adapter", "sabir"),
        ("breadcrumbs", "module", "sabir"),
        ("breadcrumbs_ties", "adapter", "sabir"),
    )
]
every_trim = pytest.mark.parametrize(
    "recipe", RECIPES, ids=[f"{r.method}-{r.settings['trim_over']}-{r.dialect}" for r in RECIPES]
)
TIES = RECIPES[0]


def bits(recipe, adapters, kept=None, threads=1):
    merged = merge(recipe, adapters, kept=kept, threads=threads)
    return {module: (x.b.numpy().tobytes(), x.a.numpy().tobytes()) for module, x in merged}


@pytest.fixture
def adapters(tmp_path):
    return PROBLEMS["different modules"](tmp_path / "adapters")


@pytest.fixture
def walks(monkeypatch):
    """(unit, content of the adapters walked over) of every walk that facts ask for."""
    seen = []
    tiles = tiles_of.Tiles.tiles

    def spy(self, unit, only):
        seen.append((unit, frozenset(self.digests[i] for i in self.present(unit) if i in only)))
        return tiles(self, unit, only)

    monkeypatch.setattr(tiles_of.Tiles, "tiles", spy)
    return seen


@every_trim
@pytest.mark.parametrize("threads", [1, 2])
def test_a_warm_merge_is_a_cold_one_bit_for_bit(recipe, threads, adapters, tmp_path):
    retrained = {**adapters, "fr": save_peft(tmp_path / "new", random_factors(99))}
    cold, changed = bits(recipe, adapters), bits(recipe, retrained)
    assert cold != changed
    for _ in range(2):  # writes facts; finds them
        assert bits(recipe, adapters, Kept(tmp_path / "kept"), threads) == cold
    for _ in range(2):  # one adapter is new
        assert bits(recipe, retrained, Kept(tmp_path / "kept"), threads) == changed
    assert bits(recipe, adapters, Kept(tmp_path / "kept"), threads) == cold


@pytest.mark.parametrize("recipe", [RECIPES[0], RECIPES[1]], ids=["adapter", "module"])
def test_only_the_adapter_that_changed_is_walked_again(recipe, adapters, walks, tmp_path):
    bits(recipe, adapters, Kept(tmp_path / "kept"))
    assert {unit for unit, _ in walks} == {module for a in adapters.values() for module in a.modules}
    walks.clear()
    bits(recipe, adapters, Kept(tmp_path / "kept"))
    assert walks == []
    retrained = {**adapters, "fr": save_peft(tmp_path / "new", random_factors(99))}
    bits(recipe, retrained, Kept(tmp_path / "kept"))
    assert {unit for unit, walked in walks if walked} == set(retrained["fr"].modules)
    assert {digest for _, walked in walks for digest in walked} == {retrained["fr"].digest}


def test_facts_hold_in_any_company(adapters, walks, tmp_path):
    bits(TIES, adapters, Kept(tmp_path / "kept"))
    pair = {name: adapters[name] for name in ("de", "ja")}
    weighed = make_recipe("ties", rank=8, settings=TIES.settings, weights={"de": 1.0, "fr": 0.0, "ja": -2.0})
    cold = bits(TIES, pair), bits(weighed, adapters)
    walks.clear()
    assert (
        bits(TIES, pair, Kept(tmp_path / "kept")),
        bits(weighed, adapters, Kept(tmp_path / "kept")),
    ) == cold
    assert walks == []


def test_another_share_is_another_fact(adapters, walks, tmp_path):
    bits(TIES, adapters, Kept(tmp_path / "kept"))
    other = make_recipe("ties", rank=8, settings={"density": 0.6})
    cold = bits(other, adapters)
    walks.clear()
    assert bits(other, adapters, Kept(tmp_path / "kept")) == cold
    assert walks


def test_one_adapter_has_one_file_named_by_its_content(adapters, tmp_path):
    bits(TIES, adapters, Kept(tmp_path / "kept"))
    names = {f"{adapter.digest.removeprefix('sha256:')}.json" for adapter in adapters.values()}
    assert {path.name for path in (tmp_path / "kept").iterdir()} == names


@pytest.mark.parametrize(
    ("method", "space", "weights"),
    [
        ("ties", "knots", None),
        ("ties", "core", None),
        ("ties", "compressed", None),
        # then an adapter may be absent from some of its modules
        ("ties", "delta", {"de": {"depth": [0.0, 1.0]}, "fr": 1.0, "ja": 1.0}),
    ],
)
def test_what_depends_on_the_other_adapters_is_not_kept(method, space, weights, tmp_path):
    adapters = PROBLEMS["random"](tmp_path / "adapters")
    recipe = make_recipe(method, space=space, weights=weights, rank=4, settings={"density": 0.3})
    bits(recipe, adapters, Kept(tmp_path / "kept"))
    assert not (tmp_path / "kept").exists()


def test_what_chance_left_is_not_kept(tmp_path):
    adapters = PROBLEMS["random"](tmp_path / "adapters")
    recipe = make_recipe("dare_ties", rank=8, settings={"density": 0.5, "trim_density": 0.5})
    bits(recipe, adapters, Kept(tmp_path / "kept"))
    assert not (tmp_path / "kept").exists()


def test_a_fact_about_the_values_is_none_about_what_chance_left_of_them(tmp_path):
    adapters = PROBLEMS["random"](tmp_path / "adapters")
    trimmed = make_recipe("ties", rank=8, settings={"density": 0.3})
    drawn = make_recipe("dare_ties", rank=8, settings={"density": 0.5, "trim_density": 0.3})
    cold = bits(drawn, adapters)
    bits(trimmed, adapters, Kept(tmp_path / "kept"))  # as many of as many entries
    assert bits(drawn, adapters, Kept(tmp_path / "kept")) == cold


DAMAGES = {
    "empty": b"",
    "cut off": None,
    "no text": b"\xff\xfe\x00",
    "no mapping": b"[1, 2]",
    "null": b"null",
    "no version": b'{"facts": {}}',
    "another version": json.dumps({"version": VERSION + 1, "facts": {}}).encode(),
    "no facts": json.dumps({"version": VERSION}).encode(),
    "facts of another form": json.dumps({"version": VERSION, "facts": [1]}).encode(),
    "a fact of two numbers": json.dumps({"version": VERSION, "facts": {"x": ["0x1p+0", 1]}}).encode(),
    "a fact that is no number": json.dumps({"version": VERSION, "facts": {"x": ["one", 1, 1]}}).encode(),
    "a count without end": json.dumps({"version": VERSION, "facts": {"x": ["0x1p+0", math.inf, 1]}}).encode(),
    "a magnitude too large": json.dumps({"version": VERSION, "facts": {"x": ["0x1p+9999", 1, 1]}}).encode(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_counts_as_absent_and_is_written_anew(damage, adapters, walks, tmp_path):
    cold = bits(TIES, adapters, Kept(tmp_path / "kept"))
    path = tmp_path / "kept" / f"{adapters['de'].digest.removeprefix('sha256:')}.json"
    whole = path.read_bytes()
    content = DAMAGES[damage]
    path.write_bytes(whole[:-7] if content is None else content)
    walks.clear()
    assert bits(TIES, adapters, Kept(tmp_path / "kept")) == cold
    assert {digest for _, walked in walks for digest in walked} == {adapters["de"].digest}
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_one_harms_nothing(adapters, tmp_path):
    (tmp_path / "kept").write_text("a file")
    assert bits(TIES, adapters, Kept(tmp_path / "kept")) == bits(TIES, adapters)
    assert (tmp_path / "kept").read_text() == "a file"


def test_a_full_disk_harms_nothing(adapters, tmp_path, monkeypatch):
    kept = Kept(tmp_path / "kept")

    def full(path, *_, **__):
        with path.open("w") as file:
            file.write('{"version"')
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        assert bits(TIES, adapters, kept) == bits(TIES, adapters)
    assert not list((tmp_path / "kept").glob("*.json"))
    assert bits(TIES, adapters, Kept(tmp_path / "kept")) == bits(TIES, adapters)  # what it left is no fact


@pytest.mark.parametrize("size", [0.0, 1.5, 5e-324, 1.1754943508222875e-38, 0.1, math.inf])
def test_a_fact_comes_back_to_the_last_bit(size, tmp_path):
    Kept(tmp_path).put("sha256:a", {"3 of 7 in m": Found(size, 2, 5)})
    assert Kept(tmp_path).get("sha256:a", "3 of 7 in m") == Found(size, 2, 5)
    assert Kept(tmp_path).get("sha256:a", "4 of 7 in m") is None
    assert Kept(tmp_path).get("sha256:b", "3 of 7 in m") is None


def test_facts_of_one_adapter_gather_in_its_file(tmp_path):
    Kept(tmp_path).put("sha256:a", {"one": Found(1.0, 0, 1)})
    Kept(tmp_path).put("sha256:a", {"two": Found(2.0, 0, 1)})
    assert Kept(tmp_path).get("sha256:a", "one") == Found(1.0, 0, 1)
    assert Kept(tmp_path).get("sha256:a", "two") == Found(2.0, 0, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_of_facts_that_several_threads_put_at_once_none_is_lost(tmp_path):
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns all the time
    try:
        for trial in range(10):
            kept = Kept(tmp_path / f"{trial}")
            facts = {f"{i}": Found(float(i), i, 1) for i in range(40)}
            with ThreadPoolExecutor(4) as pool:
                for done in [pool.submit(kept.put, "sha256:a", {name: one}) for name, one in facts.items()]:
                    done.result()
            assert {name: kept.get("sha256:a", name) for name in facts} == facts
            again = Kept(tmp_path / f"{trial}")
            assert {name: again.get("sha256:a", name) for name in facts} == facts
    finally:
        sys.setswitchinterval(switch)
