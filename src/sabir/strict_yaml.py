"""YAML as people mean it: the YAML 1.2 core schema, read strictly, with the line of every key.

PyYAML reads YAML 1.1: the language code `no` is False there, `1e-4` a text, `1:30` the number 90, and of two
equal keys the last wins in silence. Here only `true` and `false` are booleans, numbers are what they look
like, dates stay texts, and what is ambiguous is refused with its line.

Source: YAML 1.2.2, section 10.3.2, https://yaml.org/spec/1.2.2/#1032-tag-resolution
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sabir.errors import InputError, raise_all

KeyPath = tuple[str | int, ...]
"""Keys and list positions from the top of the file to one value, ("merges", "ties", "density")."""

MAX_VALUES = 100_000  # aliases of aliases grow exponentially ("billion laughs")
MAX_DEPTH = 50

_TAG = "tag:yaml.org,2002:"
_FORMS = {  # in the order they are tried; the second part lists the first characters that are worth trying
    "null": (re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    "bool": (re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")),
    "int": (re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"), list("-+0123456789")),
    "float": (
        re.compile(
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
        ),
        list("-+.0123456789"),
    ),
}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the plain scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _kind, (_form, _first) in _FORMS.items():
    _Loader.add_implicit_resolver(_TAG + _kind, _form, _first)


def read_text(path: str | Path) -> str:
    """The text of a config file, UTF-8 with or without a byte order mark."""
    where = str(path)
    if os.path.isdir(path):
        raise InputError(where, "this is a folder.", "Name the config file in it.")
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(where, "there is no such file.", "`sabir init` writes one to start from.") from error
    except UnicodeDecodeError as error:
        raise InputError(where, "the file is not UTF-8 text.", "Save it as UTF-8.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(where, f"the file cannot be read ({reason}).", "Check the path.") from error


def load(text: str, *, where: str) -> tuple[dict[str, Any], Mapping[KeyPath, int]]:
    """The settings in a YAML text, and the line on which each key path stands (from 1).

    Args:
        text: one YAML document whose top level is a mapping.
        where: the file, as errors should call it.
    Raises InputError (several at once as InputErrors) for whatever cannot be read without guessing.
    """
    node = _compose(text, where)
    if node is None or _is_null(node):
        raise InputError(where, "the file is empty.", "Expected settings, one `key: value` to a line.")
    if not isinstance(node, yaml.MappingNode):
        is_list = isinstance(node, yaml.SequenceNode)
        found = "a list" if is_list else f"the single value {shortened(node.value)}"
        raise InputError(
            f"{where}, line {_line(node)}",
            f"the top level is {found}.",
            "Expected settings, one `key: value` to a line.",
        )
    reading = _Reading(where)
    data = reading.value(node, ())
    raise_all(reading.errors)
    return data, reading.lines


def load_value(text: str, *, where: str) -> Any:
    """One value written as YAML, as in `--set lora.epochs=5`; nothing at all is None."""
    node = _compose(text, where)
    if node is None:
        return None
    reading = _Reading(where)
    data = reading.value(node, ())
    raise_all(reading.errors)
    return data


def shortened(value: object, limit: int = 60) -> str:
    """The repr of a value, cut in the middle when it is long: for error sentences."""
    try:
        text = repr(value)
    except ValueError:  # an int of more than 4300 digits has no repr
        return "a number of thousands of digits"
    return text if len(text) <= limit else f"{text[: limit - 15]} ... {text[-10:]}"


class _Reading:
    """One walk over the nodes of a document: values, lines, and everything that is wrong."""

    def __init__(self, where: str):
        self.where = where
        self.lines: dict[KeyPath, int] = {}
        self.errors: list[InputError] = []
        self._seen = 0
        self._open: set[int] = set()

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._seen += 1
        if self._seen > MAX_VALUES:
            raise InputError(self.where, f"over {MAX_VALUES:,} values.", "Use fewer aliases (*name).")
        if len(path) > MAX_DEPTH:
            raise InputError(self._at(node), f"nested more than {MAX_DEPTH} levels deep.", "Flatten it.")
        self.lines.setdefault(path, _line(node))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            raise InputError(self._at(node), "an alias (*name) stands in its own anchor.", "Write it out.")
        self._open.add(id(node))
        kind = "map" if isinstance(node, yaml.MappingNode) else "seq"
        if node.tag != _TAG + kind:
            self._wrong_tag(node)
        result = self._mapping(node, path) if kind == "map" else self._sequence(node, path)
        self._open.discard(id(node))
        return result

    def _sequence(self, node: yaml.Node, path: KeyPath) -> list[Any]:
        return [self.value(item, (*path, position)) for position, item in enumerate(node.value)]

    def _mapping(self, node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            line = _line(key_node)
            if key in first_line:
                self._wrong(
                    key_node,
                    f"{dotted((*path, key))} stands here and in line {first_line[key]} already.",
                    "Keep one of the two.",
                )
                continue
            first_line[key] = line
            self.lines.setdefault((*path, key), line)
            result[key] = self.value(value_node, (*path, key))
        return result

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        """The text of a key; None, and an error kept, when it is something else."""
        if not isinstance(node, yaml.ScalarNode):
            self._wrong(node, "a list or mapping stands as a key.", "Keys are plain text.")
            return None
        key = self._scalar(node)
        if key == "<<" and node.style is None:
            self._wrong(node, "merge keys (<<) are not part of YAML 1.2.", "Write the settings out.")
            return None
        if not isinstance(key, str):
            self._wrong(
                node,
                f"the key {shortened(node.value)} reads as {_KINDS[type(key)]}, not as text.",
                f"Put it in quotes: '{node.value}'.",
            )
            return None
        return key

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind = node.tag.removeprefix(_TAG) if node.tag.startswith(_TAG) else None
        text = node.value
        if kind == "str":
            unstorable = re.search("[\ud800-\udfff\0]", text)
            if unstorable:
                self._wrong(node, f"{unstorable.group()!r} cannot stand in a text.", "Remove it.")
            return text
        if kind not in _FORMS:
            self._wrong_tag(node)
            return text
        if not _FORMS[kind][0].match(text):
            self._wrong(node, f"{shortened(text)} is tagged !!{kind} and is none.", "Drop the tag.")
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "float":
            return float(text.replace(".", "") if text[-1].isalpha() else text)
        try:
            return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)
        except ValueError:  # Python reads at most 4300 digits
            self._wrong(node, f"a number of {len(text)} digits.", "Write a smaller one.")
            return 0

    def _wrong_tag(self, node: yaml.Node) -> None:
        tag = f"!!{node.tag.removeprefix(_TAG)}" if node.tag.startswith(_TAG) else node.tag
        self._wrong(node, f"the tag {shortened(tag)} is not read here.", "Write the plain value.")

    def _wrong(self, node: yaml.Node, message: str, fix: str) -> None:
        self.errors.append(InputError(self._at(node), message, fix))

    def _at(self, node: yaml.Node) -> str:
        return f"{self.where}, line {_line(node)}"


_KINDS = {type(None): "null", bool: "true or false", int: "a number", float: "a number"}


def dotted(path: KeyPath) -> str:
    """A key path as a user writes it: `task.labels[0]`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def _compose(text: str, where: str) -> yaml.Node | None:
    """The node tree of the one document in the text; None when there is none."""
    loader = None
    try:
        loader = _Loader(text.removeprefix("\ufeff"))
        return loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = error.character if isinstance(error.character, str) else chr(error.character)
        raise InputError(
            f"{where}, line {line}",
            f"the character {character!r} cannot stand in YAML.",
            "Remove it, or save the file as UTF-8.",
        ) from error
    except yaml.MarkedYAMLError as error:
        raise _sentence(error, where) from error
    except RecursionError as error:
        raise InputError(where, "lists or mappings are nested too deep to read.", "Flatten them.") from error
    except (ValueError, OverflowError) as error:  # PyYAML: "\UFFFFFFFF", a version number of 5000 digits
        line = loader.line + 1 if loader is not None else 1
        raise InputError(f"{where}, line {line}", "a number out of range.", "Remove it.") from error
    finally:
        if loader is not None:
            loader.dispose()


