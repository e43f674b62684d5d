"""A guess at the error of every text, for what is to be checked or improved by labels."""

from __future__ import annotations

import numpy as np

from sabir.estimate.calibration import curve
from sabir.estimate.evidence import Evidence


def expected_errors(reference: Evidence, production: Evidence) -> np.ndarray | None:
    """(n,) in [0, 1] of each row of production: its disagreement by the curve of the reference, else 1 - confidence.

    Of a row that has neither it is the mean of the others; None where no row has any.
    """
    expected = curve(reference).rows(production)
    if production.confidence is not None:
        expected = np.where(np.isnan(expected), 1 - production.confidence, expected)
    unknown = np.isnan(expected)
    if unknown.all():
        return None
    return np.where(unknown, expected[~unknown].mean(), expected)
