"""What is left of a finding when there were several that could have been made."""

from __future__ import annotations

from collections.abc import Sequence


def benjamini_hochberg(pvalues: Sequence[float | None]) -> list[float | None]:
    """The p-values corrected so that at most a share alpha of the findings at alpha is false, in the order given.

    A test that could not be made (None) stays None and is not counted. Of tests that do not hang together in the wrong
    direction; 1 / e of e-values may hang together as they like (e-BH).
    Source: Benjamini and Hochberg (1995), https://doi.org/10.1111/j.2517-6161.1995.tb02031.x; e-BH, Wang and Ramdas
        (2022), https://arxiv.org/abs/2009.02824.
    """
    made = sorted(((p, i) for i, p in enumerate(pvalues) if p is not None), reverse=True)
    corrected: list[float | None] = [None] * len(pvalues)
    lowest = 1.0
    for above, (p, i) in enumerate(made):
        lowest = min(lowest, p * len(made) / (len(made) - above))
        corrected[i] = lowest
    return corrected
