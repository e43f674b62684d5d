"""Documents with scores and comparisons made by hand, for the tests of what reports say of them."""

from __future__ import annotations

TIES = "merged/ties[density=0.2]"
OWN = "adapter/<language>"


def score_row(model, language, value, **changes):
    return {
        "task": "classification",
        "model": model,
        "language": language,
        "split": "test",
        "metric": "accuracy",
        "value": value,
        "low": None if value is None else value - 0.0625,
        "high": None if value is None else value + 0.0625,
        "level": 0.95,
        "n": 500,
        "unscored": 0,
        "undefined": 0,
        "groups": 500,
        "seed": 0,
        "signature": "accuracy|v:1",
        "answers": {"rows": 500, "empty": 0, "cut": 0, "unread": 0},
        **changes,
    }


def scores(by_model, **changes):
    """Rows of models by language: {"base": {"de": 0.25, "fr": 0.5}}, and of their means; `OWN` an adapter each."""
    rows = []
    for model, values in by_model.items():
        for language, value in values.items():
            named = f"adapter/{language}" if model == OWN else model
            rows.append(score_row(named, language, value, **changes))
        if model != OWN:
            mean = sum(values.values()) / len(values)
            rows.append(score_row(model, "macro", mean, answers=None, **changes))
    return rows


def comparison(b, language="macro", difference=0.0, half=0.0, verdict="undecided", *, a=TIES, **changes):
    """A row of comparisons, with an interval of that half width."""
    return {
        "a": a,
        "b": b.replace("<language>", language) if language != "macro" else b,
        "language": language,
        "split": "test",
        "metric": "accuracy",
        "difference": difference,
        "low": difference - half,
        "high": difference + half,
        "p": 0.25,
        "margin": 0.02,
        "verdict": verdict,
        "n": 500,
        "groups": 500,
        "seeds": 1,
        "detectable": 0.09,
        "why": None,
        **changes,
    }


def standing(best, *tied, language="macro"):
    return {"language": language, "metric": "accuracy", "best": best, "tied": list(tied)}


def document(**changes):
    """A project of German and French with a selected merge; what is not given is empty."""
    return {
        "scores": [],
        "comparisons": [],
        "standings": [],
        "costs": [],
        "notes": [],
        "searches": {},
        "metric": "accuracy",
        "level": 0.95,
        "languages": ["de", "fr"],
        "selected": TIES,
        **changes,
    }