def _sentence(error: yaml.MarkedYAMLError, where: str) -> InputError:
    """PyYAML's complaint about the syntax as where, what, and what to do."""
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "it cannot be parsed"
    at = f"{where}, line {mark.line + 1}" if mark else where
    if r"'\t'" in problem:
        return InputError(at, "a tab stands where YAML allows only spaces.", "Replace it with spaces.")
    begun = ""
    if error.context_mark and mark and error.context_mark.line != mark.line:
        begun = f" ({error.context}, begun in line {error.context_mark.line + 1})"
    return InputError(at, f"not valid YAML: {problem}{begun}.", _FIXES.get(_family(problem), ""))


_FIXES = {
    "mapping values are not allowed": "A text that contains ': ' needs quotes; else check the indentation.",
    "that cannot start any token": "A text that begins with a special character needs quotes.",
    "undefined alias": "A text that begins with * needs quotes.",
    "another document": "Expected one document: remove the line `---`.",
    "',' or ']'": "Close the list with ].",
    "',' or '}'": "Close the mapping with }.",
    "expected '<document start>'": "Check the indentation: keys of one mapping start in the same column.",
    "unexpected end of stream": "Close the quotes.",
    "could not find expected ':'": "Write `key: value`, with a space after the colon.",
    "expected <block end>": "Check the indentation: keys of one mapping start in the same column.",
}


def _family(problem: str) -> str:
    return next((part for part in _FIXES if part in problem), "")


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "null"


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1
