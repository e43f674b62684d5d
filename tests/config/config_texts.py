"""The configs that the tests of reading one start from."""

from __future__ import annotations

DESIGN = """\
base:   Qwen/Qwen3-0.6B          # hub name or folder; the commit is pinned in sabir.lock
task:   {name: classification, labels: [negative, positive], \
instruction: "Is this review positive or negative?"}
data:
  en: data/en
  de: {folder: data/de, lora: {epochs: 5}}
  fr: data/fr.jsonl
  ja: {train: data/ja.jsonl, valid: data/ja-valid.jsonl, test: data/ja-test.jsonl, \
fields: {input: text, output: label}}
  zh: {adapter: adapters/zh, valid: data/zh-valid.jsonl, test: data/zh-test.jsonl}
lora:   {rank: 16, alpha: 32, targets: all-linear, epochs: 3, learning_rate: 2e-4, batch_size: 16, \
max_length: 512, seed: 0}
baseline: combined               # none | combined
merges:
  average:    {method: linear}
  ties:       {method: ties, density: {grid: [0.2, 0.5, 1.0]}, scale: {grid: [0.5, 1.0]}}
  ties-knots: {method: ties, space: knots, scale: {grid: [0.5, 1.0]}, weights: {en: 1.0, de: 2.0}}
select: {by: macro_mean}
gate:   {max_drop: 0.02, undecided: pass}   # pass | refuse
prices: {usd_per_hour: 2.5}
run:    {backend: local, workers: 2, device: auto, store: .sabir}
"""

MINIMAL = """\
base: embedded
task: summarization
data:
  de: data/de
  en: data/en
"""
