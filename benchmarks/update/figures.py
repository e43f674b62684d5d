"""What a way to do an update gave and cost, from its documents, its store and its entry in the ledger."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sabir.engine.store import Store
from sabir.metrics import METRICS
from sabir.report.baseline import prediction_error
from sabir.report.costs import component, usd
from sabir.stats import paired_difference, paired_macro, verdict
from sabir.work.scores import SEED, statistics

COMBINED, CONTINUED = "adapter/combined", "adapter/continued"


@dataclass(frozen=True)
class Way:
    """A run that did the update (or the set-up): its `run` document, its entry in the ledger, and the spans of its
    jobs, (begin, end) in seconds of one clock."""

    name: str
    store: Store
    document: Mapping[str, Any]
    entry: Mapping[str, Any]
    wall_s: float
    spans: Sequence[tuple[float, float]]

    @property
    def merge(self) -> str:
        """The merge that validation chose."""
        return self.document["selected"]

    def statistics(self, model: str, language: str) -> Any:
        """Per-row statistics of the metric that decides, on test rows."""
        name = f"scores/{model}/{language}/test"
        fingerprint = next(step["fingerprint"] for step in self.document["steps"] if step["name"] == name)
        return statistics(self.store.folder(fingerprint), self.document["metric"])


# --- quality ---------------------------------------------------------------------------------------------


def figures(before: Way, ways: Mapping[str, Way], grown: str) -> dict[str, Any]:
    """Quality of every model that an update gave, and cost of every way, as the tables want them."""
    own, scratch = f"adapter/{grown}", ways["scratch"]
    going_on = [way for way in ways.values() if way.name.startswith("continue ")]
    quality = [_quality("own, before", before, own, (before, own), None, grown)]
    quality += [
        _quality(f"own, {way.name}", way, own, (before, own), (scratch, own), grown)
        for way in (scratch, *going_on)
    ]
    old, new = (before, before.merge), (scratch, scratch.merge)
    quality += [_quality("merge, before", before, before.merge, old, None, grown)]
    quality += [
        _quality(f"merge, {way.name}", way, way.merge, old, new, grown) for way in (scratch, *going_on)
    ]
    quality += [
        _quality("combined, before", before, COMBINED, (before, COMBINED), new, grown),
        _quality("combined, continued", ways["continued"], CONTINUED, (before, COMBINED), new, grown),
        _quality("combined, retrained", ways["retrained"], COMBINED, (before, COMBINED), new, grown),
    ]
    return {"quality": quality, "costs": costs(before, ways)}


def _quality(
    name: str, way: Way, model: str, old: tuple[Way, str], new: tuple[Way, str] | None, grown: str
) -> dict[str, Any]:
    """Scores of a model on the updated language and in the mean of the others, and differences to two models.

    Args:
        old: the model of its kind before the update; new: what the update from scratch gave of its kind, and
            beside a combined adapter the merge.
    """
    others = [one for one in way.document["languages"] if one != grown]
    own = model == f"adapter/{grown}"
    rows: dict[str, Any] = {"name": name, "model": model}
    for part, languages in (("updated", [grown]), ("others", [] if own else others)):
        rows[part] = {
            "score": _mean_score(way, model, languages) if languages else None,
            "to_before": None if (way, model) == old else _difference((way, model), old, languages),
            "to_scratch": None if new in (None, (way, model)) else _difference((way, model), new, languages),
        }
    return rows


def _mean_score(way: Way, model: str, languages: Collection[str]) -> float:
    metric = way.document["metric"]
    found = [
        row["value"]
        for row in way.document["scores"]
        if (row["model"], row["split"], row["metric"]) == (model, "test", metric)
        and row["language"] in languages
    ]
    return sum(found) / len(found)


def _difference(
    a: tuple[Way, str], b: tuple[Way, str] | None, languages: Sequence[str]
) -> dict[str, Any] | None:
    """How much better a is than b on the test rows of the languages, paired by row, in the mean over them."""
    if b is None or not languages:
        return None
    value = METRICS.get(a[0].document["metric"]).facts["value"]
    pairs = [(a[0].statistics(a[1], one), b[0].statistics(b[1], one)) for one in languages]
    paired = (
        paired_difference(*pairs[0], value, seed=SEED)
        if len(pairs) == 1
        else paired_macro(pairs, value, seed=SEED)
    )
    margin = a[0].document["comparisons"][0]["margin"]
    return {**asdict(paired), "margin": margin, "verdict": verdict(paired.low, paired.high, margin)}


# --- cost ------------------------------------------------------------------------------------------------


def costs(before: Way, ways: Mapping[str, Way]) -> list[dict[str, Any]]:
    """Device time of every way by component, and its shares of retraining everything: of the training, of all of it.

    `rest` is what no step accounts for: the run's wall clock while no job ran, and what jobs took beside their steps.
    """
    rows = [_cost(way.name, way) for way in ways.values()]
    scratch = ways["scratch"]
    rows.insert(1, _cost("scratch, selected merge alone", scratch, only=scratch.merge))
    whole = next(row for row in rows if row["name"] == "retrained")
    for row in rows:
        row["tokens_share"] = row["tokens"] / whole["tokens"]
        row["train_share"] = row["train"] / whole["train"]
        row["without_search_share"] = (row["whole"] - row["search"]) / whole["whole"]
        row["whole_share"] = row["whole"] / whole["whole"]
    return [_cost("set-up", before), *rows]


def _cost(name: str, way: Way, only: str | None = None) -> dict[str, Any]:
    """Seconds of device time by component.

    Args:
        only: leave out all other merges, the answers on validation rows and what no step accounts for: what would
            be left if the merge was not chosen anew.
    """
    ran = [step for step in way.entry["steps"] if step["status"] == "run"]
    kept = [step for step in ran if only is None or _is_of(step["name"], only)]
    seconds = dict.fromkeys(("train", "merge", "search", "evaluate"), 0.0)
    for step in kept:
        seconds[component(step)] += step["device_s"]
    busy = sum(end - begin for begin, end in way.spans)
    rest = way.wall_s - _union(way.spans) + busy - sum(step["wall_s"] for step in ran)
    seconds["rest"] = rest if only is None else 0.0
    whole = sum(seconds.values())
    return {
        "name": name,
        **seconds,
        "whole": whole,
        "wall_s": way.wall_s if only is None else None,
        "tokens": sum(step["tokens"] for step in kept if step["kind"] == "adapter"),
        "usd": usd(whole, way.entry["usd_per_hour"]),
        "kinds": _by_kind(kept),
    }


def _is_of(name: str, merge: str) -> bool:
    serves_choice = name.endswith("/valid") or name == "select"
    return not serves_choice and ("merged/" not in name or f"{merge}/" in f"{name}/")


def _by_kind(steps: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for step in steps:
        split = step["name"].rpartition("/")[2]
        kind = f"{step['kind']}, {split}" if split in ("valid", "test") else step["kind"]
        row = found.setdefault(kind, {"steps": 0, "device_s": 0.0})
        row["steps"] += 1
        row["device_s"] += step["device_s"]
    return found


def _union(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds in which at least one span was open."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def error_of_prediction(scratch: Way, retrained: Way) -> dict[str, float]:
    """What the update said that retraining the combined adapter would take, against what it then took."""
    predicted = next(
        row["device_s"]
        for row in scratch.entry["costs"]
        if (row["route"], row["component"], row["measured"]) == ("combined", "train", False)
    )
    measured = next(step["device_s"] for step in retrained.entry["steps"] if step["name"] == COMBINED)
    return {
        "predicted_s": predicted,
        "measured_s": measured,
        "error": prediction_error(predicted, measured),
    }
