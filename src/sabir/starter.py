"""The config that `sabir init` writes: every setting with its default and a word on it."""

from __future__ import annotations

from pathlib import Path

from sabir.errors import InputError

NAME = "sabir.yaml"

TEXT = """\
# A sabir project. Check it: sabir check sabir.yaml. Run it: sabir run sabir.yaml.

# The base model: a hub name (org/name, its commit is pinned in sabir.lock), a folder, or `embedded`, the
# 3-million-parameter model that ships with sabir (good for trying the loop, not for your users).
base: embedded

# classification: one of the labels, by log-likelihood. choice: one of each row's own choices. summarization,
# keyphrases: generated. Or a function of yours, my.module:task, with --allow-code. `sabir list tasks`.
task:
  name: classification
  labels: [negative, positive]
  instruction: "Is this review positive or negative?"
  # prompts: {de: "Ist diese Kritik positiv oder negativ?"}     # what single languages are asked; or a file

# One line per language (BCP-47). A folder with train, valid and test (.jsonl, .csv, .tsv or .parquet); or one
# file, split by a hash of each row; or {train: ..., valid: ..., test: ...}; or {hub: org/name, subset: ...}; or
# your own adapter, {adapter: FOLDER, valid: ..., test: ...}. Understood are the columns input/output,
# prompt/completion, text/label, instruction/input/output and messages; others are mapped:
# {folder: data/de, fields: {input: review, output: stars}}.
data:
  en: data/en
  de: data/de
  # fr: {folder: data/fr, lora: {epochs: 5}}      # settings of one language
  # ja: data/ja.csv

# Several tasks that share base and store, in place of task: and data:, each with its own of both:
# tasks: {sentiment: {task: ..., data: ...}, topic: {task: ..., data: ..., lora: {epochs: 5}}}

lora:
  rank: 16
  alpha: 32
  targets: all-linear
  epochs: 3
  learning_rate: 2e-4
  batch_size: 16            # rows per optimizer step
  max_length: 512           # tokens of prompt and answer; texts are cut to it, answers never
  seed: 0

baseline: combined          # one adapter on all data, to compare with; `none` saves its training

# What else merging is held against: the base with examples in its prompt, a language detector that picks the own
# adapter (pip install 'sabir[detect]'), harder texts, languages without an adapter. docs/config.md has more.
# rivals: {shots: 4, routed: py3langid, stress: [short, code-switched], unseen: {nl: data/nl}}

# Each is merged and scored; the best on the validation rows is selected. `sabir list recipes` has more.
merges:
  averages: averages        # plain, and weighted by training rows; what every other merge must beat
  ties: {method: ties, density: 1.0, scale: {grid: [0.5, 1.0]}}
  ties-knots: {method: ties, space: knots, density: 1.0, scale: {grid: [0.5, 1.0]}}
  # tuned: {method: ties, space: knots, search: {budget: 30}}     # pip install 'sabir[search]'
  # whole: {method: ties, density: 0.2, rank: fold}               # a model of its own in place of an adapter

select: {by: macro_mean}
# seeds: 3                  # trains and merges three times: intervals then hold seeds and examples
# evaluate: {encoder: FacebookAI/xlm-roberta-base}      # of bertscore_f1, where it is among the task's metrics

gate: {max_drop: 0.02}      # "not worse" means: not worse by more than this

# prices: {usd_per_hour: 2.5}   # of one device; without it the tables count hours

# Error on texts without labels (sabir estimate): whose answers are held against those of the model in use, and the
# error that one would bear. Own adapters, adapters of the others and merges are there for free.
# ensemble: {seeds: 3, data: halves, prompts: [few-shot]}
# estimate: {budget: {de: 0.15, en: 0.1}, window: week}

run:                        # never changes a result
  # workers: 2              # jobs side by side; left out: one per GPU, or per core
  device: auto              # a job per GPU where there is one
  store: .sabir
"""


def write(folder: Path) -> Path:
    """Write the starter config into a folder. Raises InputError when there is one already."""
    path = folder / NAME
    if path.exists():
        raise InputError(str(path), "is already there.", "Nothing was overwritten; choose another folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(TEXT, encoding="utf-8")
    except OSError as error:
        raise InputError(
            str(folder), f"cannot be written ({error.strerror}).", "Choose another folder."
        ) from error
    return path
