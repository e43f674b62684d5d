"""An outside case: NannyML's three-class demonstration data, of which the second half has drifted.

Its package carries the data: an installed one, or the wheel that SABIR_NANNYML_WHEEL names (`pip download nannyml
--no-deps`). It is no dependency of ours.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "estimate" / "drifted.py"
INSTALLED = importlib.util.find_spec("nannyml")
PLACE = Path(os.environ.get("SABIR_NANNYML_WHEEL") or (INSTALLED and Path(INSTALLED.origin).parent) or "none")

pytestmark = pytest.mark.skipif(
    not PLACE.exists(), reason="nannyml is not installed, and SABIR_NANNYML_WHEEL names no wheel of it"
)


@pytest.fixture(scope="module")
def drifted():
    """The benchmark's own reading of the data."""
    spec = importlib.util.spec_from_file_location("drifted", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sets(drifted):
    rows = drifted.tables(PLACE)
    return drifted.evidence(rows[0], "labelled"), drifted.evidence(rows[1], "later")


def test_cbpe_says_what_nannyml_says_of_it_before_and_after_the_drift(drifted, sets):
    found, true = drifted.estimated("cbpe", *sets, level=0.9)
    accuracy = np.array([1 - one.error for one in found])
    # NannyML's own figures for the drifted half: 0.636 to 0.639; the truth: 0.561 to 0.570
    assert np.round(accuracy[5:], 3).min() == pytest.approx(0.636, abs=0.002)
    assert np.round(accuracy[5:], 3).max() == pytest.approx(0.639, abs=0.002)
    assert (np.round(1 - true[5:], 3) >= 0.561).all()
    assert (np.round(1 - true[5:], 3) <= 0.570).all()
    np.testing.assert_allclose(accuracy[:5], 1 - true[:5], atol=0.012)


@pytest.mark.parametrize("name", ["confidence", "doc", "cbpe", "cbpe-macro-f1"])
def test_intervals_hold_the_truth_although_no_labelled_stretch_was_like_it(drifted, sets, name):
    found, true = drifted.estimated(name, *sets, level=0.9)
    for one, error in zip(found[5:], true[5:], strict=True):
        assert one.low <= error <= one.high
        assert one.high - one.low < 0.5  # and say something


def test_that_all_is_as_before_is_the_wrong_thing_to_say_here(drifted, sets):
    # else the intervals above would prove nothing
    found, true = drifted.estimated("constant", *sets, level=0.9)
    assert not any(one.low <= error <= one.high for one, error in zip(found[5:], true[5:], strict=True))
