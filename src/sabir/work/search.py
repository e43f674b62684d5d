"""Step `search`: an optimiser looks for the settings and weights of one merge, judged on the validation rows.

What is looked for, and where it starts, is known without torch (`open_space`), so that a config can be checked
and a plan made at once.
"""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sabir.catalog import did_you_mean
from sabir.errors import InputError, SabirError
from sabir.lora.files import open_adapter
from sabir.merging.by_module import leaves
from sabir.merging.choices import from_identity
from sabir.merging.methods import METHODS
from sabir.merging.published import RECIPES
from sabir.merging.recipe import Recipe, adapter_weights
from sabir.work import Outcome, Work
from sabir.work.merge import merge_below, move_up
from sabir.work.prepare import read_examples

WEIGHTS = "weights"
TRIALS = "trials.jsonl"  # what was scored so far: a search that was stopped goes on from there
TRIES = 10  # points asked of the optimiser, per merge to score: in a small space it repeats itself


@dataclass(frozen=True)
class Span:
    """Where one number is looked for, evenly, or evenly in its logarithm."""

    low: float
    high: float
    log: bool = False

    def near(self, value: float) -> float:
        """The value itself, or the nearer end."""
        return min(max(value, self.low), self.high)


SPANS: Mapping[str, Span] = {
    "scale": Span(0.1, 2.0, log=True),
    "density": Span(0.05, 1.0),
    "trim_density": Span(0.05, 1.0),
    "epsilon": Span(0.0, 0.5),
    "outliers": Span(0.0, 0.2),
    "common": Span(0.0, 1.0),
}
EDGE = 0.01  # the least chance of an entry to be dropped, and to be kept
TIMES_DEFAULT = Span(0.0, 2.0)  # a weight, as a multiple of what the method takes by itself


