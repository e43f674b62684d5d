"""The values a config is made of: frozen, checked, with absolute paths."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from sabir.languages import LanguageConfig, LoraConfig, UpdateConfig
from sabir.settings import Filled, Range, Text

if TYPE_CHECKING:
    from sabir.merging.recipe import Recipe
    from sabir.work.search import Space


Scalar = str | int | float | bool
Value = Scalar | Mapping[str, Any]  # a mapping is a value by module: {depth: [0.2, 1.0]}, {"*.mlp.*": 0.5}

DEFAULT_MERGES = ("average", "ties", "ties-knots")
"""The recipes tried, with their recommended settings, when a config names none."""

MAX_MEMBERS = 500  # a grid or budget beyond it is a slip: every member is merged and scored


@dataclass(frozen=True)
class TaskConfig:
    """The language task: a name of the catalogue, or "my.module:function", and its settings as written (defaults are
    not filled in).

    Args:
        prompts: settings that one language has otherwise, by language: {"de": {"cue": "Antwort:"}}.
        code: the folder modules of the user's own are looked for in; None where none may be run.
    """

    name: str
    settings: Mapping[str, Any]
    prompts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    code: Path | None = None

    def of(self, language: str) -> dict[str, Any]:
        """The task as one language has it, as `make_task` takes it: `name`, `settings`, `code`."""
        settings = {**self.settings, **self.prompts.get(language, {})}
        return {"name": self.name, "settings": settings, "code": self.code}


@dataclass(frozen=True)
class Grid:
    """Several values of one setting, each tried with each of the others."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class SearchConfig:
    """An optimiser that looks for the settings and weights an entry leaves open, on the validation split.

    Args:
        method: of Optuna: its tree-structured Parzen estimator, Gaussian process, or chance.
        budget: merges that are made and scored.
        over: the settings to look for ("scale", "density", "weights", ...); None: all that are open.
    """

    method: Literal["tpe", "gp", "random"] = "tpe"
    budget: Annotated[int, Range(ge=1, le=MAX_MEMBERS)] = 30
    seed: Annotated[int, Range(ge=0)] = 0
    over: Annotated[tuple[Text, ...], Filled()] | None = None


@dataclass(frozen=True)
class MergeConfig:
    """One entry of `merges`: a recipe by name, or a method; what follows where it differs.

    A setting or a weight may be a value by module. With `search`, `settings` and `weights` are those that are
    fixed.
    """

    name: str
    recipe: str | None
    method: str | None
    space: str | None
    settings: Mapping[str, Value | Grid]
    weights: (
        Mapping[str, Value] | Literal["rows"] | None
    )  # by language; "rows": by their numbers of training rows
    rank: int | Literal["exact", "serve", "fold"] | None
    dialect: str | None = None
    dtype: str | None = None
    search: SearchConfig | None = None

    def made(self, settings: Mapping[str, Any], where: str = "") -> Recipe:
        """The recipe of this entry with these settings. Raises InputError for what does not go together."""
        from sabir.merging.choices import make_recipe

        return make_recipe(
            self.recipe or self.method or "",
            space=self.space,
            settings=settings,
            weights=None if self.weights == "rows" else self.weights,
            rank=self.rank,
            dialect=self.dialect,
            dtype=self.dtype,
            where=where or f"merges.{self.name}",
        )

    def weighted(self, rows: Mapping[str, int]) -> MergeConfig:
        """This entry with `weights: rows` in numbers: each language's share of the training rows, times what the
        method gives to all of them together."""
        if self.weights != "rows":
            return self
        if len(set(rows.values())) == 1:
            return replace(self, weights=None)
        from sabir.merging.recipe import adapter_weights

        together = sum(adapter_weights(self.made({}), list(rows)).values())
        total = sum(rows.values())
        return replace(self, weights={language: together * count / total for language, count in rows.items()})

    def space_of_search(self, languages: Collection[str], where: str = "") -> Space:
        """What its search looks for, and where it starts. Raises InputError when that is nothing or unknown."""
        from sabir.work.search import open_space

        assert self.search is not None
        where = where or f"merges.{self.name}"
        return open_space(
            self.made(self.settings, where),
            list(languages),
            fixed=[*self.settings, *([] if self.weights is None else ["weights"])],
            over=self.search.over,
            where=f"{where}.search",
        )


@dataclass(frozen=True)
class SelectConfig:
    """How one merge is chosen among all, on the validation split; metric None is the task's first."""

    by: Literal["macro_mean"] = "macro_mean"
    metric: str | None = None


