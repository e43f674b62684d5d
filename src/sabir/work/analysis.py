"""Step `analysis`: how the languages' adapters stand to each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sabir.lora.files import open_adapter
from sabir.work import Outcome, Work


def analysis(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Norms, cosines, sign conflicts, energy by rank of the input folders' adapters, by language."""
    from sabir.merging.analysis import analyze

    for work in works:
        adapters = {language: open_adapter(folder) for language, folder in sorted(work.inputs.items())}
        yield work.name, {"result": analyze(adapters)}
