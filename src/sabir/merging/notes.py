"""What a user should know of a merge, a sentence each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sabir.lora.checks import twins
from sabir.lora.write import SERVED_RANKS
from sabir.merging.spaces import SPACES

if TYPE_CHECKING:
    from sabir.lora.files import Adapter
    from sabir.merging.recipe import Recipe
    from sabir.merging.streaming import Merged

ENOUGH_ENERGY = 0.9  # a merge that keeps less is warned about (merging.md: rank 16 kept 0.2 of a TIES merge)


def notes(recipe: Recipe, adapters: Mapping[str, Adapter], merged: Merged) -> list[str]:
    """Sentences about a merge that was iterated: what it equals, what it lost, who is absent where."""
    folded, cut, space = recipe.rank == "fold", merged.rank, SPACES.get(recipe.space).facts
    same = twins(dict(sorted(adapters.items())))
    found = [f"{one!r} and {other!r} are the same adapter: it counts twice." for one, other in same]
    if recipe.equivalent:
        found.append(recipe.equivalent)
    by_adapter = ", ".join(
        f"{name} {share:.3f}" for name, share in (merged.energy_kept_by_adapter or {}).items()
    )
    exact = "" if space["keeps_rank"] else ", merge in 'knots' or 'core' space"
    energy = f"{merged.energy_kept:.3f} of the merge's energy ({by_adapter})"
    if recipe.rank == "serve" and merged.uncut_rank > cut:
        found.append(
            f"Cut from rank {merged.uncut_rank} to {cut}, the largest that servers take: it keeps {energy}. "
            "rank: fold keeps all of it, in a model of its own."
        )
    elif (merged.energy_kept or 0.0) < ENOUGH_ENERGY:
        found.append(
            f"Rank {cut} keeps {energy}. Give a larger rank{exact}, or fold it into the base (rank: fold)."
        )
    elif not space["lossless"] and min((merged.energy_kept_by_adapter or {}).values()) < ENOUGH_ENERGY:
        found.append(
            f"The common space of rank {cut} holds only a part of each adapter's energy: {by_adapter}."
        )
    if not folded and cut > SERVED_RANKS[-1]:
        found.append(
            f"Rank {cut} is more than servers take ({SERVED_RANKS[-1]}): rank: serve cuts it to that, rank: fold "
            "makes a model of it."
        )
    for name, adapter in sorted(adapters.items()):
        missing = [module for module in merged.shapes if module not in adapter.shapes]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            found.append(f"{name!r} does not adapt module {missing[0]!r}{more}: it is absent there.")
    if not folded and next(iter(adapters.values())).saved:
        found.append("It holds layers trained whole (modules_to_save), which PEFT loads and vLLM does not.")
    return found
