"""Intervals, paired differences and verdicts, by one mechanism for every metric.

A metric gives per-example statistics, an array (n, k), and `value`, which maps their means over examples,
(..., k), to scores, (...). Accuracy: k = 1, the mean itself. Macro F1 over L labels: 3 L counts. A bootstrap
is then a matrix of resampling counts, (resamples, n), times the statistics, and `value` of all rows at once.

Which method when, chosen by simulated coverage (tests/stats):

- one model, 0/1 statistic: Wilson's interval. The bootstrap of an accuracy near 0 or 1 is far too narrow.
- one model, anything else: the expanded percentile bootstrap, which is to the plain percentile interval as
  Student's interval is to the normal one.
- two models, 0/1: Tango's score interval for paired proportions, and the mid-p McNemar test. Two models that
  agree on all of 20 examples are not equal to within 0; here they differ by at most 0.16.
- two models, anything else: the expanded percentile bootstrap of the difference on the same resampled
  examples, and a permutation test that swaps the two models' answers, example by example.
- examples in clusters (texts of one source): the same with whole clusters drawn and swapped; 0/1 statistics by
  Wilson and Tango with as many examples as the clusters are worth (`shares.independent_rows`).
- several groups: the intervals of the groups combined (MOVER), each group resampled within itself, and added as
  far as their scores move together on the texts that they share.
- several training seeds: the interval over examples, widened by the spread from seed to seed (`seeds`).

Examples that are unscored (a row of NaN) are left out, for differences where either model's is; nobody's
score is imputed. What cannot be known is None, never 0.
"""

from sabir.stats.macro import bootstrap_macro, paired_macro
from sabir.stats.results import MOST_RESAMPLES, Difference, Interval, Value, Verdict, holm, verdict
from sabir.stats.single import bootstrap, paired_difference, values_of_pairs
from sabir.stats.standings import Standing, standings, standings_macro
from sabir.stats.support import rare_labels

__all__ = [
    "MOST_RESAMPLES",
    "Difference",
    "Interval",
    "Standing",
    "Value",
    "Verdict",
    "bootstrap",
    "bootstrap_macro",
    "holm",
    "paired_difference",
    "paired_macro",
    "rare_labels",
    "standings",
    "standings_macro",
    "values_of_pairs",
    "verdict",
]
