"""Which model is in use, since when and on whose word; and whether a new one may take its place.

`releases/<config>/000007.json` in the store: one file an event, promotion or rollback, never changed once it is there.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from sabir.catalog import did_you_mean
from sabir.engine.store import read_json, write_atomic
from sabir.errors import GateNotMet, InputError, StoreError
from sabir.lora.write import sync_folder

INCUMBENT = "0"  # the release that was in use before sabir
EVENT_FILE = re.compile(r"(\d{6,})\.json")
FIX_EVENT = "Put it back from a copy of the store, or remove it: then what it says is forgotten, and no more."
MACRO, UNDECIDED, ALL = "macro", "undecided", "all"  # what one can accept beside a language

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Release:
    """A model that was put to use, with all that it stands on.

    Args:
        name: "1", "2", ... in the order of promotion, "0" for the model before sabir; "" before it has one.
        created: time of its promotion, UTC, ISO 8601.
        by: who promoted it.
        model: its name in the project, "merged/ties".
        kind: of the step that made it.
        fingerprint: of its folder in the store.
        recipe: identity of the merge; None for what is no merge.
        languages: fingerprint of each language's adapter.
        data: per language the `digests` and numbers of `rows` by split.
        base: identity of the base model.
        parent: name of the release it was judged against; None for the first.
        verdict: pass, fail or undecided, None of what was in use before sabir; `reasons` why, and what of them was
            `accepted` by name.
        scores, changes: rows as in the documents; `changes` against the parent.
        evaluated: fingerprints of the scores and changes that the verdict stands on.
        usd, device_s: what the run that made it cost; None when not known.
        run: id of that run.
    """

    name: str
    created: str
    by: str
    model: str
    kind: str
    fingerprint: str
    recipe: Mapping[str, Any] | None = None
    languages: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    base: str | None = None
    parent: str | None = None
    verdict: str | None = None
    reasons: Sequence[str] = ()
    accepted: Sequence[str] = ()
    scores: Sequence[Row] = ()
    changes: Sequence[Row] = ()
    evaluated: Sequence[str] = ()
    usd: float | None = None
    device_s: float | None = None
    run: str | None = None


@dataclass(frozen=True)
class Event:
    """What happened to the model in use.

    Args:
        number: of its file.
        at, by: when (UTC, ISO 8601) and on whose word.
        to: name of the release in use from then on.
        promoted: that release, where it was new; None for a rollback.
    """

    number: int
    at: str
    by: str
    to: str
    promoted: Release | None = None


class Log:
    """The releases of a store. Events are only ever added; of two people at once, each gets a number.

    Every method reads the files anew. Raises StoreError for an event that cannot be read or written.

    Args:
        store: the store's folder.
        config: name of the config whose releases they are, "sabir.yaml" or, of one of its tasks, "sabir.yaml#topic";
            several may share a store.
    """

    def __init__(self, store: Path | str, config: str):
        self.folder = Path(store) / "releases" / config

    def events(self) -> tuple[Event, ...]:
        """All that happened, the oldest first."""
        try:
            names = os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return ()
        numbers = {int(match[1]): name for name in names if (match := EVENT_FILE.fullmatch(name))}
        known: set[str] = set()
        events = []
        for number, name in sorted(numbers.items()):
            event = _event(number, self.folder / name)
            if event.promoted is not None:
                known.add(event.to)
            elif event.to not in known:
                found = f"goes back to release {event.to!r}, which was not promoted before it."
                raise StoreError(str(self.folder / name), found, FIX_EVENT)
            events.append(event)
        return tuple(events)

    def releases(self) -> tuple[Release, ...]:
        """Every release there was, the oldest first."""
        return tuple(event.promoted for event in self.events() if event.promoted is not None)

    def in_use(self) -> tuple[Release, ...]:
        """The current release, last, and before it those that were in use and not rolled back, the oldest first.

        A rollback takes away all that came after the release it goes to, so that a second one goes on backwards
        instead of to and fro. A release taken away can be gone to by its name; it then comes last.
        """
        events = self.events()
        releases = {event.to: event.promoted for event in events if event.promoted is not None}
        names: list[str] = []
        for event in events:
            names = [*names[: names.index(event.to)], event.to] if event.to in names else [*names, event.to]
        return tuple(releases[name] for name in names)

    def current(self) -> Release | None:
        """What the newest event points to; None before the first promotion."""
        return next(reversed(self.in_use()), None)

    def before_current(self) -> Release | None:
        """Where a plain rollback goes: what was in use before the current release, see `in_use`."""
        past = self.in_use()[:-1]
        return past[-1] if past else None

    def last_with_other(self, language: str, fingerprint: str) -> Release | None:
        """The newest release in use before with another adapter of that language, for its own rollback.

        Among equal adapters of a language only the last stretch counts: where the adapter is one that was gone back
        to, those after its first use are passed over, as in `in_use`.

        Args:
            fingerprint: of the adapter to leave behind, of the current release or newer than that.
        """
        newest: dict[str, Release] = {}  # by adapter, in the order in which they came to stay
        for release in self.in_use():
            adapter = release.languages.get(language)
            if adapter is None:
                continue
            kept = list(newest)
            for later in kept[kept.index(adapter) :] if adapter in newest else []:
                del newest[later]
            newest[adapter] = release
        adapters = list(newest)
        before = adapters[: adapters.index(fingerprint)] if fingerprint in newest else adapters
        return newest[before[-1]] if before else None

    def named(self, name: str) -> Release:
        """The release of that name. Raises InputError, with those there are, when there is none."""
        return _named(self.releases(), name)

    def next_name(self) -> str:
        """The name that the next promotion gives, if nobody else promotes before."""
        return _next_name(self.events())

    def promote(self, release: Release, *, after: int | None = None) -> Release:
        """Put a release to use, under the next free name; gives it back with that name.

        Args:
            after: number of the newest event that was known when the release was judged; None: any may have come.
        Raises InputError when something happened since: what it was judged against is no longer in use.
        """

        def promotion(past: Sequence[Event]) -> Release:
            if after is not None:
                _refuse_later(past, after)
            return replace(release, name=_next_name(past))

        return self._append(promotion)

    def refuse_later(self, after: int) -> None:
        """Raise InputError when something happened since the event of that number (0: since there was none)."""
        _refuse_later(self.events(), after)

    def adopt(self, release: Release) -> Release:
        """Write down the model in use before sabir as release 0; gives it back with that name.

        Raises InputError when there are releases already.
        """

        def promotion(past: Sequence[Event]) -> Release:
            if past:
                found = f"release {INCUMBENT} comes before all others, and there is a release {past[0].to}."
                raise InputError("gate.incumbent", found, "Leave it out.")
            return replace(release, name=INCUMBENT)

        return self._append(promotion)

    def roll_back(self, name: str, by: str) -> Release:
        """Put an earlier release to use again.

        Raises InputError for one that does not exist, or is in use already.
        """

        def rollback(past: Sequence[Event]) -> Release:
            found = _named([event.promoted for event in past if event.promoted is not None], name)
            if past[-1].to == name:
                raise InputError(f"release {name}", "is the current one already.", "Name an earlier one.")
            return found

        return self._append(rollback, by=by)

    def _append(self, make: Callable[[Sequence[Event]], Release], *, by: str | None = None) -> Release:
        """Add the event that `make` wants after those there are: a promotion, or a rollback by somebody.

        A hard link takes a number that nobody has, with the whole file, on NFS too; where somebody took it first,
        `make` is asked again.
        """
        aside = self.folder / f".{uuid.uuid4().hex}"
        try:
            while True:
                past = self.events()
                release = make(past)
                write_atomic(aside, _written(release, by))
                number = past[-1].number + 1 if past else 1
                try:
                    os.link(aside, self.folder / f"{number:06}.json")
                except FileExistsError:
                    if aside.stat().st_nlink == 1:  # else it was ours: NFS asked twice, and said so
                        continue
                sync_folder(self.folder)
                return release
        except OSError as error:
            raise StoreError(
                str(self.folder),
                f"the release could not be written down: {error.strerror}.",
                "What was in use stays so.",
            ) from error
        finally:
            with suppress(OSError):
                aside.unlink()


def _refuse_later(past: Sequence[Event], after: int) -> None:
    if past and past[-1].number > after:
        found = f"release {past[-1].to} came into use meanwhile, by {past[-1].by}."
        raise InputError("promote", found, "Look at it, then promote again.")


def _written(release: Release, by: str | None) -> dict[str, Any]:
    if by is None:
        return {"event": "promote", "release": asdict(release)}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"event": "rollback", "to": release.name, "by": by, "at": now}


def _event(number: int, path: Path) -> Event:
    what = "this event of the release log"
    try:
        value = read_json(path, what, FIX_EVENT)
        if value["event"] == "rollback":
            return Event(number, value["at"], value["by"], value["to"])
        if value["event"] == "promote":
            release = _release(value["release"])
            return Event(number, release.created, release.by, release.name, release)
    except OSError as error:
        raise StoreError(
            str(path), f"{what} cannot be read: {error.strerror}.", "See who may read it."
        ) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(str(path), f"{what} cannot be read.", FIX_EVENT) from error
    raise StoreError(str(path), f"{what} is of a kind {value['event']!r}.", "Take a newer sabir.")


def _release(value: Mapping[str, Any]) -> Release:
    """Raises TypeError or AttributeError for what is none; what a newer sabir knows of one is left out."""
    known = {each.name for each in fields(Release)} & value.keys()
    release = Release(**{key: _frozen(value[key]) for key in known})
    if not release.name.isdecimal():
        raise TypeError(f"a release is called {release.name!r}")
    return release


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _named(releases: Sequence[Release], name: str) -> Release:
    for release in releases:
        if release.name == name:
            return release
    names = [release.name for release in releases]
    known = f"There are: {', '.join(names)}." if names else "Promote one with `sabir promote`."
    raise InputError(f"release {name}", "there is no such release.", f"{known}{did_you_mean(name, names)}")


def _next_name(past: Sequence[Event]) -> str:
    return str(1 + max((int(event.to) for event in past), default=0))


def logs(store: Path | str) -> list[Log]:
    """The releases of every config that has any in a store."""
    folder = Path(store) / "releases"
    return [Log(store, path.name) for path in sorted(folder.iterdir())] if folder.is_dir() else []


# --- the gate --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a release.

    Args:
        verdict: pass, fail or undecided, whatever was accepted.
        reasons: why, a clause each.
        refused: those of the reasons that stand in its way.
        accepted: what had to be accepted by name and was.
        accept_with: the options that would let it through; "" where none are needed.
    """

    verdict: Literal["pass", "fail", "undecided"]
    reasons: tuple[str, ...]
    refused: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    accept_with: str = ""

    @property
    def promoted(self) -> bool:
        """Whether the release may be put to use."""
        return not self.refused


