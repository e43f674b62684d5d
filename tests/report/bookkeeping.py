"""Steps, costs and runs made by hand, for the tests of reports."""

from __future__ import annotations

from sabir.report.costs import cost_rows


def step(name, kind, seconds=1.0, **changes):
    """A step that took some seconds on one device."""
    return {
        "name": name,
        "kind": kind,
        "fingerprint": name,
        "status": "run",
        "why": "new",
        "size": 10.0,
        "wall_s": seconds,
        "device_s": seconds,
        **changes,
    }


STEPS = [
    step("adapter/en", "adapter", 30.0),
    step("adapter/de", "adapter", 50.0),
    step("adapter/fr", "adapter", 20.0),
    step("adapter/combined", "adapter", 90.0),
    step("merged/ties", "merged", 4.0),
    step("outputs/merged/ties/de/valid", "outputs", 2.0),
    step("outputs/merged/ties/de/test", "outputs", 3.0),
    step("outputs/adapter/combined/de/test", "outputs", 5.0),
]
RUN = {"run": "1", "phase": "setup", "usd_per_hour": None}


def trainings(seconds, **changes):
    """Trainings of these lengths by name: adapter/<name>."""
    return [step(f"adapter/{name}", "adapter", each, **changes) for name, each in seconds.items()]


def rows_of(steps, **changes):
    """Cost rows of a run on one device."""
    return cost_rows(steps, **{"devices": 1, **RUN, **changes})


def found(rows, route, component):
    return next(row for row in rows if (row["route"], row["component"]) == (route, component))


def cells(table, work):
    """The row of a table of costs for some work."""
    return next(row for row in table.rows if row[1].strip(" ~") == work)


TRIALS = [
    {"settings": {"scale": 0.5, "density": 1.0}, "weights": None, "value": 0.75},
    {"settings": {"scale": 0.31, "density": 0.2}, "weights": {"de": 1.5, "en": 0.25}, "value": 0.8125},
]
SEARCH = {
    "method": "tpe",
    "budget": 2,
    "seed": 0,
    "metric": "accuracy",
    "recipe": {"method": "ties"},
    "chosen": TRIALS[1],
    "trials": TRIALS,
}
