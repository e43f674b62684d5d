"""The folder that servers watch: the release in use lies there, in one move."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sabir.engine.leases import exclusive
from sabir.errors import InputError
from sabir.project.running import writing
from sabir.project.standing import Standing
from sabir.releases import Release
from sabir.serving import swap


def serve(standing: Standing, fingerprint: str, *, then: Callable[[], object] = lambda: None) -> None:
    """Put a model where servers look, in one move; `then` is called once it lies there, just before that."""
    with writing(standing.store), exclusive(standing.store, "serve"):
        put_there(standing, fingerprint, then=then)


def put_there(standing: Standing, fingerprint: str, *, then: Callable[[], object]) -> None:
    """The same, where it is ours to serve."""
    from sabir.work.export import export as write

    config = standing.config

    def build(out: Path) -> None:
        write(
            standing.store.folder(fingerprint),
            out,
            base=named_base(standing),
            base_folder=base_folder(standing),
            form=config.serve.form,
        )

    name = f"{fingerprint[:12]}-{config.serve.form}"
    swap(serving_folder(standing), name, build, owner=config.name, then=then)


def serving_folder(standing: Standing) -> Path:
    """Where servers find the release in use, as `current`."""
    return standing.config.serve.folder or standing.store.path / "serve"


def base_folder(standing: Standing) -> Path:
    assert standing.facts.base_folder is not None  # a standing with its base
    return standing.facts.base_folder


def named_base(standing: Standing) -> dict[str, Any]:
    base = standing.facts.base
    return {"name": base.name.partition("@")[0] if base.revision else base.name, "revision": base.revision}


def other_base(standing: Standing, release: Release) -> InputError:
    found = f"stands on another base than {standing.config.base!r}."
    return InputError(f"release {release.name}", found, "Name its base under base: again.")


def must_be_there(standing: Standing, release: Release) -> None:
    if not standing.same_base(release):
        raise other_base(standing, release)
    if not standing.store.has(release.fingerprint):
        found = "its model is no longer in the store."
        raise InputError(f"release {release.name}", found, "It was purged or lost; name another one.")
