"""Quality without labels: the error of a model on texts nobody has labelled, from plain arrays.

    from sabir.estimate import disagreement
    for one in disagreement(reference, production):
        print(one.segment, one.error, one.low, one.high, one.flags)

Of the members themselves, where their labels are at hand: `shared_mistakes` says what their errors consist of,
`krippendorff_alpha` how far they agree beyond chance, `independent_disagreement` how far they would disagree if they
erred independently; less disagreement than that are mistakes that they share, and so hide.

Importing this loads no numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sabir.estimate.agreement import independent_disagreement, krippendorff_alpha, shared_mistakes
    from sabir.estimate.arrays import disagreement
    from sabir.estimate.estimators import ESTIMATORS
    from sabir.estimate.evidence import Estimate, Evidence, Segment

__all__ = [
    "ESTIMATORS",
    "Estimate",
    "Evidence",
    "Segment",
    "disagreement",
    "independent_disagreement",
    "krippendorff_alpha",
    "shared_mistakes",
]

_LAZY = {
    "ESTIMATORS": "sabir.estimate.estimators",
    "Estimate": "sabir.estimate.evidence",
    "Evidence": "sabir.estimate.evidence",
    "Segment": "sabir.estimate.evidence",
    "disagreement": "sabir.estimate.arrays",
    "independent_disagreement": "sabir.estimate.agreement",
    "krippendorff_alpha": "sabir.estimate.agreement",
    "shared_mistakes": "sabir.estimate.agreement",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'sabir.estimate' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
