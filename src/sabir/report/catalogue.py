"""What can be named in a config: methods, spaces, recipes, tasks, metrics, backends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sabir.catalog import Entry, did_you_mean
from sabir.errors import InputError
from sabir.report.tables import Table

BACKENDS = {
    "local": "Processes on this machine: one job per GPU, or an equal share of the cores each.",
    "inline": "One job after the other in this process, for debuggers and notebooks.",
}
KINDS = ("methods", "spaces", "recipes", "tasks", "metrics", "backends")


def entries(what: str) -> list[dict[str, Any]]:
    """Name, summary, settings and source of each. Raises InputError for an unknown list.

    Settings are name -> default (null when required); of a recipe, the values its authors recommend to start
    from, which are never set by themselves.
    """
    if what == "backends":
        return [
            {"name": name, "summary": text, "settings": {}, "source": ""} for name, text in BACKENDS.items()
        ]
    if what == "recipes":
        from sabir.merging.recipe import RECIPES

        return [
            {
                "name": name,
                "summary": f"the method {row.recipe.method} in the space {row.recipe.space}",
                "settings": dict(row.recommended),
                "source": row.source,
            }
            for name, row in RECIPES.items()
        ]
    if what not in KINDS:
        raise InputError(
            "list", f"no such list: {what!r}.", f"Known are: {', '.join(KINDS)}.{did_you_mean(what, KINDS)}"
        )
    return [_described(entry) for entry in _catalog(what)]


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
    return {"name": entry.name, "summary": entry.summary, "settings": settings, "source": entry.source}


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
    settings = "start from" if what == "recipes" else "settings"
    return Table(what, ("name", "what it is", settings, "source"), rows)
