"""Tables of steps: what a plan would run, and why."""

from __future__ import annotations

from sabir.report.plans import planned, ran, why


def planned_step(name, kind, seconds, status="run", reason="new"):
    return {"name": name, "kind": kind, "status": status, "why": reason, "estimated_wall_s": seconds}


def test_a_search_and_the_analysis_have_their_lines_in_a_plan():
    steps = [
        {"name": name, "kind": kind, "status": "run", "why": "new", "estimated_wall_s": seconds}
        for name, kind, seconds in (
            ("merged/tuned", "search", 90.0),
            ("merged/ties", "merged", 1.0),
            ("analysis", "analysis", None),
        )
    ]
    table = planned({"steps": steps, "totals": [], "phase": "setup"})
    assert [row[0] for row in table.rows] == ["merged/ties", "merged/tuned", "analysis"]
    assert [row[3] for row in table.rows] == ["1.0 s", "1 min 30 s", "0.0 s"]


def test_a_plan_of_many_steps_is_a_few_lines_with_their_reasons():
    steps = [
        {
            "name": f"outputs/m{i}/de/test",
            "kind": "outputs",
            "status": "run" if i % 2 else "reused",
            "why": f"merged/m{i} changed" if i % 2 else "nothing it stands on has changed",
            "estimated_wall_s": 1.0,
        }
        for i in range(200)
    ]
    steps.append(
        {
            "name": "adapter/de",
            "kind": "adapter",
            "status": "run",
            "why": "train rows of data/de changed",
            "estimated_wall_s": 75.0,
        }
    )
    table = planned({"steps": steps, "totals": [], "phase": "update"})
    assert table.rows == (
        ("adapter/de", "run", "train rows of data/de changed", "1 min 15 s"),
        ("answers (100)", "reused", "nothing it stands on has changed", ""),
        ("answers (100)", "run", "merges changed", "1 min 40 s"),
    )


def test_steps_that_stand_on_releases_have_their_lines_in_a_plan():
    steps = [
        planned_step("release/0", "adopted", 1.0),
        planned_step("release/3", "merged", 2.0),
        planned_step("adapter/continued", "adapter", 60.0),
        planned_step("outputs/release/3/de/test", "outputs", 3.0),
        planned_step("changes", "changes", None),
    ]
    table = planned({"steps": steps, "totals": [], "phase": "update"})
    assert [(row[0], row[3]) for row in table.rows] == [
        ("release/0", "1.0 s"),
        ("adapter/continued", "1 min 0 s"),
        ("release/3", "2.0 s"),
        ("answers (1)", "3.0 s"),
        ("changes since the release", "0.0 s"),
    ]


def test_an_adapter_that_stands_in_for_todays_has_its_line():
    held = "held at the adapter of release 2 until its training rows change"
    steps = [
        planned_step("adapter/de", "adapter", 0.0, "reused", held),
        planned_step("adapter/fr", "adapter", 0.0, "reused", "nothing it stands on has changed"),
        planned_step("adapter/ja", "adapter", 0.0, "reused", "nothing it stands on has changed"),
    ]
    table = planned({"steps": steps, "totals": [], "phase": "none"})
    assert sorted(table.rows) == [
        ("adapter/de", "reused", held, ""),
        ("adapters fr, ja", "reused", "nothing it stands on has changed", ""),
    ]
    assert table.notes == ("Nothing to do: everything is up to date.",)


def total(phase, route, seconds, usd=None):
    return {
        "phase": phase,
        "route": route,
        "estimated_wall_s": None if seconds is None else seconds / 2,
        "estimated_device_s": seconds,
        "estimated_usd": usd,
    }


def sentences(*totals, **more):
    steps = [planned_step("adapter/de", "adapter", 1.0)]
    return planned({"steps": steps, "totals": totals, "phase": "update", "devices": 2, **more}).notes[1:]


def test_an_update_is_told_beside_retraining_everything_in_time_and_money():
    assert sentences(
        total("setup", "merged", 12240.0, 107.1),
        total("update", "merged", 3600.0, 31.5),
        total("update", "combined", 13680.0, 119.7),
        total("update", "continued", 1800.0, 15.75),
    ) == (
        "All of it from nothing by one adapter a language, merged: about 1 h 42 min on 2 devices (3 h 24 min of "
        "device time, 107.10 USD).",
        "This update by one adapter a language, merged: about 30 min 0 s on 2 devices (1 h 0 min of device time, "
        "31.50 USD).",
        "This update by retraining everything: about 1 h 54 min on 2 devices (3 h 48 min of device time, "
        "119.70 USD).",
        "This update by training the combined adapter on: about 15 min 0 s on 2 devices (30 min 0 s of device time, "
        "15.75 USD).",
        "That is 73.7 % less device time than retraining everything.",
    )


