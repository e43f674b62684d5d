"""Step `comparisons`: paired differences between models on the same test rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sabir.metrics import METRICS
from sabir.stats import holm, paired_difference, paired_macro, verdict
from sabir.work import Outcome, Work
from sabir.work.scores import SEED, statistics


def judge(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Compare each pair (a, b) on every language and on the mean over languages.

    The p-values of one pair are corrected over its languages (Holm); the macro row stands for itself.
    """
    for work in works:
        metric, margin, level = work.settings["metric"], work.settings["margin"], work.settings["level"]
        value = METRICS.get(metric).facts["value"]
        resamples = work.settings["resamples"]
        rows = []
        for a, b in work.settings["pairs"]:
            languages = work.settings["languages"]
            ours = [statistics(work.inputs[f"{a}/{language}"], metric) for language in languages]
            theirs = [statistics(work.inputs[f"{b}/{language}"], metric) for language in languages]
            found = [
                paired_difference(x, y, value, seed=SEED, level=level, resamples=resamples)
                for x, y in zip(ours, theirs, strict=True)
            ]
            corrected = holm([difference.p for difference in found])
            together = paired_macro(
                list(zip(ours, theirs, strict=True)), value, seed=SEED, level=level, resamples=resamples
            )
            for language, difference, p in zip(
                [*languages, "macro"], [*found, together], [*corrected, together.p], strict=True
            ):
                rows.append(
                    {
                        "a": a,
                        "b": b if language == "macro" else b.replace("<language>", language),
                        "language": language,
                        "split": "test",
                        "metric": metric,
                        "difference": difference.difference,
                        "low": difference.low,
                        "high": difference.high,
                        "p": p,
                        "margin": margin,
                        "verdict": verdict(difference.low, difference.high, margin),
                        "n": difference.n,
                    }
                )
        yield work.name, {"result": {"comparisons": rows}}
