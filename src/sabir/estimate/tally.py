"""Any number of texts, kept as counted rows: what their members agree on, and how often that came to pass.

Answers that are labels agree or do not. Five members and the model in use can agree in 203 ways, so that ten million
texts are some hundred rows a segment, and what is estimated from these is the same but for rounding.
"""

from __future__ import annotations

import numpy as np

from sabir.estimate.evidence import Evidence, Segment

_COUNTED = ("agreement", "pairs", "error", "member_error")
_OTHERS = ("confidence", "probabilities", "answer", "truth", "judged", "keys", "weight", "inclusion")
_STATES = 3  # of a value: 0, 1, unknown


class Tally:
    """Takes evidence in pieces and keeps equal rows once, with their number; memory does not grow with the texts."""

    def __init__(self) -> None:
        self._segments: dict[Segment, int] = {}
        self._widths: dict[str, int | None] | None = None  # columns of each field; None: it is not known
        self._rows = np.empty((0, 0), dtype=np.uint8)  # 0, 1, or 2 for unknown
        self._segment = np.empty(0, dtype=np.int64)
        self._count = np.empty(0, dtype=np.int64)

    def add(self, piece: Evidence) -> None:
        """Count the texts of a piece among the rest. Another tally is added as its `evidence`.

        Args:
            piece: agreement, pairs, errors and members' errors, each 0, 1 or NaN; the same of these in every piece.
        Raises ValueError for other values, for fields that are not kept, and for a piece unlike the ones before.
        """
        for name in _OTHERS:
            if getattr(piece, name) is not None:
                raise ValueError(f"a tally does not keep {name}; leave it out")
        fields = {name: getattr(piece, name) for name in _COUNTED}
        widths = {name: _width(values) for name, values in fields.items()}
        if self._widths is None:
            self._widths = widths
            self._rows = np.empty((0, sum(width or 0 for width in widths.values())), dtype=np.uint8)
        if widths != self._widths:
            raise ValueError(f"a piece has {_shown(widths)}; those before it had {_shown(self._widths)}")
        rows = [_states(name, values, len(piece)) for name, values in fields.items() if values is not None]
        places = [self._segments.setdefault(one, len(self._segments)) for one in piece.segments]
        count = np.ones(len(piece), dtype=np.int64) if piece.count is None else piece.count.astype(np.int64)
        segment, states, counts = _counted(
            np.array(places, dtype=np.int64)[piece.segment],
            np.concatenate([np.empty((len(piece), 0), dtype=np.uint8), *rows], axis=1),
            count,
        )
        self._segment, self._rows, self._count = _counted(
            np.concatenate([self._segment, segment]),
            np.concatenate([self._rows, states]),
            np.concatenate([self._count, counts]),
        )

    def evidence(self) -> Evidence:
        """All texts so far as counted rows, segments in their order by name."""
        names = sorted(self._segments)
        place = np.empty(len(names), dtype=np.int64)
        place[[self._segments[name] for name in names]] = np.arange(len(names))
        fields: dict[str, np.ndarray] = {}
        at = 0
        for name, width in (self._widths or {}).items():
            if width is None:
                continue
            states = self._rows[:, at : at + width]
            values = np.where(states == 2, np.nan, states.astype(float))
            fields[name] = values[:, 0] if name == "error" else values
            at += width
        return Evidence(tuple(names), place[self._segment], count=self._count, **fields)


def _width(values: np.ndarray | None) -> int | None:
    return None if values is None else 1 if values.ndim == 1 else values.shape[1]


def _shown(widths: dict[str, int | None]) -> str:
    return ", ".join(f"{width} of {name}" for name, width in widths.items() if width is not None) or "nothing"


def _states(name: str, values: np.ndarray, rows: int) -> np.ndarray:
    """(n, columns) uint8: 0, 1, or 2 for NaN."""
    columns = values.reshape(rows, -1) if rows else np.empty((0, _width(values) or 0))
    unknown = np.isnan(columns)
    wrong = ~unknown & (columns != 0) & (columns != 1)
    if wrong.any():
        raise ValueError(f"{name} holds {columns[wrong][0]:g}; a tally keeps 0, 1 and NaN")
    return np.where(unknown, 2, columns == 1).astype(np.uint8)


def _counted(
    segment: np.ndarray, rows: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Equal rows of a segment once, with the sum of their counts."""
    key, span = segment, int(segment.max(initial=0)) + 1
    for column in rows.T:
        if span > 2**62 // _STATES:  # the numbers have grown too large: number those anew that there are
            known, key = np.unique(key, return_inverse=True)
            span = len(known)
        key, span = key * _STATES + column, span * _STATES
    _, first, places = np.unique(key, return_index=True, return_inverse=True)
    totals = np.zeros(len(first), dtype=np.int64)
    np.add.at(totals, places, count)
    return segment[first], rows[first], totals
