"""The model card that lies beside what was written: what it was made of, and how to load and serve it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from sabir.lora.write import SERVED_RANKS, served_rank

# The class that loads the base of an adapter of this task_type.
CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}


def model_card(document: Mapping[str, Any]) -> str:
    """A README.md for the Hugging Face hub: front matter, recipe, sources, energy kept, how to load and serve.

    The same document gives the same text, and no path of a machine is in it.

    Args:
        document: recipe (its identity), adapters ([{name, digest}]), rank, modules, parameters, energy_kept and
            energy_kept_by_adapter (shares in [0, 1], or None), base_model, revision, warnings (sentences), folded, and
            task_type as PEFT names it where it is not CAUSAL_LM.
    """
    folded = bool(document.get("folded"))
    base = _public(document.get("base_model"))
    sections = [
        _front_matter(base, folded=folded),
        "# " + _title(document, base, folded=folded),
        _what(document, base, folded=folded),
        "## Recipe\n\n" + _recipe(document["recipe"]),
        "## Sources\n\n" + _sources(document),
        _warnings(document.get("warnings") or ()),
        "## Loading\n\n" + _loading(document, base, folded=folded),
        _serving(document, base, folded=folded) if _task(document) == "CAUSAL_LM" else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _public(base: object) -> str | None:
    """A base model's name on the hub; None for a folder of some machine."""
    name = str(base or "")
    on_hub = name.count("/") <= 1 and not name.startswith((".", "~", "/")) and "\\" not in name
    return name if name and on_hub and not os.path.exists(name) else None


def _front_matter(base: str | None, *, folded: bool) -> str:
    lines = ["---", f"library_name: {'transformers' if folded else 'peft'}"]
    if base:
        lines.append(f"base_model: {json.dumps(base)}")
    return "\n".join([*lines, "tags:", "- merge", "- lora", "- sabir", "---"])


def _title(document: Mapping[str, Any], base: str | None, *, folded: bool) -> str:
    names = [str(adapter["name"]) for adapter in document["adapters"]]
    listed = ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:8])} and {len(names) - 8} more"
    what = "Model" if folded else "LoRA adapter"
    return f"{what} merged from {listed}" + (f" on {base}" if base else "")


def _what(document: Mapping[str, Any], base: str | None, *, folded: bool) -> str:
    count, modules = len(document["adapters"]), document["modules"]
    on = base or ("the base model" if folded else "the base named in adapter_config.json")
    revision = f" (revision {document['revision']})" if document.get("revision") and base else ""
    adapters = f"{count} LoRA {'adapter' if count == 1 else 'adapters'}"
    if folded:
        return f"{adapters} merged, and the result added to the weights of {on}{revision}: {modules} modules changed."
    return (
        f"{adapters} merged into one for {on}{revision}: rank {document['rank']} in {modules} modules, "
        f"{document['parameters']:,} parameters. Its scale is 1 (lora_alpha is the rank)."
    )


def _recipe(recipe: Mapping[str, Any]) -> str:
    """One row for each choice; a setting by its own name."""
    rows = []
    for name, value in recipe.items():
        if name == "settings" and isinstance(value, Mapping):
            rows += [(str(setting), one) for setting, one in value.items()]
        elif value is not None:
            rows.append((name, value))
    return _table(("choice", "value"), [(name, _value(value)) for name, value in rows])


def _value(value: object) -> str:
    if isinstance(value, str | int | float):
        return f"{value}"
    return f"`{json.dumps(value, sort_keys=True, ensure_ascii=False)}`"


def _sources(document: Mapping[str, Any]) -> str:
    rows = [(str(adapter["name"]), f"`{adapter['digest']}`") for adapter in document["adapters"]]
    explained = "A digest is of an adapter's deltas, wherever it lies and whatever it is called."
    kept = document.get("energy_kept")
    if kept is None:
        return _table(("adapter", "content"), rows) + f"\n\n{explained}"
    by_adapter = document.get("energy_kept_by_adapter") or {}
    shares = [(*row, _share(by_adapter.get(row[0]))) for row in rows]
    explained += (
        f" Energy kept, {_share(kept)} in total, is the share of the squared Frobenius norm that is left once a "
        "result is cut to its rank."
    )
    return _table(("adapter", "content", "energy kept"), shares) + f"\n\n{explained}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _warnings(warnings: Sequence[str]) -> str:
    return "## Warnings\n\n" + "\n".join(f"- {warning}" for warning in warnings) if warnings else ""


def _task(document: Mapping[str, Any]) -> str:
    return document.get("task_type") or "CAUSAL_LM"


def _loading(document: Mapping[str, Any], base: str | None, *, folded: bool) -> str:
    name = CLASSES.get(_task(document), "AutoModel")
    if folded:
        return _code(
            "python",
            f"from transformers import {name}, AutoTokenizer",
            "",
            f'model = {name}.from_pretrained("FOLDER")',
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        )
    named = json.dumps(base) if base else '"BASE"'
    revision = document.get("revision")
    pinned = f", revision={json.dumps(revision)}" if base and revision else ""
    return _code(
        "python",
        "from peft import PeftModel",
        f"from transformers import {name}",
        "",
        f"base = {name}.from_pretrained({named}{pinned})",
        'model = PeftModel.from_pretrained(base, "FOLDER")',
    )


def _serving(document: Mapping[str, Any], base: str | None, *, folded: bool) -> str:
    if folded:
        return "## Serving\n\n" + _code("sh", "vllm serve FOLDER")
    rank = document["rank"]
    revision = f" --revision {document['revision']}" if base and document.get("revision") else ""
    room = f"--enable-lora --max-lora-rank {served_rank(rank)}"
    line = f"vllm serve {base or 'BASE'}{revision} {room} --lora-modules NAME=FOLDER"
    said = "## Serving\n\n" + _code("sh", line)
    if rank > SERVED_RANKS[-1]:
        said += (
            f"\n\nvLLM takes ranks up to {SERVED_RANKS[-1]}, and this one is {rank}: merge again with `rank: serve`, "
            "or fold it into the base."
        )
    return said


def _code(language: str, *lines: str) -> str:
    return "\n".join([f"```{language}", *lines, "```"])
