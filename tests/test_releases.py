"""The log of releases only grows, and the gate lets through what it should, as often as it should."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from sabir import stats
from sabir.errors import GateNotMet, InputError, StoreError
from sabir.releases import Log, Release, gate, refusal

NOW = "2026-11-21T12:00:00+00:00"


def release(model="merged/ties", **facts):
    given = {"name": "", "created": NOW, "by": "ann", "kind": "merged", "fingerprint": "f" * 64, **facts}
    return Release(model=model, **given)


def promoted(log, count=1, **facts):
    return [log.promote(release(**facts)) for _ in range(count)][-1]


def names(releases):
    return [each.name for each in releases]


# --- the log ------------------------------------------------------------------------------------------------


def test_an_empty_store_has_no_release_and_nothing_is_written(tmp_path):
    log = Log(tmp_path / "store", "sabir.yaml")
    assert (log.releases(), log.current(), log.before_current()) == ((), None, None)
    assert log.next_name() == "1"
    with pytest.raises(InputError, match=r"release 1: there is no such release\. Promote one"):
        log.named("1")
    with pytest.raises(InputError, match="there is no such release"):
        log.roll_back("1", "ann")
    assert not (tmp_path / "store").exists()


def test_a_release_comes_back_as_it_was_promoted(tmp_path):
    whole = release(
        recipe={"method": "ties", "settings": {"density": 0.2}},
        languages={"de": "a" * 64},
        data={"de": {"digests": {"train": "d"}, "rows": {"train": 3}}},
        base="sha256:b",
        parent="0",
        verdict="undecided",
        reasons=("the mean fell",),
        accepted=("undecided",),
        scores=({"language": "de", "value": 0.1},),
        changes=({"language": "de", "p": None},),
        evaluated=("e" * 64,),
        usd=1.5,
        device_s=3.0,
        run="20261121",
    )
    given = Log(tmp_path, "sabir.yaml").promote(whole)
    assert given.name == "1"
    assert Log(tmp_path, "sabir.yaml").current() == Log(tmp_path, "sabir.yaml").named("1") == given
    assert sorted(os.listdir(tmp_path / "releases/sabir.yaml")) == ["000001.json"]


def test_the_newest_event_says_what_is_in_use(tmp_path):
    log = Log(tmp_path, "sabir.yaml")
    promoted(log, 3)
    assert log.current().name == "3"
    assert log.roll_back("1", "bob").name == "1"
    assert log.current().name == "1"
    assert names(log.releases()) == ["1", "2", "3"]  # history keeps them all
    last = log.events()[-1]
    assert (last.to, last.by, last.promoted, last.number) == ("1", "bob", None, 4)
    assert promoted(log).name == "4"  # a name is never given twice
    assert log.current().name == "4"


def test_rolling_back_twice_goes_two_back(tmp_path):
    log = Log(tmp_path, "sabir.yaml")
    promoted(log, 4)
    for expected in ("3", "2", "1"):
        assert log.roll_back(log.before_current().name, "ann").name == expected
    assert log.before_current() is None


def test_what_was_rolled_back_is_not_gone_back_to(tmp_path):
    log = Log(tmp_path, "sabir.yaml")
    promoted(log, 3)
    log.roll_back("2", "ann")  # 3 was bad
    promoted(log)
    assert names(log.in_use()) == ["1", "2", "4"]
    assert log.before_current().name == "2"
    log.roll_back("3", "ann")  # on purpose, by its name
    assert names(log.in_use()) == ["1", "2", "4", "3"]
    assert log.before_current().name == "4"


def test_the_current_release_is_not_rolled_back_to(tmp_path):
    log = Log(tmp_path, "sabir.yaml")
    promoted(log, 2)
    with pytest.raises(InputError, match="release 2: is the current one already"):
        log.roll_back("2", "ann")
    assert len(log.events()) == 2


def test_an_unknown_release_is_refused_with_those_there_are(tmp_path):
    log = Log(tmp_path, "sabir.yaml")
    promoted(log, 2)
    for ask in (lambda: log.named("7"), lambda: log.roll_back("7", "ann")):
        with pytest.raises(InputError, match=r"release 7: there is no such release\. There are: 1, 2\."):
            ask()


def test_the_model_before_sabir_is_release_0_and_comes_first(tmp_path):
    log = Log(tmp_path, "sabir.yaml")
    assert log.adopt(release("incumbent", kind="adopted")).name == "0"
    assert log.current().name == "0"
    assert promoted(log).name == "1"
    assert log.before_current().name == "0"
    with pytest.raises(InputError, match="release 0 comes before all others"):
        log.adopt(release())
    assert names(log.releases()) == ["0", "1"]


def by_german(log, *adapters):
    for adapter in adapters:
        log.promote(release(languages={} if adapter is None else {"de": adapter, "fr": "f"}))


def test_the_last_other_adapter_of_a_language_is_that_of_the_newest_release_with_another(tmp_path):
    log = Log(tmp_path, "sabir.yaml")
    by_german(log, "a", "b", "b", "c")
    assert log.last_with_other("de", "c").name == "3"
    assert log.last_with_other("de", "new, not promoted").name == "4"
    assert log.last_with_other("de", "b").name == "1"
    assert log.last_with_other("de", "a") is None
    assert log.last_with_other("fr", "f") is None
    assert log.last_with_other("pt", "p") is None


def test_german_rolled_back_twice_goes_two_back(tmp_path):
    log = Log(tmp_path, "sabir.yaml")
    by_german(log, "a", "b", "c", "b")  # the last one holds yesterday's German
    assert log.last_with_other("de", "b").languages["de"] == "a"
    by_german(log, "a")
    assert log.last_with_other("de", "a") is None


def test_the_german_of_a_release_that_was_rolled_back_is_not_offered(tmp_path):
    log = Log(tmp_path, "sabir.yaml")
    by_german(log, "a", "bad")
    log.roll_back("1", "ann")
    by_german(log, "c", None, "c")
    assert log.last_with_other("de", "c").name == "1"


def test_people_who_promote_at_once_all_get_through_under_names_of_their_own(tmp_path):
    code = (
        "import sys; from sabir.releases import Log, Release\n"
        "who, store = sys.argv[1:]\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for i in range(10):\n"
        "    given = Log(store, 'sabir.yaml').promote(Release('', 'now', who, f'merged/{i}', 'merged', 'f'))\n"
        "    print(given.name, flush=True)\n"
    )
    people = [
        subprocess.Popen(
            [sys.executable, "-c", code, who, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for who in ("ann", "bob", "eve")
    ]
    for person in people:
        assert person.stdout.readline() == "ready\n"
    for person in people:
        person.stdin.write("go\n")
        person.stdin.flush()
    given = {who: person.communicate()[0].split() for who, person in zip("abe", people, strict=True)}
    every = [int(name) for each in given.values() for name in each]
    assert sorted(every) == list(range(1, 31))
    log = Log(tmp_path, "sabir.yaml")
    assert names(log.releases()) == [str(name) for name in range(1, 31)]
    for who, mine in given.items():
        assert [log.named(name).by[0] for name in mine] == [who] * 10
        assert [log.named(name).model for name in mine] == [f"merged/{i}" for i in range(10)]


def test_somebody_who_came_first_keeps_the_number(tmp_path, monkeypatch):
    log, link, others = Log(tmp_path, "sabir.yaml"), os.link, []

    def later(source, target):
        if not others:
            monkeypatch.setattr(os, "link", link)
            others.append(log.promote(release("theirs")))
        link(source, target)

    monkeypatch.setattr(os, "link", later)
    assert log.promote(release("ours")).name == "2"
    assert [(each.name, each.model) for each in log.releases()] == [("1", "theirs"), ("2", "ours")]


def test_a_link_that_nfs_made_and_denies_is_written_once(tmp_path, monkeypatch):
    log, link = Log(tmp_path, "sabir.yaml"), os.link

    def denied(source, target):
        link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", denied)
    assert log.promote(release()).name == "1"
    assert names(log.releases()) == ["1"]


def test_a_promotion_that_finds_the_disk_full_leaves_what_was_in_use(tmp_path, monkeypatch):
    log = Log(tmp_path, "sabir.yaml")
    promoted(log)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("fsync", "link"):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, full)
            with pytest.raises(StoreError, match=r"No space left on device\. What was in use stays so"):
                promoted(log)
    assert log.current().name == "1"
    assert os.listdir(tmp_path / "releases/sabir.yaml") == ["000001.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"event": "promote", "rele',
        b"[]",
        b'{"event": "promote"}',
        b'{"event": "promote", "release": {"name": "2"}}',
        b'{"event": "promote", "release": "2"}',
        b'{"event": "rollback", "by": "ann"}',
        b'{"event": "rollback", "by": "ann", "at": "now", "to": "9"}',
        b"\xff\xfe\x00",
    ],
)
def test_a_damaged_event_is_said_with_its_file_and_nothing_is_written_over_it(tmp_path, content):
    log = Log(tmp_path, "sabir.yaml")
    promoted(log, 2)
    path = tmp_path / "releases/sabir.yaml" / "000002.json"
    path.write_bytes(content)
    for ask in (log.current, log.releases, lambda: log.named("1"), lambda: promoted(log)):
        with pytest.raises(StoreError, match=r"000002\.json.*(remove it)"):
            ask()
    assert path.read_bytes() == content
    path.unlink()
    assert log.current().name == "1"


def test_an_event_of_a_newer_sabir_is_said_and_what_it_adds_to_a_release_is_left_out(tmp_path):
    log = Log(tmp_path, "sabir.yaml")
    promoted(log)
    path = tmp_path / "releases/sabir.yaml" / "000001.json"
    event = json.loads(path.read_text())
    event["release"]["colour"] = "red"
    path.write_text(json.dumps(event))
    assert log.current() == release(name="1")
    path.write_text(json.dumps({"event": "canary", "to": "1"}))
    with pytest.raises(StoreError, match="of a kind 'canary'"):
        log.current()


def test_files_that_are_no_events_are_left_alone(tmp_path):
    log = Log(tmp_path, "sabir.yaml")
    promoted(log)
    for name in ("notes.json", ".aside", "000002.json.bak"):
        (tmp_path / "releases/sabir.yaml" / name).write_text("mine")
    assert names(log.releases()) == ["1"]


# --- the gate -----------------------------------------------------------------------------------------------


def row(language, difference, *, low=None, high=None, p=1.0, old=0.412, detectable=0.04, **facts):
    return {
        "language": language,
        "difference": difference,
        "low": difference - 0.005 if low is None else low,
        "high": difference + 0.005 if high is None else high,
        "p": p,
        "old": old,
        "new": old + difference,
        "detectable": detectable,
        **facts,
    }


def judged(changes, *, max_drop=0.01, undecided="pass", level=0.95, accept=()):
    return gate(changes, max_drop=max_drop, undecided=undecided, level=level, accept=accept)


FINE = [row("de", 0.01), row("fr", -0.002), row("macro", 0.004)]
GERMAN_FELL = [row("de", -0.041, p=0.004), row("fr", 0.03), row("macro", -0.004)]
MEAN_FELL = [row("de", -0.03, p=0.2), row("fr", -0.03, p=0.2), row("macro", -0.03, p=0.001)]
OPEN = [row("de", -0.01), row("fr", 0.0), row("macro", -0.003, low=-0.03, high=0.024, detectable=0.039)]


def test_the_first_release_passes_and_says_why():
    found = judged(None)
    assert (found.verdict, found.promoted) == ("pass", True)
    assert found.reasons == ("there is no release yet to compare it with",)


def test_a_mean_that_is_surely_not_worse_passes():
    found = judged(FINE)
    assert (found.verdict, found.promoted, found.accept_with) == ("pass", True, "")
    assert found.reasons == (
        "the mean over 2 languages rose from 0.412 to 0.416 (95 % interval -0.001 to +0.009; limit 0.010)",
    )


def test_a_language_that_fell_significantly_fails_and_is_named():
    found = judged(GERMAN_FELL)
    assert (found.verdict, found.promoted) == ("fail", False)
    assert str(refusal("3", found)) == (
        "release 3 was not promoted: de fell from 0.412 to 0.371 (p 0.004, corrected for 2 languages). "
        "Use --accept de to promote all the same."
    )
    assert isinstance(refusal("3", found), GateNotMet)
    assert refusal("3", found).exit_code == 3


def test_a_language_that_rose_significantly_does_not_fail():
    assert judged([row("de", 0.05, p=0.001), row("macro", 0.05)]).verdict == "pass"


def test_significance_follows_the_level():
    assert judged([row("de", -0.02, p=0.04), row("macro", 0.0)]).verdict == "fail"
    assert judged([row("de", -0.02, p=0.04), row("macro", 0.0)], level=0.99).verdict == "pass"


def test_a_mean_that_surely_fell_too_far_fails():
    found = judged(MEAN_FELL)
    assert (found.verdict, found.promoted) == ("fail", False)
    assert str(refusal("3", found)) == (
        "release 3 was not promoted: the mean over 2 languages fell from 0.412 to 0.382 "
        "(95 % interval -0.035 to -0.025; limit 0.010). Use --accept macro to promote all the same."
    )


def test_the_bound_itself_decides_nothing():
    assert judged([row("de", 0.0), row("macro", 0.0, low=-0.01, high=0.01)]).verdict == "undecided"
    assert judged([row("de", 0.0), row("macro", -0.02, low=-0.03, high=-0.01)]).verdict == "undecided"


def test_undecided_says_the_drop_that_the_test_set_can_show():
    found = judged(OPEN)
    assert (found.verdict, found.promoted, found.accept_with) == ("undecided", True, "")
    assert found.reasons == (
        "the mean over 2 languages fell from 0.412 to 0.409, which this test set cannot tell from a drop of more than "
        "0.010 (95 % interval -0.030 to +0.024; the smallest drop it can show is 0.039)",
    )


def test_undecided_is_refused_where_the_config_says_so():
    found = judged(OPEN, undecided="refuse")
    assert (found.verdict, found.promoted) == ("undecided", False)
    assert str(refusal("3", found)).endswith("is 0.039). Use --accept undecided to promote all the same.")
    assert judged(OPEN, undecided="refuse", accept=["undecided"]).promoted


def test_each_objection_must_be_accepted_by_its_name():
    both = [row("de", -0.05, p=0.001), row("fr", 0.0), row("macro", -0.03)]
    found = judged(both, accept=["de"])
    assert (found.verdict, found.promoted, found.accepted) == ("fail", False, ("de",))
    assert found.accept_with == "--accept de --accept macro"
    assert "de fell" not in str(refusal("4", found))
    assert len(found.reasons) == 2
    for accept in (["de", "macro"], ["all"]):
        found = judged(both, accept=accept)
        assert (found.verdict, found.promoted, found.accepted) == ("fail", True, ("de", "macro"))
    assert not judged(both, accept=["fr", "macro"]).promoted
    assert judged(FINE, accept=["all"]).accepted == ()


def test_both_objections_are_said_when_a_language_fell_and_the_mean_is_open():
    changes = [row("de", -0.05, p=0.0001), row("macro", -0.01, low=-0.03, high=0.01)]
    found = judged(changes, undecided="refuse")
    assert (found.verdict, found.accept_with) == ("fail", "--accept de --accept undecided")
    assert (
        "de fell from 0.412 to 0.362 (p below 0.001, corrected for 1 language); the mean over 1 language"
        in str(refusal("4", found))
    )


def test_something_unknown_to_accept_is_refused():
    with pytest.raises(InputError, match=r"--accept: there is no 'fra' to accept\. Known are: de, fr, macro"):
        judged(FINE, accept=["fra"])


def unknown(language):
    nothing = dict.fromkeys(["difference", "low", "high", "p", "old", "new", "detectable"])
    return {"language": language, **nothing}


def test_what_cannot_be_compared_is_undecided():
    found = judged([unknown("de"), row("fr", 0.01), unknown("macro")])
    assert found.verdict == "undecided"
    assert "one has no row that both have scored" in found.reasons[0]
    found = judged([row("fr", 0.01, served=False), {**unknown("macro"), "served": False}], undecided="refuse")
    assert (found.verdict, found.promoted) == ("undecided", False)
    assert "serve no language in common" in found.reasons[0]
    found = judged([row("de", -0.02), {**row("macro", -0.02), "low": None, "high": None, "detectable": None}])
    assert found.verdict == "undecided"
    assert "too few test rows" in found.reasons[0]


def test_a_test_set_that_can_show_nothing_says_so():
    changes = [row("de", 0.0), row("macro", 0.0, low=-0.8, high=0.8, detectable=None)]
    assert "it can show none at all" in judged(changes).reasons[0]
    assert "stayed at 0.412, which" in judged(changes).reasons[0]


def test_the_mean_is_over_the_languages_that_both_serve():
    found = judged([row("de", 0.01), row("pt", 0.4, served=False), row("macro", 0.01)])
    assert "the mean over 1 language rose" in found.reasons[0]


# --- how often the gate errs, by simulation -----------------------------------------------------------------

LANGUAGES, ROWS, TRIALS = 5, 200, 2000


def accuracy(means):
    return means[..., 0]


def simulated(rng, *, drop):
    """The rows of `changes` for a release whose true accuracy is lower by `drop` in every language."""
    pairs = []
    for _ in range(LANGUAGES):
        kind, both = rng.random((ROWS, 1)), rng.random((ROWS, 1)) < 0.6
        only_new, only_old = (0.2 - drop) / 2, (0.2 + drop) / 2
        new = np.where(kind < only_new, 1.0, np.where(kind < only_new + only_old, 0.0, both))
        old = np.where(kind < only_new, 0.0, np.where(kind < only_new + only_old, 1.0, both))
        pairs.append((new, old))
    # 0/1 scores need no resampling but for the p-value of the mean, which the gate does not read
    found = [stats.paired_difference(new, old, accuracy, seed=0) for new, old in pairs]
    mean = stats.paired_macro(pairs, accuracy, seed=0, resamples=1)
    corrected = stats.holm([each.p for each in found])
    return [
        row(language, each.difference, low=each.low, high=each.high, p=p)
        for language, each, p in zip([*"abcde", "macro"], [*found, mean], [*corrected, mean.p], strict=True)
    ]


def test_a_release_as_much_worse_as_is_just_not_accepted_seldom_passes():
    rng, max_drop = np.random.default_rng(0), 0.03
    verdicts = [judged(simulated(rng, drop=max_drop), max_drop=max_drop).verdict for _ in range(TRIALS)]
    # At most (1 - level) / 2 = 0.025 of such releases may pass. The simulation's standard error is
    # sqrt(0.025 * 0.975 / 2000) = 0.0035, and three of them are allowed for.
    assert np.mean([verdict == "pass" for verdict in verdicts]) <= 0.025 + 0.0105


def test_a_release_that_is_no_worse_seldom_fails():
    rng = np.random.default_rng(1)
    verdicts = [judged(simulated(rng, drop=0.0), max_drop=0.03).verdict for _ in range(TRIALS)]
    # Any of the languages may raise a false alarm: together at most 0.05 by Holm, half of that on the side of a
    # drop; McNemar's mid-p keeps to it. The mean fails almost never. Three standard errors as above.
    assert np.mean([verdict == "fail" for verdict in verdicts]) <= 0.025 + 0.0105


def test_a_release_that_is_far_worse_in_the_mean_fails_almost_always():
    rng = np.random.default_rng(2)
    verdicts = [judged(simulated(rng, drop=0.12), max_drop=0.03).verdict for _ in range(300)]
    assert np.mean([verdict == "fail" for verdict in verdicts]) >= 0.99