@dataclass(frozen=True)
class GateConfig:
    """When a new release may replace the current one.

    Args:
        max_drop: the largest drop of the mean over languages that one would accept.
        undecided: what becomes of a release of which the test rows cannot tell.
        incumbent: the model in use before sabir, an adapter's or a whole model's folder: release 0.
    """

    max_drop: Annotated[float, Range(ge=0, le=1)] = 0.02
    undecided: Literal["pass", "refuse"] = "pass"
    incumbent: Path | None = None


@dataclass(frozen=True)
class ServeConfig:
    """Where the current release lies for a server, and in which form; folder None: `serve` in the store."""

    folder: Path | None = None
    form: Literal["adapter", "model"] = "adapter"


@dataclass(frozen=True)
class PricesConfig:
    """What a device hour costs, and a label; None: the tables count hours, and labels."""

    usd_per_hour: Annotated[float, Range(gt=0)] | None = None
    usd_per_label: Annotated[float, Range(gt=0)] | None = None


@dataclass(frozen=True)
class RunConfig:
    """Where and how it runs: never part of any identity. None: chosen on the spot."""

    backend: Literal["local", "inline", "ray"] = "local"
    workers: Annotated[int, Range(ge=1)] | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    store: Path = Path(".sabir")
    micro_batch: Annotated[int, Range(ge=1)] | None = None  # rows on the device at once
    address: str | None = None  # of a Ray cluster; None: one is started on this machine
    memory_gib: Annotated[float, Range(gt=0)] | None = None  # that Ray sets aside for a job


@dataclass(frozen=True)
class EvaluationConfig:
    """How answers are found and scored.

    Args:
        batch_size: rows at once.
        level: of the intervals.
        resamples: of the bootstrap.
        max_unscored: the share of rows without an answer above which a model's scores are refused.
        generator: what writes texts.
        encoder: of BERTScore, a folder or a hub name; encoder_layer: whose hidden states are compared, None: the last.
    """

    batch_size: Annotated[int, Range(ge=1)] = 16
    level: Annotated[float, Range(gt=0, lt=1)] = 0.95
    resamples: Annotated[int, Range(ge=100)] = 1000
    max_unscored: Annotated[float, Range(ge=0, le=1)] = 0.05
    generator: Literal["transformers", "vllm"] = "transformers"
    encoder: Text | None = None
    encoder_layer: Annotated[int, Range(ge=1)] | None = None


Free = Literal["own", "adapters", "merges", "masks", "checkpoints"]

KINDS = (
    "all",
    "own",
    "adapters",
    "merges",
    "masks",
    "checkpoints",
    "seeds",
    "halves",
    "prompts",
    "bases",
    "files",
)
"""Kinds of members of an ensemble; `all` is all of them together."""


