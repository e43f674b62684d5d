"""The catalogue of estimators, and what an estimator is.

An estimator is a function `(reference, production, *, level, settings) -> [Estimate]`: from labelled evidence and from
that of texts without labels (`evidence.Evidence`, both of one model) an `Estimate` for each segment of `production`, in
the order of its `segments`. Facts registered beside it:

- `needs`: what the evidence must hold beside its segments: names of its fields, `agreement`, `confidence`,
  `probabilities`, `judged`; and `labels`, where some rows of `production` must be labelled.
- `assumes`: in a sentence, what must hold for the estimate to be right.
- `answers`: the kinds of answer it can judge, of "label", "choice", "text", "phrases".
- `metric`: what it estimates: "error", the mean error of a row; or "macro_f1", 1 - macro F1.
"""

from __future__ import annotations

from sabir.catalog import Catalog

ESTIMATORS = Catalog("estimator")
EVERY_ANSWER = ("label", "choice", "text", "phrases")
CHOSEN = ("label", "choice")
