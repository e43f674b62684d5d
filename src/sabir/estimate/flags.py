"""What to beware of in an estimate, in sentences. Each begins with the few words that name it, and a colon."""

from __future__ import annotations

import numpy as np

from sabir.estimate.agreement import disagreement, disagreements
from sabir.estimate.evidence import Evidence
from sabir.estimate.means import FEWEST

FEW = 4  # labelled segments; below, no interval can be given without labels


def general(reference: Evidence, production: Evidence) -> list[tuple[str, ...]]:
    """Per segment of production what holds for every estimator."""
    known = reference.take(reference.labelled).segments
    languages, domains = ({getattr(one, part) for one in known} for part in ("language", "domain"))
    of_all = []
    if not known:
        of_all.append("no reference: none of its texts is labelled")
    elif len(known) < FEW:
        of_all.append(f"few references: {len(known)} labelled {_plural('segment', len(known))}")
    found = []
    for segment, n in zip(production.segments, production.n, strict=True):
        of_one = list(of_all)
        if n < FEWEST:
            of_one.append(f"small: {n:.0f} {_plural('text', n)}")
        if known and segment.language not in languages:
            of_one.append(f"unseen language: the reference has {', '.join(sorted(languages))}")
        if known and segment.domain not in domains and segment.domain and domains != {""}:
            of_one.append(f"unseen domain: the reference has {', '.join(sorted(domains - {''}))}")
        found.append(tuple(of_one))
    return found


def of_disagreement(reference: Evidence, production: Evidence) -> list[tuple[str, ...]]:
    """Per segment of production what holds for estimates from what members say."""
    members = 0 if production.agreement is None else production.agreement.shape[1]
    of_all = []
    if members == 1:
        of_all.append("one member: what it alone gets wrong counts as the model's mistake")
    if members > 1 and _all_alike(reference) and _all_alike(production):
        of_all.append("members all say the same: they are worth one member")
    if _flat(reference.take(reference.labelled)):
        of_all.append("nothing to learn from: members disagree alike on every labelled text")
    beyond = _extrapolating(reference, production)
    found = [(*of_all, *of_one) for of_one in beyond]
    if production.agreement is not None:
        answered = production.total((~np.isnan(production.agreement)).any(axis=1).astype(float))
        found = [
            of_one if some else (*of_one, "no answers: no member has one")
            for of_one, some in zip(found, answered, strict=True)
        ]
    return found


def _extrapolating(reference: Evidence, production: Evidence) -> list[tuple[str, ...]]:
    """Where a segment disagrees more or less than any labelled one, by more than chance lets a segment's mean vary."""
    seen = disagreements(reference.take(reference.labelled))
    seen = seen[~np.isnan(seen)]
    here = disagreements(production)
    if production.agreement is None or not len(seen):
        return [()] * len(production.segments)
    rows = disagreement(production.agreement)
    variance = production.mean((rows - here[production.segment]) ** 2)
    found: list[tuple[str, ...]] = []
    for mean, one, n in zip(here, variance, production.effective_n, strict=True):
        chance = 2 * np.sqrt(one / max(1.0, n - 1))
        if mean - chance > seen.max() or mean + chance < seen.min():
            range_ = f"{seen.min():.2f} to {seen.max():.2f}"
            found.append((f"extrapolating: members disagree {mean:.2f}, on labelled segments {range_}",))
        else:
            found.append(())
    return found


def _all_alike(evidence: Evidence) -> bool:
    """Whether all members agree with the model alike, and with each other as far as that is known."""
    if evidence.agreement is None or not len(evidence):
        return False
    first = evidence.agreement[:, :1]
    alike = np.array_equal(
        evidence.agreement, np.broadcast_to(first, evidence.agreement.shape), equal_nan=True
    )
    return alike and (evidence.pairs is None or bool((np.nan_to_num(evidence.pairs, nan=1.0) == 1).all()))


def _flat(labelled: Evidence) -> bool:
    """Whether all rows have one and the same disagreement."""
    if labelled.agreement is None or not len(labelled):
        return False
    rows = disagreement(labelled.agreement)
    return len(np.unique(rows[~np.isnan(rows)])) == 1


def _plural(noun: str, n: float) -> str:
    return noun if n == 1 else f"{noun}s"
