"""YAML as people mean it. Claims follow YAML 1.2.2, section 10.3.2."""

from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sabir.errors import InputError
from sabir.strict_yaml import MAX_DEPTH, dotted, load, load_value, read_text, shortened


def refusal(text: str) -> str:
    with pytest.raises(InputError) as caught:
        load(text, where="config.yaml")
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("word", ["no", "No", "NO", "yes", "on", "off", "y", "n", "Y", "tRue"])
def test_only_true_and_false_are_booleans(word):
    assert load_value(word, where="") == word


def test_true_and_false_have_three_spellings():
    assert load_value("[true, True, TRUE]", where="") == [True] * 3
    assert load_value("[false, False, FALSE]", where="") == [False] * 3


def test_norwegian_is_a_key():
    data, lines = load("data:\n  no: data/no\n", where="c")
    assert data == {"data": {"no": "data/no"}}
    assert lines["data", "no"] == 2


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-4", 1e-4), ("2E-4", 2e-4), (".5", 0.5), ("5.", 5.0), ("-1.5e+3", -1500.0), ("1e3", 1000.0)],
)
def test_numbers_with_a_point_or_an_exponent_are_floats(text, number):
    value = load_value(text, where="")
    assert type(value) is float
    assert value == number


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("-7", -7), ("+12", 12), ("017", 17), ("0o17", 15), ("0xFF", 255)]
)
def test_whole_numbers_are_ints_and_a_leading_zero_is_not_octal(text, number):
    value = load_value(text, where="")
    assert type(value) is int
    assert value == number


@pytest.mark.parametrize(
    "text",
    ["1_000", "1:30", "0b1", "2026-01-01", "2026-01-01T10:00:00Z", "1e", ".", "=", "0o8", "1.2.3", "١"],
)
def test_what_only_yaml_1_1_takes_for_a_number_or_a_date_is_text(text):
    assert load_value(text, where="") == text


def test_infinities_and_nan_are_floats():
    assert load_value("[.inf, -.Inf]", where="") == [math.inf, -math.inf]
    assert math.isnan(load_value(".NaN", where=""))


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL"])
def test_null_has_five_spellings(text):
    assert load_value(text, where="") is None
    assert load(f"a: {text}", where="")[0] == {"a": None}


@pytest.mark.parametrize("text", ["'1'", '"true"', "!!str 1", "|-\n  1"])
def test_quotes_blocks_and_the_str_tag_make_text(text):
    assert isinstance(load(f"a: {text}", where="")[0]["a"], str)


def test_every_key_path_has_its_line():
    _, lines = load("a: 1\nb:\n  c:\n    - x\n    - {d: 2}\n", where="c")
    assert lines == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "c", 0): 4,
        ("b", "c", 1): 5,
        ("b", "c", 1, "d"): 5,
    }


def test_windows_newlines_and_a_byte_order_mark_change_nothing(tmp_path):
    plain = "a: 1\nb:\n  c: x\n"
    file = tmp_path / "c.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + plain.replace("\n", "\r\n").encode())
    assert load(read_text(file), where="c") == load(plain, where="c")
    assert load("\ufeff" + plain, where="c") == load(plain, where="c")


def test_duplicate_keys_are_refused_with_both_lines():
    message = refusal("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n")
    assert message == "config.yaml, line 5: b.c stands here and in line 3 already. Keep one of the two."


def test_all_duplicates_are_told_at_once():
    assert refusal("a: 1\na: 2\nb: {c: 1, c: 2}\n").count("\n") == 1