def gate(
    changes: Sequence[Row] | None,
    *,
    max_drop: float,
    undecided: Literal["pass", "refuse"],
    level: float,
    accept: Sequence[str] = (),
    lost: str | None = None,
) -> Verdict:
    """Whether a release may take the place of the one it was compared with.

    It passes when the mean over languages is surely not worse by more than `max_drop` (non-inferiority: the lower
    bound of the paired difference lies above -max_drop), fails when that surely is so, and is undecided otherwise.
    Any language that the old one serves and that is significantly worse, corrected for their number, makes it fail.

    Args:
        changes: rows of the `changes` step, new minus old; None when there is no release to compare with.
        undecided: what becomes of a release of which the test rows cannot tell.
        level: of the intervals; a language is significantly worse at p < 1 - level.
        accept: what to let through all the same: languages, "macro", "undecided", "all".
        lost: why nothing can be compared with the release in use, a clause; the verdict is then undecided.
    Raises InputError for something to accept that does not exist.
    """
    if changes is None and lost is not None:
        reason = f"{lost}, so nothing can be compared with it"
        return _verdict("undecided", (reason,), {UNDECIDED: reason} if undecided == "refuse" else {}, accept)
    if changes is None:
        return Verdict("pass", ("there is no release yet to compare it with",))
    rows = {row["language"]: row for row in changes}
    mean = rows.pop(MACRO)
    _check_accept(accept, list(rows))
    against: dict[str, str] = {}  # reason by what accepts it
    served = {language: row for language, row in rows.items() if row.get("served", True)}
    for language, row in served.items():
        if row["p"] is not None and row["p"] < 1 - level and row["difference"] < 0:
            against[language] = (
                f"{language} {_moved(row)} ({_p(row['p'])}, corrected for {_languages(served)})"
            )
    verdict: Literal["pass", "fail", "undecided"] = "fail" if against else "pass"
    about_mean = _about_mean(mean, list(rows.values()), max_drop=max_drop, level=level)
    low, high = mean["low"], mean["high"]
    if low is not None and high is not None and high < -max_drop:
        verdict = "fail"
        against[MACRO] = about_mean
    elif low is None or not low > -max_drop:
        verdict = "fail" if against else "undecided"
        if undecided == "refuse":
            against[UNDECIDED] = about_mean
    return _verdict(verdict, tuple(dict.fromkeys([*against.values(), about_mean])), against, accept)