@dataclass(frozen=True)
class EnsembleConfig:
    """Who answers beside the model in use, so that their disagreement tells of its error.

    Args:
        free: what a project has anyway: `own`, the adapter of the language that is asked in; `adapters`, those of all
            languages; `merges`, the best of each recipe; `masks`,
            the recipes that draw by chance, drawn `masks` times more; `checkpoints`, each own adapter as it was after
            each of its epochs.
        masks: draws of each recipe that draws.
        seeds: trainings of each language's adapter for this alone.
        data: what each of these is trained on: all rows, or another half of them each.
        prompts: the bare base, asked without and with examples.
        shots: examples of a few-shot prompt.
        bases: other base models, folders or hub names, asked without examples.
        files: answers from elsewhere, by name: JSONL with `id` and `prediction`.
    """

    free: tuple[Free, ...] = ("own", "adapters", "merges")
    masks: Annotated[int, Range(ge=1, le=20)] = 3
    seeds: Annotated[int, Range(ge=0, le=20)] = 0
    data: Literal["all", "halves"] = "all"
    prompts: tuple[Literal["zero-shot", "few-shot"], ...] = ()
    shots: Annotated[int, Range(ge=1, le=64)] = 4
    bases: tuple[Text, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class JudgeConfig:
    """Another model whose answers stand in for labels: silver labels.

    Args:
        model: a model of the project (`adapter/combined`), a folder, or a hub name; with `endpoint`, its name there.
        endpoint: the URL of a server that speaks the OpenAI chat protocol, "https://api.example.com/v1".
        key: the environment variable that holds its key; None: none is sent.
        usd_per_million_input, usd_per_million_output: what it asks per million tokens; an endpoint has both.
        max_usd: what one command may spend on it; above that it is not asked.
        timeout_s: after which a question counts as unanswered.
        at_once: questions under way together.
    """

    model: Text
    endpoint: Text | None = None
    key: Text | None = None
    usd_per_million_input: Annotated[float, Range(ge=0)] | None = None
    usd_per_million_output: Annotated[float, Range(ge=0)] | None = None
    max_usd: Annotated[float, Range(ge=0)] = 1.0
    timeout_s: Annotated[float, Range(gt=0)] = 60.0
    at_once: Annotated[int, Range(ge=1, le=256)] = 8


@dataclass(frozen=True)
class EstimateConfig:
    """How the error on texts without labels is estimated.

    Args:
        estimator: a name of the catalogue; None: what the last backtest chose, else `calibrated-disagreement`.
        members: which kind of members (`adapters`, `seeds`, ...); None: what the last backtest chose, else all.
        level: of the intervals.
        budget: the largest error one would bear, for all languages or by language; None: what the model in use had on
            the labelled test rows, and 0.05 more.
        window: how texts with a `time` are parted: by day, week or month, or a number of texts; None: not at all.
        false_alarms: the share of false alarms borne, over all languages together, and with windows of time over all
            looks.
        judge: see there; None: no silver labels.
    """

    estimator: Text | None = None
    members: Text | None = None
    level: Annotated[float, Range(gt=0, lt=1)] = 0.9
    budget: Annotated[float, Range(ge=0, le=1)] | Mapping[str, float] | None = None
    window: Literal["day", "week", "month"] | Annotated[int, Range(ge=1)] | None = None
    false_alarms: Annotated[float, Range(gt=0, lt=1)] = 0.05
    judge: JudgeConfig | None = None


Stress = Literal["short", "code-switched", "mislabelled"]


@dataclass(frozen=True)
class TranslateConfig:
    """Translate the question and ask one language's own adapter.

    Args:
        model: a sequence-to-sequence translator, a folder or a hub name, or "my.module:function".
        to: the language all others are translated to.
        languages: what the translator calls our languages, where it has names of its own: {"de": "deu_Latn"}.
    """

    model: Text
    to: Text = "en"
    languages: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RivalsConfig:
    """What merging is held against, beside the baseline and each language's own adapter.

    Args:
        shots: examples in the prompt of the bare base, taken from the training rows; 0: no such rival.
        merged_rank: a combined adapter of as many parameters as the adapters together, that may choose its scale
            on the validation rows as often as a merge may choose its settings.
        routed: a language detector picks the own adapter: the library's name, or "my.module:function".
        translate: see there.
        stress: which other test sets are made of the test rows; unseen: test rows in languages without an adapter.
    """

    shots: Annotated[int, Range(ge=0, le=64)] = 0
    merged_rank: bool = False
    routed: Text | None = None
    translate: TranslateConfig | None = None
    stress: tuple[Stress, ...] = ()
    unseen: Mapping[str, LanguageConfig] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """All a run needs to know. Paths are absolute, taken from the folder the file stands in."""

    path: Path
    folder: Path
    base: str  # "embedded", a folder, or a hub name "org/name", perhaps with "@revision"; as written
    task: TaskConfig
    languages: Mapping[str, LanguageConfig]
    lora: LoraConfig
    update: UpdateConfig
    baseline: Literal["none", "combined", "continued"]
    merges: Mapping[str, MergeConfig]
    select: SelectConfig
    gate: GateConfig
    serve: ServeConfig
    prices: PricesConfig
    run: RunConfig
    evaluate: EvaluationConfig
    rivals: RivalsConfig = RivalsConfig()
    ensemble: EnsembleConfig = EnsembleConfig()
    estimate: EstimateConfig = EstimateConfig()
    seeds: int = 1  # trainings of everything, each with a seed of its own
    allow_code: bool = False  # whether functions of the user's own that are named may be run
    task_name: str | None = None  # of one of several under `tasks:`

    @property
    def name(self) -> str:
        """What is kept by config goes by this name: "sabir.yaml", and of one of several tasks "sabir.yaml#topic"."""
        return self.path.name if self.task_name is None else f"{self.path.name}#{self.task_name}"

    @property
    def where(self) -> Path:
        """The config as sentences call it, and as its part of `sabir.lock` is asked for: the file with `name`."""
        return self.path.with_name(self.name)

    @property
    def task_title(self) -> str:
        """What documents call its task: the name it has among several, else that of its kind."""
        return self.task_name or self.task.name

    @property
    def code(self) -> Path | None:
        """The folder modules of the user's own are looked for in; None where none may be run."""
        return self.folder if self.allow_code else None
