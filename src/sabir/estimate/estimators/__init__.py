"""The estimators, one file each; importing this registers them all."""

from sabir.estimate.catalog import ESTIMATORS

__all__ = ["ESTIMATORS"]
