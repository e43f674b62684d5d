"""From a config to steps: the only package that knows both the engine and the work.

    data/<language> -> adapter/<language> -> merged/<recipe> -> outputs -> scores -> select -> comparisons

A merge whose settings are searched stands on the validation rows too; the analysis of the adapters on nothing else.
An adapter that is continued stands on its ancestor; one that is held is an old one. A language's own adapter answers
in its own language only.

What stands on the selection (the test answers of a grid's best member, the comparisons, what would change against
the current release) is planned when the selection is known; until then it is listed as `later`.
"""

from sabir.plan.ensemble import PRODUCTION, Member, Texts, answers_name, asked
from sabir.plan.released import Released, against, before_sabir, released, suspects
from sabir.plan.whole import (
    LARGE,
    Plan,
    Stale,
    combined_graph,
    comparison,
    comparison_of,
    plan,
    selected,
    selection_of,
)

__all__ = [
    "LARGE",
    "PRODUCTION",
    "Member",
    "Plan",
    "Released",
    "Stale",
    "Texts",
    "against",
    "answers_name",
    "asked",
    "before_sabir",
    "combined_graph",
    "comparison",
    "comparison_of",
    "plan",
    "released",
    "selected",
    "selection_of",
    "suspects",
]