def test_anchors_work():
    data, _ = load("a: &x {r: 1}\nb: *x\nc: *x\n", where="c")
    assert data == {"a": {"r": 1}, "b": {"r": 1}, "c": {"r": 1}}


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a:\n\tb: 1", 2, "a tab stands where YAML allows only spaces"),
        ("a: 1\nb: [1, 2", 2, "Close the list with ]"),
        ("a: {b: 1", 1, "Close the mapping with }"),
        ("a: b: c", 1, "needs quotes"),
        ("a: @x", 1, "needs quotes"),
        ("a: 'x", 1, "Close the quotes"),
        (" a: 1\nb: 2", 2, "Check the indentation"),
        ("a:\n  b: 1\n c: 2", 3, "Check the indentation"),
        ("x: 1\n---\ny: 2", 2, "Expected one document"),
        ("a: *nothing", 1, "undefined alias 'nothing'"),
        ("x: 1\na: &x [*x]", 2, "stands in its own anchor"),
        ("a: !mine 3", 1, "the tag '!mine' is not read here"),
        ("a: !!python/name:os.system x", 1, "the tag '!!python/name:os.system' is not read here"),
        ("a: !!timestamp 2026-01-01", 1, "the tag '!!timestamp' is not read here"),
        ("a: !!binary aGk=", 1, "the tag '!!binary' is not read here"),
        ("a: !!set {x}", 1, "the tag '!!set' is not read here"),
        ("a: !!int x", 1, "tagged !!int"),
        ("a: &a {b: 1}\nc:\n  <<: *a", 3, "merge keys"),
        ("1: x", 1, "Put it in quotes: '1'"),
        ("true: x", 1, "reads as true or false"),
        ("? [a]\n: b", 1, "a list or mapping stands as a key"),
        ("- a\n- b", 1, "the top level is a list"),
        ("just words", 1, "the top level is the single value 'just words'"),
        ('a: "\\ud800"', 1, "cannot stand in a text"),
        ('a: "\\0"', 1, "cannot stand in a text"),
        ("a: 1\nb: \x07", 2, "cannot stand in YAML"),
        ("a: 1\nb: " + "1" * 5000, 2, "a number of 5000 digits"),
        ('a: 1\nb: "\\UFFFFFFFF"', 2, "out of range"),
        ("a: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), 1, "levels deep"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text, line, what):
    message = refusal(text)
    assert message.startswith(f"config.yaml, line {line}: ")
    assert what in message


@pytest.mark.parametrize("text", ["", "\n\n", "# a comment\n", "---\n", "~", "\ufeff"])
def test_an_empty_file_is_refused(text):
    assert refusal(text).startswith("config.yaml: the file is empty.")


def test_nesting_beyond_the_parser_is_refused():
    assert "nested too deep" in refusal("[" * 5000)


def test_a_billion_laughs_are_refused():
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "Use fewer aliases" in refusal("\n".join(levels))


@pytest.mark.parametrize(
    ("content", "what"), [(b"a: \xff\xfe", "not UTF-8"), ("a: 1".encode("utf-16"), "not UTF-8")]
)
def test_a_file_in_another_encoding_is_refused(tmp_path, content, what):
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=what):
        read_text(file)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_text(tmp_path / "c.yaml")
    with pytest.raises(InputError, match="this is a folder"):
        read_text(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_text("a\0b")


def test_key_paths_are_written_with_dots_and_brackets():
    assert dotted(("task", "labels", 0)) == "task.labels[0]"
    assert dotted(()) == ""


def test_long_values_are_shortened_in_the_middle():
    assert len(shortened("x" * 1000)) <= 60
    assert shortened("short") == "'short'"
    assert shortened(10**5000) == "a number of thousands of digits"


pieces = st.sampled_from(
    [
        *"[]{}:,-?&*!|>'\"%@`#~<=.\\ \t\n\r\0",
        "\n  ",
        ": ",
        "- ",
        "---\n",
        "...",
        "&a ",
        "*a",
        "!!int ",
        "<<: ",
        "!!python/object:os.system ",
        "%YAML 9.9\n",
        '"\\x',
        '"\\U0011',
        "\ufeff",
        "\u2028",
        "\x85",
        "a",
        "no",
        "1e-4",
        "0o7",
        "é",
        "日本",
        "\ud800",
        "\U0001f600",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(pieces, max_size=30).map("".join) | st.text(max_size=40))
def test_any_text_is_read_or_refused_in_a_sentence(text):
    try:
        data, lines = load(text, where="c")
    except InputError as error:
        assert str(error).startswith("c")  # noqa: PT017
    else:
        assert isinstance(data, dict)
        assert lines[()] >= 1


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=5), values, min_size=1, max_size=3))
def test_what_pyyaml_writes_with_quotes_reads_back_the_same(data):
    """The oracle: PyYAML's own dumper, all texts quoted so that both versions of YAML agree."""

    class Quoted(yaml.SafeDumper):
        def ignore_aliases(self, data):
            return True

    Quoted.add_representer(
        str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
    )
    written = yaml.dump(data, Dumper=Quoted, allow_unicode=True, sort_keys=False)
    if "\\0" in written:  # a NUL is refused on purpose
        return
    assert load(written, where="c")[0] == data
