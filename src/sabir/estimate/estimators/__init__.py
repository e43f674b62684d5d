"""The estimators, one file each; importing this registers them all."""

from sabir.estimate.catalog import ESTIMATORS
from sabir.estimate.estimators import (
    agreement_on_the_line,  # noqa: F401  importing registers
    atc,  # noqa: F401
    calibrated_disagreement,  # noqa: F401
    cbpe,  # noqa: F401
    cbpe_macro_f1,  # noqa: F401
    confidence,  # noqa: F401
    constant,  # noqa: F401
    disagreement,  # noqa: F401
    doc,  # noqa: F401
    ppi,  # noqa: F401
    ppi_macro_f1,  # noqa: F401
    silver,  # noqa: F401
    silver_corrected,  # noqa: F401
)

__all__ = ["ESTIMATORS"]
