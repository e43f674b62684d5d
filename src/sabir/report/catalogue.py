"""What can be named in a config: methods, spaces, dialects, recipes, presets, tasks, metrics, estimators, backends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sabir.catalog import Entry, did_you_mean
from sabir.errors import InputError
from sabir.report.tables import Table

BACKENDS = {
    "local": "Processes on this machine: one job per GPU, or an equal share of the cores each.",
    "ray": "Plain tasks on a Ray cluster, or on one started here: the same steps, processes and bytes.",
    "inline": "One job after the other in this process, for debuggers and notebooks.",
}
KINDS = (
    *("methods", "spaces", "dialects", "recipes", "presets"),
    *("tasks", "metrics", "estimators", "backends"),
)
ANSWERED = {"label": "labels", "choice": "choices", "text": "texts", "phrases": "phrases"}


def entries(what: str) -> list[dict[str, Any]]:
    """Name, summary, settings and source of each. Raises InputError for an unknown list.

    Settings are name -> default (null when required, or left to the dialect); of a recipe, the values its
    authors recommend to start from, which are never set by themselves; of a preset, what each merge has. A metric
    also says what it `needs`, which it is given by the task, and the kinds of answer that it `fits`; a task the kind
    of its `answer` and the `metrics` that it is judged by unless others are named; an estimator what it `needs`, what
    it `assumes`, the kinds of answer that it `answers` for, and what it estimates (`metric`: `error`, `macro_f1`).
    """
    if what == "backends":
        return [_row(name, text) for name, text in BACKENDS.items()]
    if what in ("dialects", "recipes", "presets"):
        return _of_merging(what)
    if what not in KINDS:
        raise InputError(
            "list", f"no such list: {what!r}.", f"Known are: {', '.join(KINDS)}.{did_you_mean(what, KINDS)}"
        )
    if what == "metrics":
        return _of_judging()
    if what == "estimators":
        return _of_estimating()
    return [{**_described(entry), **_of_task(entry, what)} for entry in _catalog(what)]


def _of_judging() -> list[dict[str, Any]]:
    from sabir.metrics import METRICS, needs

    return [
        {
            **_described(entry),
            "fits": list(entry.facts["fits"]),
            "needs": sorted(needs(entry.name)),
        }
        for entry in METRICS
    ]


def _of_estimating() -> list[dict[str, Any]]:
    from sabir.estimate.estimators import ESTIMATORS

    rows = []
    for entry in ESTIMATORS:
        row = _described(entry)
        settings = {
            name: value for name, value in row["settings"].items() if name != "level"
        }  # of every estimate
        facts = {name: _plain(entry.facts[name]) for name in ("needs", "assumes", "answers", "metric")}
        rows.append({**row, "settings": settings, **facts})
    return rows


def _of_task(entry: Entry, what: str) -> dict[str, Any]:
    if what != "tasks":
        return {}
    from sabir.tasks import make_task

    required = {name: ("a", "b") for name, setting in entry.settings.items() if setting.required}  # labels
    made = make_task(entry.name, required)
    return {"answer": made.answer, "metrics": list(made.metrics)}


def _of_merging(what: str) -> list[dict[str, Any]]:
    from sabir.merging.dialects import DIALECTS
    from sabir.merging.published import ALIASES, PRESETS, RECIPES

    if what == "dialects":
        everything = "every method, every space but factors"
        return [
            _row(
                name,
                f"{', '.join(one.methods)} in {', '.join(one.spaces or ())}" if one.methods else everything,
                source=one.source,
            )
            for name, one in DIALECTS.items()
        ]
    if what == "presets":
        return [
            _row(preset, f"{merge}: the recipe {recipe}{_chosen(choices)}", settings)
            for preset, merges in PRESETS.items()
            for merge, (recipe, settings, choices) in merges.items()
        ]
    rows = []
    for name, row in RECIPES.items():
        others = [alias for alias, meant in ALIASES.items() if meant == name]
        also = f" (elsewhere: {', '.join(others)})" if others else ""
        summary = f"the method {row.recipe.method} in the space {row.recipe.space}{also}"
        rows.append(_row(name, summary, row.recommended, row.source))
    return rows


def _chosen(choices: Mapping[str, str]) -> str:
    """How a preset has a recipe otherwise than by its settings."""
    dialect = f" in the dialect {choices['dialect']}" if "dialect" in choices else ""
    return dialect + (", weighted by training rows" if choices.get("weights") == "rows" else "")


def _row(
    name: str, summary: str, settings: Mapping[str, Any] | None = None, source: str = ""
) -> dict[str, Any]:
    return {"name": name, "summary": summary, "settings": dict(settings or {}), "source": source}


def _catalog(what: str) -> Iterable[Entry]:
    if what == "methods":
        from sabir.merging.methods import METHODS

        return METHODS
    if what == "spaces":
        from sabir.merging.spaces import SPACES

        return SPACES
    from sabir.tasks import TASKS

    return TASKS


def _described(entry: Entry) -> dict[str, Any]:
    settings = {
        name: None if setting.required else _plain(setting.default)
        for name, setting in entry.settings.items()
    }
    return _row(entry.name, entry.summary, settings, entry.source)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def table(what: str, found: Iterable[Mapping[str, Any]]) -> Table:
    """The same for people."""
    found = list(found)
    if what == "metrics":
        return Table(
            what,
            ("name", "what it is", "fits answers of", "needs", "source"),
            tuple(
                (row["name"], row["summary"], ", ".join(row["fits"]), ", ".join(row["needs"]), row["source"])
                for row in found
            ),
            ("Name them in task: {metrics: [...]}; the first one selects among merges.",),
        )
    if what == "estimators":
        return _estimators(found)
    settings = {"recipes": "start from", "presets": "with"}.get(what, "settings")
    if what == "tasks":
        return Table(
            what,
            ("name", "what it is", "answer", "judged by", settings),
            tuple(
                (
                    row["name"],
                    row["summary"],
                    row["answer"],
                    ", ".join(row["metrics"]),
                    _told(row["settings"]),
                )
                for row in found
            ),
            ("One of your own: task: {name: my.module:function}, run with --allow-code.",),
        )
    rows = tuple((row["name"], row["summary"], _told(row["settings"]), row["source"]) for row in found)
    return Table(what, ("name", "what it is", settings, "source"), rows)


def _estimators(found: Iterable[Mapping[str, Any]]) -> Table:
    rows = tuple(
        (
            row["name"],
            row["summary"],
            ", ".join(row["needs"]) or "nothing",
            "any"
            if set(row["answers"]) == set(ANSWERED)
            else ", ".join(ANSWERED[one] for one in row["answers"]),
            row["assumes"],
            row["source"],
        )
        for row in found
    )
    notes = (
        "Name one in estimate: {estimator: ...}; without it, the one that the last backtest found best.",
        "Needs, beside labelled rows to refer to: agreement, of members of an ensemble; confidence and probabilities, "
        "the model's own; judged, the answers of another model; labels, some in what is estimated.",
    )
    return Table(
        "estimators", ("name", "what it gives", "needs", "answers", "assumes", "source"), rows, notes
    )


def _told(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value!r}" if value is not None else name for name, value in settings.items())