@dataclass(frozen=True)
class Space:
    """What a search looks for, and the points it tries first.

    Args:
        spans: by setting; "weights.de" is German's weight, as a multiple of the method's own.
        first: values for all of them: what is recommended for the recipe, then the method's defaults, each with
            equal weights.
    """

    spans: Mapping[str, Span]
    first: tuple[Mapping[str, float], ...]

    def identity(self) -> dict[str, Any]:
        """JSON-able, to be read by `from_json`."""
        spans = {name: [span.low, span.high, span.log] for name, span in self.spans.items()}
        return {"spans": spans, "first": [dict(point) for point in self.first]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Space:
        return cls({name: Span(*span) for name, span in value["spans"].items()}, tuple(value["first"]))


def open_space(
    recipe: Recipe,
    languages: Sequence[str],
    *,
    fixed: Collection[str],
    over: Sequence[str] | None,
    where: str = "",
) -> Space:
    """The numbers of a recipe that are open to a search.

    Args:
        recipe: with the settings that are fixed.
        fixed: names of these settings, and "weights" where weights are fixed.
        over: names to look for alone; None looks for all that are open.
    Raises InputError when `over` names one that is not open, or nothing is.
    """
    known = [name for name in SPANS if name in METHODS.get(recipe.method).settings]
    if recipe.dialect not in ("sabir", "paper"):  # the others have no trim after the draw
        known = [name for name in known if name != "trim_density"]
    if len(languages) > 1 and recipe.dialect != "paper":  # the paper's merges weigh all alike
        known.append(WEIGHTS)
    open_names = [name for name in known if name not in fixed]
    for name in over or ():
        if name in known and name in fixed:
            raise InputError(
                f"{where}.over", f"{name!r} is fixed by this entry.", "Leave out one of the two."
            )
        if name not in known:
            said = f"{recipe.method!r} can be searched over: {', '.join(known)}."
            raise InputError(
                f"{where}.over", f"{name!r} cannot be searched.", f"{said}{did_you_mean(name, known)}"
            )
    if over is None and not open_names:
        raise InputError(where, "there is nothing to search: every setting is fixed.", "Leave one open.")
    chosen = [name for name in open_names if over is None or name in over]
    spans = _narrowed({name: SPANS[name] for name in chosen if name != WEIGHTS}, recipe)
    if WEIGHTS in chosen:
        alone = METHODS.get(recipe.method).facts.get("compares")  # it needs two adapters, so none may go
        span = replace(TIMES_DEFAULT, low=EDGE) if alone else TIMES_DEFAULT
        spans |= {f"{WEIGHTS}.{language}": span for language in sorted(languages)}
    return Space(spans, _first(recipe, spans))


def _narrowed(spans: dict[str, Span], recipe: Recipe) -> dict[str, Span]:
    """Of density and epsilon, of which one is open, the span in which density ± epsilon are chances."""
    known = METHODS.get(recipe.method).settings
    if "epsilon" not in known or len(spans.keys() & {"density", "epsilon"}) != 1:
        return spans
    density, epsilon = (
        [one for _, one in leaves(recipe.settings.get(name, known[name].default))]
        for name in ("density", "epsilon")
    )
    if "density" in spans:
        room = max(epsilon) + EDGE
        return {**spans, "density": Span(room, 1 - room)}
    return {**spans, "epsilon": Span(0.0, max(0.0, _room(density) - EDGE))}


def _room(densities: Sequence[float]) -> float:
    """How far an epsilon may go from these densities; at density 1 nothing is drawn, so it is idle."""
    return min((min(one, 1 - one) for one in densities if one != 1), default=0.0)


def _first(recipe: Recipe, spans: Mapping[str, Span]) -> tuple[Mapping[str, float], ...]:
    known = METHODS.get(recipe.method).settings
    default = {name: 1.0 if name.startswith(WEIGHTS) else known[name].default for name in spans}
    named = [
        row.recommended
        for row in RECIPES.values()
        if (row.recipe.method, row.recipe.space) == (recipe.method, recipe.space)
        and row.recipe.weights == (None if isinstance(recipe.weights, Mapping) else recipe.weights)
    ]
    points = [{name: row.get(name, default[name]) for name in spans} for row in [*named, {}]]
    near = [{name: spans[name].near(value) for name, value in point.items()} for point in points]
    return tuple(point for place, point in enumerate(near) if point not in near[:place])


def at_point(
    fixed: Mapping[str, Any], point: Mapping[str, float], languages: Sequence[str], where: str = ""
) -> Recipe:
    """The recipe with the settings and weights of a point of its space.

    Args:
        fixed: identity of the recipe with what is fixed.
    """
    values = {name: value for name, value in point.items() if not name.startswith(WEIGHTS)}
    if {"density", "epsilon"} <= set(values):
        values["epsilon"] = min(values["epsilon"], _rounded(0.99 * _room([values["density"]])))
    times = {name.partition(".")[2]: value for name, value in point.items() if name not in values}
    chosen = {**fixed, "settings": {**fixed.get("settings", {}), **values}}
    if set(times.values()) not in (set(), {0.0}, {1.0}):  # all zero merges nothing: as if all weighed alike
        own = adapter_weights(from_identity(fixed, where), languages)
        chosen["weights"] = {language: times[language] * own[language] for language in languages}
    return from_identity(chosen, where)


def check_installed(where: str) -> None:
    """Raise InputError where Optuna, which proposes the points, is not installed."""
    if find_spec("optuna") is None:
        raise InputError(where, "a search needs Optuna.", "Install it: pip install 'sabir[search]'.")


# --- the step --------------------------------------------------------------------------------------------


def search(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Merge and score with one setting after another; the folder is the best one's, as if merged by hand.

    Inputs are the adapters by language and their rows as "rows/<language>". The same settings and inputs give
    the same trials, with one version of Optuna on one kind of device.
    """
    for work in works:
        yield work.name, _Search(work).run()


class _Search:
    """One search: what it merges, how it scores, what it has scored."""

    def __init__(self, work: Work):
        from sabir.model.loading import Models, load_tokenizer

        self.work = work
        self.base = work.args["base"]
        self.languages = sorted(role for role in work.inputs if not role.startswith("rows/"))
        self.adapters = {language: open_adapter(work.inputs[language]) for language in self.languages}
        self.rows = {
            language: read_examples(work.inputs[f"rows/{language}"], "valid") for language in self.languages
        }
        self.tokenizer = load_tokenizer(self.base["folder"])
        self.models = Models(self.base["folder"], device=work.device)
        self.tokens = 0
        for path in work.out.iterdir():  # what a search that was stopped left
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != TRIALS:
                path.unlink()
        self.trials = _read_trials(work.out / TRIALS)

    def run(self) -> Outcome:
        from sabir.model.loading import peak_device_bytes

        settings = self.work.settings["search"]
        space = Space.from_json(self.work.settings["space"])
        found: dict[str, dict[str, Any]] = {}
        recipes: dict[str, Recipe] = {}

        def judged(point: Mapping[str, float]) -> float:
            recipe = at_point(self.work.settings["recipe"], point, self.languages, self.work.name)
            key = json.dumps(recipe.identity(), sort_keys=True)
            if key not in found:
                recipes[key] = recipe
                found[key] = {**self.choice(recipe, point), "value": self.value(recipe, key)}
                self.work.emit(len(found), settings["budget"])
            return found[key]["value"]

        optimise(judged, space, done=lambda: len(found) >= settings["budget"], **settings)
        best = max(found, key=lambda key: found[key]["value"])  # the first of equal ones
        merged = merge_below(self.work, "best", recipes[best], self.adapters)
        move_up(self.work.out / "best")
        (self.work.out / TRIALS).unlink()
        return {
            "tokens": self.tokens,
            "peak_bytes": peak_device_bytes(self.work.device),
            "result": {
                **merged,
                **settings,
                "metric": self.work.settings["metric"],
                "recipe": recipes[best].identity(),
                "chosen": found[best],
                "trials": list(found.values()),
            },
        }

    def choice(self, recipe: Recipe, point: Mapping[str, float]) -> dict[str, Any]:
        """What a point stands for, as it would be written into a config."""
        settings = {name: recipe.settings[name] for name in point if not name.startswith(WEIGHTS)}
        weights = dict(recipe.weights) if isinstance(recipe.weights, Mapping) else None
        return {"settings": settings, "weights": weights}

    def value(self, recipe: Recipe, key: str) -> float:
        """The mean score over languages of one merge: known from an earlier try, or merged and scored now."""
        if key not in self.trials:
            folder = self.work.out / "trial"
            merge_below(self.work, folder.name, recipe, self.adapters)
            self.trials[key] = self.score(folder)
            shutil.rmtree(folder)
            with open(self.work.out / TRIALS, "a", encoding="utf-8") as file:
                file.write(json.dumps([key, self.trials[key]]) + "\n")
        return self.trials[key]

    def score(self, folder: Path) -> float:
        from sabir.metrics import METRICS, measure
        from sabir.stats import bootstrap_macro
        from sabir.work.outputs import answers

        settings, metric = self.work.settings, self.work.settings["metric"]
        groups = []
        with self.models.at(folder) as model:
            for language, examples in self.rows.items():
                found, tokens = answers(
                    model,
                    self.tokenizer,
                    examples,
                    settings={
                        **settings["decoding"],
                        "language": language,
                        "max_length": settings["max_length"][language],
                    },
                    batch_size=self.work.args["batch_size"],
                )
                self.tokens += tokens
                measured = measure(
                    metric,
                    [answer["prediction"] for answer in found],
                    [example.target for example in examples],
                    labels=settings["labels"] or None,
                    language=language,
                    sources=[example.prompt.source for example in examples],
                    scores=[answer.get("scores") for answer in found],
                )
                groups.append(measured.statistics)
        mean = bootstrap_macro(groups, METRICS.get(metric).facts["value"], seed=0, resamples=FEW).value
        if mean is None or math.isnan(mean):
            raise SabirError(self.work.name, f"has no {metric} on validation: a language has no scored row.")
        return float(mean)


FEW = 100  # resamples: the interval is not used


def _read_trials(path: Path) -> dict[str, float]:
    """What an earlier try of this search scored; a line it did not finish is scored again."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return dict(json.loads(line) for line in lines)


# --- the optimiser ---------------------------------------------------------------------------------------


def optimise(
    judged: Callable[[Mapping[str, float]], float],
    space: Space,
    *,
    method: str,
    budget: int,
    seed: int,
    done: Callable[[], bool],
) -> None:
    """Propose points to `judged`, which gives each its value (larger is better), until it is `done`.

    The points of `space.first` come first. Ends early where a small space has nothing new to propose.

    Args:
        budget: how many points `done` waits for.
        method: see `SearchConfig`.
    """
    check_installed("search")
    with _silent():
        import optuna
        from optuna.distributions import BaseDistribution, FloatDistribution

        samplers: dict[str, Callable[[], Any]] = {
            "tpe": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True),
            "gp": lambda: optuna.samplers.GPSampler(seed=seed),
            "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        }
        spans: dict[str, BaseDistribution] = {
            name: FloatDistribution(span.low, span.high, log=span.log) for name, span in space.spans.items()
        }
        study = optuna.create_study(direction="maximize", sampler=samplers[method]())
        for point in space.first:
            study.enqueue_trial(dict(point))
        for _ in range(TRIES * budget):
            if done():
                break
            trial = study.ask(spans)
            study.tell(trial, judged({name: _rounded(value) for name, value in trial.params.items()}))


def _rounded(value: float) -> float:
    """Three digits: what was chosen can be read, and written into a config."""
    return float(f"{value:.3g}")


@contextmanager
def _silent() -> Iterator[None]:
    """Optuna tells nothing on the terminal: neither studies and trials, nor that a sampler is experimental."""
    import optuna

    shown = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(shown)