def test_an_update_that_would_cost_more_is_not_sold_as_a_saving():
    *_, last = sentences(total("add", "merged", 150.0), total("add", "combined", 100.0))
    assert last == "That is 50.0 % more device time than retraining everything."


def test_where_retraining_is_unknown_it_is_compared_with_nothing():
    (sentence,) = sentences(total("update", "merged", 100.0), total("update", "combined", None))
    assert sentence.startswith("This update by one adapter a language")
    assert sentences(total("update", "merged", None), total("update", "combined", None)) == (
        "How long it takes is not known yet: nothing has been measured in this store.",
    )


def test_the_drop_that_the_test_rows_would_show_is_told_before_the_run():
    drops = [
        {"language": "de", "drop": 0.0623, "n": 500},
        {"language": "macro", "drop": 0.028, "n": 2500},
        {"language": "pt", "drop": None, "n": 1},
    ]
    assert sentences(total("setup", "merged", None), detectable=drops)[-1] == (
        "Smallest drop these test rows would show, if independent: de 0.062 (500 rows), the mean 0.028 (2,500 rows), "
        "pt none (1 row)."
    )


def test_what_ran_is_listed_with_what_it_took():
    step = {"name": "adapter/de", "kind": "adapter", "status": "run", "why": "new"}
    measured = {**step, "wall_s": 75.0, "tokens": 12000, "peak_bytes": 3 * 2**20}
    unknown = {
        **step,
        "name": "adapter/fr",
        "status": "failed",
        "wall_s": None,
        "tokens": None,
        "peak_bytes": None,
    }
    answers = {**measured, "name": "outputs/base/de/test", "kind": "outputs"}
    assert ran({"steps": [measured, unknown, answers]}).rows == (
        ("adapter/de", "run", "new", "1 min 15 s", "12,000", "3 MiB"),
        ("adapter/fr", "failed", "new", "?", "", ""),
    )


# --- why -----------------------------------------------------------------------------------------------------


def reason(*roots, **more):
    document = {
        "step": "merged/ties",
        "status": "run",
        "fingerprint": "f" * 64,
        "before": "b" * 64,
        "why": "not finished yet, or its output is missing from the store",
    }
    return why({**document, "roots": roots, **more})


def test_a_step_that_runs_again_is_explained_by_the_fields_that_differ_where_the_change_began():
    table = reason(
        {
            "step": "data/de",
            "why": "train rows changed",
            "differences": [{"field": "parts.train", "was": "0123456789abcdef" * 4, "now": "ab" * 32}],
        },
        {
            "step": "adapter/fr",
            "why": "lora.rank: 16 -> 32",
            "differences": [
                {"field": "settings.lora.rank", "was": 16, "now": 32},
                {"field": "settings.lora.targets", "was": None, "now": ["q_proj"] * 20},
            ],
        },
    )
    assert table.rows[:2] == (
        ("data/de", "parts.train", "0123456789ab", "abababababab"),
        ("adapter/fr", "settings.lora.rank", "16", "32"),
    )
    assert table.rows[2][2] == "-"
    assert len(table.rows[2][3]) == 60
    assert table.notes == (
        "merged/ties will run because of data/de: train rows changed; adapter/fr: lora.rank: 16 -> 32.",
        "Fingerprint ffffffffffff (before: bbbbbbbbbbbb).",
    )


def test_a_step_without_differences_is_new_missing_or_reused():
    assert "never run before" in reason(before=None).notes[0]
    assert "missing from the store" in reason().notes[0]
    reused = reason(status="reused", why="nothing it stands on has changed")
    assert reused.notes[0] == "merged/ties is in the store: nothing it stands on has changed."
    assert reason(before=None).notes[1] == "Fingerprint ffffffffffff."


def test_a_held_adapter_is_explained_by_its_hold_and_not_by_a_change():
    held = "held at the adapter of release 2 until its training rows change"
    pinned = {"field": "pinned", "was": "b" * 64, "now": "c" * 64}
    root = {"step": "adapter/fr", "why": held, "differences": [pinned]}
    own = reason(root, step="adapter/fr", status="reused", why=held)
    assert own.notes[0] == f"adapter/fr is in the store: {held}."
    above = reason(root)
    assert above.notes[0] == f"merged/ties will run because of adapter/fr: {held}."
    assert above.rows == (("adapter/fr", "pinned", "bbbbbbbbbbbb", "cccccccccccc"),)


