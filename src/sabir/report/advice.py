"""Advice from a document: which recipe to take, and when not to merge. Every sentence carries its numbers.

What the rows cannot tell is not advised on: a rival is better where the interval of the difference says so, or, where
the two were not compared, where the rival is the best of all and the selected merge is not tied with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sabir.names import COMBINED, CONTINUED, MACRO, OWN, ROUTED, TRANSLATED
from sabir.report.models import in_one_row, in_prose, is_combined, is_untrained
from sabir.report.money import saved_so_far
from sabir.report.quality import mean_of, on_split
from sabir.report.tables import Document
from sabir.report.verdicts import MOST_NAMED, Pair, between, pairs, size_of
from sabir.report.words import counted, hours, listed, percent, score

PLAIN_NAMES = (
    "average",
    "linear",
)  # recipes of plain averaging, where a document does not say what its merges are

Row = Mapping[str, Any]


def advice(document: Document) -> list[str]:
    """What to do next, a sentence or two each, what weighs most first; nothing before a merge was compared."""
    selected = document["selected"]
    if selected is None or not (document["comparisons"] or document.get("standings")):
        return []
    known = _Known(document)
    parts = (
        _do_not_train(known),
        _refused(known),
        _translate(known),
        _side_by_side(known),
        _retrain(known),
        _leave_out(known),
        _recipe(known),
        _more_rows(known),
    )
    return [sentence for part in parts for sentence in part]


@dataclass(frozen=True)
class _Known:
    """A document, and what is asked of it more than once."""

    document: Document

    @property
    def selected(self) -> str:
        return self.document["selected"]

    @property
    def languages(self) -> list[str]:
        return self.document["languages"]

    @property
    def margin(self) -> float:
        """The largest drop one would accept."""
        return max((row["margin"] for row in self.document["comparisons"]), default=0.0)

    @property
    def standing(self) -> tuple[str | None, list[str]]:
        """The best model of the mean over languages, and those not significantly worse; (None, []): not known."""
        metric = self.document["metric"]
        for row in self.document.get("standings") or ():
            if row["language"] == MACRO and row["metric"] == metric:
                best = in_one_row([row["best"]])[0]
                return best, [model for model in in_one_row(row["tied"]) if model != best]
        return None, []

    @property
    def opponents(self) -> list[Pair]:
        return [pair for pair in pairs(self.document) if pair.a == self.selected]

    def mean(self, model: str) -> float | None:
        row = mean_of(on_split(self.document, "test", self.document["metric"]), model, self.languages)
        return None if row is None else row["value"]

    def named(self, model: str) -> str:
        """A model with its mean: "merged/ties (0.612)"."""
        mean = self.mean(model)
        return in_prose(model) if mean is None else f"{in_prose(model)} ({score(mean)})"

    def loss(self, rival: str) -> Row | None:
        """The selected merge minus a rival on average, where the rival is surely better; else None."""
        row = between(self.document, self.selected, rival)
        if row is not None:
            return row if row["high"] is not None and row["high"] < 0 else None
        best, tied = self.standing
        ours, theirs = self.mean(self.selected), self.mean(rival)
        if best != rival or self.selected in tied or ours is None or theirs is None:
            return None
        return {"difference": ours - theirs, "low": None, "high": None}

    def recipe(self, model: str) -> Row | None:
        return (self.document.get("recipes") or {}).get(model)


# --- when not to merge -----------------------------------------------------------------------------------


def _do_not_train(known: _Known) -> list[str]:
    best, tied = known.standing
    if best is None:
        return []
    if not is_untrained(best):
        untrained = [model for model in tied if is_untrained(model) and not _beaten(known, model)]
        if not untrained:
            return []
        return [
            f"These rows do not show that training helps: {known.named(untrained[0])} is not significantly worse on "
            f"average than the best of all, {known.named(best)}."
        ]
    trained = [model for model in tied if not is_untrained(model)]
    if trained:
        return [
            f"These rows do not show that training helps: {known.named(best)} is the best of all on average, not "
            f"significantly better than {_named(known, trained)}."
        ]
    return [
        f"Do not train for this: {known.named(best)} is significantly better on average than every trained model; "
        f"the selected merge is {known.named(known.selected)}."
    ]


def _beaten(known: _Known, model: str) -> bool:
    """Whether a trained model was compared with this one, and is surely better."""
    for pair in pairs(known.document):
        for one, other in ((pair.a, pair.b), (pair.b, pair.a)):
            row = between(known.document, one, other) if other == model and not is_untrained(one) else None
            if row is not None and row["low"] is not None and row["low"] > 0:
                return True
    return False


def _refused(known: _Known) -> list[str]:
    """Where parity was refused on average: there is nothing yet that merging could keep."""
    trained = (pair for pair in known.opponents if is_combined(pair.b) or pair.b == OWN)
    refused = [pair for pair in trained if pair.mean is not None and pair.mean.get("why")]
    if not refused or any(is_untrained(model) for model in (known.standing[0] or "", *known.standing[1])):
        return []  # said already
    return [
        f"Train better before comparing merges: {known.named(refused[0].b)} is not better than the bare base model "
        "on average, so there is nothing yet that a merge could keep or lose."
    ]


def _translate(known: _Known) -> list[str]:
    loss = known.loss(TRANSLATED)
    if loss is None:
        return []
    return [
        f"Translate instead: translating the question and asking one adapter is better than {known.selected} by "
        f"{size_of(loss)} on average, at the price of a translation for each question."
    ]


def _side_by_side(known: _Known) -> list[str]:
    """Own adapters instead of a merge, where that gains more than the margin."""
    for rival in (ROUTED, OWN):
        loss = known.loss(rival)
        if loss is None or -loss["difference"] <= known.margin:
            continue
        how = "Serve the adapters side by side"
        if rival == OWN and between(known.document, known.selected, ROUTED) is None:
            how += " where the language of a text is known (rivals: {routed: ...} shows what a detector would lose)"
        elif rival == OWN:
            how += " where the language of a text is known; a detector loses too much of it"
        return [
            f"{how}: {in_prose(rival)} is better than {known.selected} by {size_of(loss)} on average, more than the "
            f"margin of {known.margin:g}. {_memory(known)}"
        ]
    return []


def _memory(known: _Known) -> str:
    held = known.document.get("parameters") or {}
    adapters = f"It keeps {counted(len(known.languages), 'adapter')} in memory in place of one"
    ours, theirs = held.get(known.selected), held.get(ROUTED)
    if not ours or not theirs:
        return f"{adapters}."
    if theirs <= ours:
        return f"{adapters}, and no more parameters: {theirs:,}, where the merge has {ours:,} at the rank it is served."
    return f"{adapters}: {theirs:,} parameters in place of {ours:,}."


def _retrain(known: _Known) -> list[str]:
    """Training on all data instead of merging, with what that costs at every update."""
    losses = {pair.b: loss for pair in known.opponents if (loss := known.loss(pair.b)) is not None}
    rivals = [model for model in losses if is_combined(model) or model == CONTINUED]
    if not rivals:
        return []
    rival = min(rivals, key=lambda model: losses[model]["difference"])
    better = f"{in_prose(rival)} is better than {known.selected} by {size_of(losses[rival])} on average"
    if rival == CONTINUED:
        return [f"Train the combined adapter on with new rows instead of merging: {better}."]
    saved = saved_so_far(known.document.get("costs") or ())
    if saved is None:
        cost = "What merging would save at an update was not measured yet: sabir plan --what-if estimates it."
    elif saved.device_s > 0:
        cost = (
            f"Merging saved {hours(saved.device_s / saved.updates)} device h ({percent(saved.share)}) at "
            f"{'the one update' if saved.updates == 1 else f'each of {saved.updates:,} updates'} so far; that would be "
            "lost."
        )
    else:
        cost = f"Merging saved no device time in {counted(saved.updates, 'update')} so far."
    return [f"Where updates are rare, retrain on all data: {better}. {cost}"]


def _leave_out(known: _Known) -> list[str]:
    """Single languages that the merge costs more than their own adapter is worth giving up for."""
    pair = next((pair for pair in known.opponents if pair.b == OWN), None)
    if pair is None or len(pair.languages) < 2:
        return []
    worse = pair.with_verdict("worse")
    if not worse or len(worse) == len(pair.languages):
        return []
    worst = sorted(worse, key=lambda row: row["difference"])
    which = listed([row["language"] for row in worst], MOST_NAMED)
    adapters = "its own adapter" if len(worst) == 1 else "their own adapters"
    told = listed([f"{size_of(row)} in {row['language']}" for row in worst], MOST_NAMED, "; ")
    return [f"Leave {which} out of the merge and serve {adapters}: {known.selected} loses {told}."]


# --- which recipe ----------------------------------------------------------------------------------------


def _recipe(known: _Known) -> list[str]:
    """The selected merge, and a simpler one where it does as well."""
    merges = [
        model
        for model in in_one_row(row["model"] for row in known.document["scores"] if row["split"] == "test")
        if model.startswith("merged/") and model != known.selected
    ]
    if any(known.loss(pair.b) is not None for pair in known.opponents if not is_untrained(pair.b)):
        start = "If you merge, take"
    else:
        start = "Take"
    simpler = sorted(
        (model for model in merges if _effort(known, model) < _effort(known, known.selected)),
        key=lambda model: _effort(known, model),
    )
    for model in simpler:
        if (how := _as_good(known, model)) is not None:
            return [f"{start} {known.named(model)}, {_EFFORTS[_effort(known, model)]}: {how}."]
    alike = [model for model in merges if known.selected in _group(known) and model in _group(known)]
    told = f"{start} {known.named(known.selected)}: it is the best on the validation rows"
    if alike:
        told += f"; on the test rows it cannot be told from {_named(known, alike)}"
    sentences = [f"{told}."]
    if known.document.get("recipes") and not any(
        _effort(known, model) == 0 for model in (known.selected, *merges)
    ):
        sentences.append(
            "Plain averaging was not tried: `averages: averages` under merges: shows whether the recipe earns its "
            "settings."
        )
    return sentences


_EFFORTS = ("plain averaging", "weighted averaging", "a recipe without a search", "the result of a search")


def _effort(known: _Known, model: str) -> int:
    """How much there is to choose in a merge: an index of `_EFFORTS`."""
    if model in (known.document.get("searches") or {}):
        return 3
    recipe = known.recipe(model)
    if recipe is None:
        name = model.removeprefix("merged/").partition("[")[0]
        return 0 if name in PLAIN_NAMES else 2
    if recipe["method"] != "linear" or "space" in recipe:
        return 2
    return 1 if recipe.get("weights") else 0


def _group(known: _Known) -> list[str]:
    best, tied = known.standing
    return [] if best is None else [best, *tied]


def _as_good(known: _Known, model: str) -> str | None:
    """Why a merge does as well as the selected one, in words; None where it does not, or where that is not known."""
    row = between(known.document, known.selected, model)
    if _loses(known, model) and not _loses(known, known.selected):
        return None
    if row is not None and row["low"] is not None:
        if row["low"] > 0:
            return None
        if row["high"] < 0:
            return f"it is better than {known.named(known.selected)} by {size_of(row)} on average"
        return (
            f"{known.named(known.selected)} is not significantly better on average ({row['difference']:+.3f} "
            f"[{row['low']:+.3f}, {row['high']:+.3f}])"
        )
    group = _group(known)
    if model not in group:
        return None
    if known.selected in group:
        best = (
            "the best of all" if group[0] in (model, known.selected) else f"the best, {known.named(group[0])}"
        )
        return f"neither it nor {known.named(known.selected)} can be told from {best} on the test rows"
    return (
        f"on the test rows it is not significantly worse than the best, and {known.named(known.selected)} is"
    )


def _loses(known: _Known, model: str) -> bool:
    """Whether a model is surely worse than the combined adapter."""
    row = between(known.document, model, COMBINED)
    return row is not None and row["high"] is not None and row["high"] < 0


def _named(known: _Known, models: Iterable[str]) -> str:
    return listed([known.named(model) for model in models], MOST_NAMED)


# --- more rows -------------------------------------------------------------------------------------------


def _more_rows(known: _Known) -> list[str]:
    """Where these rows cannot decide, how many it takes; of the first rival that is trained on the same data."""
    pair = next((pair for pair in known.opponents if is_combined(pair.b) or pair.b == OWN), None)
    if pair is None or known.margin <= 0:
        return []
    too_few = [
        row
        for row in pair.with_verdict("undecided")
        if row.get("detectable") is None or row["detectable"] > known.margin
    ]
    if not too_few:
        return []
    trainings = max((row.get("seeds") or 1 for row in too_few), default=1)
    if trainings > 1:
        return [
            f"{trainings} trainings and these test rows cannot tell {known.selected} from {in_prose(pair.b)} in "
            f"{listed([row['language'] for row in too_few], MOST_NAMED)}: more of both are needed (seeds:, test rows)."
        ]
    told = [f"{row['language']} {_rows_needed(row, known.margin)}" for row in too_few]
    which = "any language" if len(too_few) == len(pair.languages) else "every language"
    return [
        f"More test rows are needed before {known.selected} can be told from {in_prose(pair.b)} in {which}. To show a "
        f"difference of {known.margin:g}: {listed(told, MOST_NAMED, '; ')}."
    ]


def _rows_needed(row: Row, margin: float) -> str:
    """ "some 1,900 (has 94)": a test set shows half the difference with four times the rows."""
    if row.get("detectable") is None or not row["n"]:
        return f"many more than the {row['n']:,} there are"
    needed = row["n"] * (row["detectable"] / margin) ** 2
    rounded = round(needed, 1 - math.floor(math.log10(needed)))
    return f"some {rounded:,.0f} (there are {row['n']:,})"
