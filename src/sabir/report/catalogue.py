"""What can be named in a config: methods, spaces, dialects, recipes, presets, tasks, metrics, backends."""

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
KINDS = ("methods", "spaces", "dialects", "recipes", "presets", "tasks", "metrics", "backends")


def entries(what: str) -> list[dict[str, Any]]:
    """Name, summary, settings and source of each. Raises InputError for an unknown list.

    Settings are name -> default (null when required, or left to the dialect); of a recipe, the values its
    authors recommend to start from, which are never set by themselves; of a preset, what each merge has.
    """
    if what == "backends":
        return [_row(name, text) for name, text in BACKENDS.items()]
    if what in ("dialects", "recipes", "presets"):
        return _of_merging(what)
    if what not in KINDS:
        raise InputError(
            "list", f"no such list: {what!r}.", f"Known are: {', '.join(KINDS)}.{did_you_mean(what, KINDS)}"
        )
    return [_described(entry) for entry in _catalog(what)]


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
            _row(preset, f"{merge}: the recipe {recipe} in the dialect {choices['dialect']}", settings)
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
    if what == "tasks":
        from sabir.tasks import TASKS

        return TASKS
    from sabir.metrics import METRICS

    return METRICS


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
    rows = tuple(
        (
            entry["name"],
            entry["summary"],
            ", ".join(
                f"{name} = {value!r}" if value is not None else name
                for name, value in entry["settings"].items()
            ),
            entry["source"],
        )
        for entry in found
    )
    settings = {"recipes": "start from", "presets": "with"}.get(what, "settings")
    return Table(what, ("name", "what it is", settings, "source"), rows)
