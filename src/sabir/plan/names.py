"""What models and kinds of steps are called, and the order and version of each kind."""

from __future__ import annotations

from sabir.names import BASE, OWN, TRANSLATED

PRELOAD = "sabir.work.preload"  # torch, transformers, peft
LIGHT = "sabir.work.judge"  # numpy and the metrics
PRIORITY = {
    "data": 0,
    "stress": 0,
    "production": 0,
    "adapter": 1,
    "translated": 1,
    "adopted": 1,
    "checkpoint": 1,
    "merged": 2,
    "search": 3,
    "outputs": 4,
    "scores": 5,
    "macro": 6,
    "select": 7,
    "judge": 8,
    "changes": 8,
    "analysis": 9,
}

# Raise a version when the same settings and inputs give another result.
VERSIONS = {
    "data": 1,
    "adapter": 1,
    "adopted": 1,
    "checkpoint": 1,
    "production": 1,
    "merged": 2,
    "search": 1,
    "outputs": 1,
    "stress": 1,
    "translated": 1,
    "scores": 2,
    "macro": 2,
    "select": 1,
    "judge": 2,
    "changes": 2,
    "analysis": 1,
}
SEARCHES_BY = ("merged", "outputs", "scores")  # what a search does itself: it runs again with their versions


def speaks(model: str, language: str) -> bool:
    """Whether a model is scored on a language: all are, but a language's own adapter, on no other."""
    plain, _, of = model.partition("#")[0].partition("/")
    own = plain == "adapter" and model != OWN and not of.startswith(("combined", "continued"))
    return not own or of == language


def shots_name(count: int, draw: int = 0) -> str:
    """The bare base with examples in its prompt; of other draws of examples, the number."""
    return f"{BASE}[shots={count}]" if draw == 0 else f"{BASE}[draw={draw},shots={count}]"


def shots_of(model: str, seed: int) -> dict[str, int]:
    """How many examples a name says, and by which seed they are drawn.

    Args:
        seed: of the first draw.
    """
    said = dict(part.split("=") for part in model.partition("[")[2].removesuffix("]").split(","))
    return {"count": int(said["shots"]), "seed": seed + int(said.get("draw", 0))}


def has_seeds(model: str) -> bool:
    """Whether a model is trained anew with every seed; the bare base and a release are not."""
    return not model.startswith((BASE, "release/", TRANSLATED))
