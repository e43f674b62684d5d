"""Tables of the store: what can go, what is damaged, what still holds forgotten rows."""

from __future__ import annotations

from sabir.report.care import copies, damaged, junk


def one(what, name, size_bytes):
    return {"what": what, "name": name, "path": f"/store/{name}", "size_bytes": size_bytes}


def test_what_can_go_is_summed_by_kind_the_largest_first():
    found = [
        one("job folder", "run 1", 1024),
        *(one("step", f"merged/m{number}", 2**20) for number in range(6)),
    ]
    table = junk({"freed_bytes": 6 * 2**20 + 1024, "dry_run": True, "junk": found})
    assert table.rows == (
        ("step", "6", "6.0 MiB", "merged/m0, merged/m1, merged/m2, merged/m3, and 2 more"),
        ("job folder", "1", "1.0 KiB", "run 1"),
    )
    assert table.notes == ("6.0 MiB would be freed; nothing was deleted.",)
    assert junk({"freed_bytes": 512, "dry_run": False, "junk": found}).notes == ("512 B freed.",)


def test_a_tidy_store_has_nothing_to_free():
    table = junk({"freed_bytes": 0, "dry_run": False, "junk": []})
    assert table.rows == ()
    assert table.notes[0].startswith("Nothing to free")


def test_damage_is_named_by_step_and_by_what_is_wrong():
    damage = {
        "name": "adapter/de",
        "kind": "adapter",
        "what": "adapter.safetensors: digest",
        "fingerprint": "f" * 64,
    }
    table = damaged({"checked": 1204, "damaged": [damage]})
    assert table.rows == (("adapter/de", "adapter", "adapter.safetensors: digest", "ffffffffffff"),)
    assert table.notes == ("1 of 1,204 steps read are damaged; the next run makes them again.",)
    assert damaged({"checked": 1, "damaged": []}).notes == ("1 step read: nothing is damaged.",)


ROW = {"language": "de", "split": "train", "id": "r17", "place": "data/de.jsonl, line 412"}
COPY = {
    "what": "trained on it",
    "name": "adapter/de",
    "fingerprint": "f" * 64,
    "path": "/store/steps/f",
    "release": None,
}


def test_forgotten_rows_are_named_with_what_still_holds_them():
    made = {**COPY, "what": "made of it"}
    document = {
        "rows": [ROW],
        "copies": [
            {**made, "name": "scores/base/de/test", "fingerprint": "a" * 64},
            {**made, "name": "scores/base/fr/test", "fingerprint": "b" * 64},
            {**made, "name": "merged/ties", "release": "2"},
            COPY,
        ],
        "purged": False,
    }
    table = copies(document)
    assert table.rows == (
        ("trained on it", "adapter/de", "1", "", "ffffffffffff"),
        ("made of it", "merged/ties", "1", "2", "ffffffffffff"),
        ("made of it", "scores", "2", "", "aaaaaaaaaaaa, bbbbbbbbbbbb"),
    )
    assert table.notes == (
        "Forgotten: de train r17 (data/de.jsonl, line 412).",
        "4 old copies in the store; --purge deletes them.",
        "Release 2 would be lost with them.",
    )


def test_what_was_purged_is_told_as_gone():
    table = copies({"rows": [], "copies": [{**COPY, "release": "2"}], "purged": True})
    assert table.notes == ("1 copy purged.", "Release 2 can no longer be gone back to.")
    assert copies({"rows": [], "copies": [], "purged": True}).notes == (
        "Nothing in the store holds a forgotten row.",
    )


def test_lost_releases_are_named_in_the_order_of_their_numbers():
    found = [{**COPY, "fingerprint": name * 32, "release": name} for name in ("10", "2", "1", "2")]
    table = copies({"rows": [], "copies": found, "purged": False})
    assert table.rows[0][3] == "1, 2, 10"
    assert table.notes[-1] == "Releases 1, 2, 10 would be lost with them."