def test_a_new_step_below_has_its_row_though_it_differs_from_nothing():
    table = reason({"step": "data/pt", "why": "new", "differences": []})
    assert table.rows == (("data/pt", "new", "-", "-"),)
    assert table.notes[0] == "merged/ties will run because of data/pt: new."


def test_settings_in_a_reason_are_told_without_the_marks_of_python():
    changed = "update: default -> {'replay': 0.2, 'epochs': None}; lora.rank: 16 -> 32"
    told = "update: default -> replay 0.2, epochs default; lora.rank: 16 -> 32"
    table = planned({"steps": [planned_step("adapter/de", "adapter", 1.0, reason=changed)], "totals": []})
    assert table.rows[0][2] == told
    root = {"step": "adapter/de", "why": changed, "differences": []}
    assert reason(root).notes[0] == f"merged/ties will run because of adapter/de: {told}."
    cut = "lora.rank: 16 -> 32; update: default -> {'mode': 'continu...'replay': 0.2}; seed: 0 -> 1"
    table = planned({"steps": [planned_step("adapter/de", "adapter", 1.0, reason=cut)], "totals": []})
    assert table.rows[0][2] == "lora.rank: 16 -> 32; update changed; seed: 0 -> 1"


def test_a_list_that_was_cut_short_is_said_to_have_changed_and_no_more():
    cut = "pairs: [['merged/a[...le=1.0]', 'base']] -> [['merged/a[...le=2.0]', 'base']]; scores changed"
    steps = [planned_step("comparisons", "judge", None, reason=cut)]
    assert planned({"steps": steps, "totals": []}).rows[0][2] == "pairs changed; scores changed"
    whole = "lora.targets: ['q_proj'] -> ['v_proj']"
    steps = [planned_step("adapter/de", "adapter", None, reason=whole)]
    assert planned({"steps": steps, "totals": []}).rows[0][2] == whole


def test_an_update_without_any_work_is_compared_with_nothing():
    found = sentences(total("update", "merged", 0.0), total("update", "combined", 100.0))
    assert not any("less device time" in sentence for sentence in found)


def test_lines_of_the_selection_and_of_the_comparisons_tell_which_is_which():
    steps = [
        planned_step("select", "select", None, "reused", "nothing it stands on has changed"),
        planned_step("comparisons", "judge", None),
        planned_step("changes", "changes", None),
    ]
    table = planned({"steps": steps, "totals": []})
    assert [row[:2] for row in table.rows] == [
        ("selection", "reused"),
        ("comparisons, changes since the release", "run"),
    ]


def test_the_scales_of_the_combined_adapter_are_no_merges_and_their_choice_is_no_selection():
    name = "adapter/combined[rank=80,scale=0.5]"
    steps = [
        planned_step("adapter/combined[rank=80]", "adapter", 60.0),
        planned_step(name, "merged", 1.0),
        planned_step(name.replace("0.5", "0.75"), "merged", 1.0),
        planned_step("merged/ties", "merged", 1.0),
        planned_step("select/combined", "select", None),
        planned_step("select", "select", None, "reused", "nothing it stands on has changed"),
    ]
    table = planned({"steps": steps, "totals": []})
    assert [row[0] for row in table.rows] == [
        "adapter/combined[rank=80]",
        "scales of the combined adapter (2)",
        "merged/ties",
        *("scale of the combined adapter", "selection"),
    ]


def test_where_a_run_of_no_phase_goes_several_routes_each_is_told():
    rows = (
        total("setup", "merged", 100.0),
        total("none", "merged", 10.0),
        total("none", "combined", 60.0),
        total("none", "beside", 20.0),
    )
    assert [sentence.partition(":")[0] for sentence in sentences(*rows[:3])] == [
        "All of it from nothing by one adapter a language, merged",
        "This run",
    ]
    retrained = {"steps": [planned_step("adapter/combined", "adapter", 60.0)], "phase": "none", "devices": 1}
    told = planned({**retrained, "totals": rows}).notes[2:]
    assert [sentence.partition(":")[0] for sentence in told] == [
        "This run by one adapter a language, merged",
        "This run by retraining everything",
        "This run by what is measured beside (rivals, other trainings and test sets)",
    ]