def _verdict(
    verdict: Literal["pass", "fail", "undecided"],
    reasons: tuple[str, ...],
    against: Mapping[str, str],
    accept: Sequence[str],
) -> Verdict:
    """The verdict, with what stands against the release less what was accepted.

    Args:
        against: reason by the name that accepts it.
    """
    accepted = tuple(key for key in against if ALL in accept or key in accept)
    return Verdict(
        verdict,
        reasons,
        refused=tuple(reason for key, reason in against.items() if key not in accepted),
        accepted=accepted,
        accept_with=" ".join(f"--accept {key}" for key in against),
    )


def refusal(name: str, verdict: Verdict) -> GateNotMet:
    """What to raise for a release, by its name, that does not get through."""
    return GateNotMet(
        f"release {name} was not promoted",
        f"{'; '.join(verdict.refused)}.",
        f"Use {verdict.accept_with} to promote all the same.",
    )


def _check_accept(accept: Sequence[str], languages: Sequence[str]) -> None:
    known = [*languages, MACRO, UNDECIDED, ALL]
    for name in accept:
        if name not in known:
            fix = f"Known are: {', '.join(known)}.{did_you_mean(name, known)}"
            raise InputError("--accept", f"there is no {name!r} to accept.", fix)


def _about_mean(mean: Row, rows: Sequence[Row], *, max_drop: float, level: float) -> str:
    """How the mean over languages moved, and what the test rows can tell of it."""
    pooled = [row for row in rows if row.get("served", True)]
    if not pooled:
        return "the two releases serve no language in common, so there is no mean to compare"
    if mean["difference"] is None:
        return f"the mean over {_languages(pooled)} is unknown, as one has no row that both have scored"
    subject = f"the mean over {_languages(pooled)} {_moved(mean)}"
    if mean["low"] is None:
        return f"{subject}, and a language has too few test rows to tell what that means"
    interval = f"{100 * level:g} % interval {mean['low']:+.3f} to {mean['high']:+.3f}"
    if mean["low"] > -max_drop or mean["high"] < -max_drop:
        return f"{subject} ({interval}; limit {max_drop:.3f})"
    found = mean.get("detectable")
    shown = "it can show none at all" if found is None else f"the smallest drop it can show is {found:.3f}"
    return f"{subject}, which this test set cannot tell from a drop of more than {max_drop:.3f} ({interval}; {shown})"


def _moved(row: Row) -> str:
    if row["difference"] == 0:
        return f"stayed at {row['new']:.3f}"
    return f"{'fell' if row['difference'] < 0 else 'rose'} from {row['old']:.3f} to {row['new']:.3f}"


def _p(p: float) -> str:
    return "p below 0.001" if p < 0.001 else f"p {p:.3f}"


def _languages(rows: Sequence[Row] | Mapping[str, Row]) -> str:
    return f"{len(rows)} {'language' if len(rows) == 1 else 'languages'}"
