"""An endpoint as a source of answers, held against a stand-in server on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from sabir.engine import ledger
from sabir.engine.backends.inline import InlineBackend
from sabir.engine.leases import Owner
from sabir.engine.run import Listener, run
from sabir.engine.steps import Graph, Step
from sabir.engine.store import Store
from sabir.engine.why import assess
from sabir.errors import InputError, SabirError
from sabir.report.documents import ledger_entry
from sabir.tasks import Prompt
from sabir.work import chat, endpoint
from sabir.work.endpoint import (
    check_endpoint,
    expected_cost,
    identity,
    judge_key,
    outputs,
    refuse_above,
)
from sabir.work.outputs import read_answers
from sabir.work.prepare import Example, write_examples
from work.stand_in import Server, completion, refusal
from work.test_work_functions import FakeWork

pytest.importorskip("openai")

LABELS = ("sport", "politics")
KEY = "sk-do-not-tell-anybody-7f3a"
VARIABLE = "A_TEST_JUDGE_KEY"
PRICES = {"usd_per_million_input": 10.0, "usd_per_million_output": 1000.0}
ONE = 100 * 10e-6 + 2 * 1000e-6  # USD for an answer of the stand-in: 100 tokens read, 2 written


@pytest.fixture
def serve():
    """Start a server that answers by the function given."""
    servers = []

    def start(answer):
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Waits before another try are short; the key is set."""
    monkeypatch.setattr(chat, "WAIT_S", 0.001)
    monkeypatch.setenv(VARIABLE, KEY)


def right(server, text, nth):
    return "sport" if "ball" in text else "politics"


def examples(count=10, *, text="{word} {i}", options=(), instruction="Sport or politics?\n\n"):
    words = ("ball", "vote")
    return [
        Example(
            f"r{i}",
            Prompt(instruction, text.format(word=words[i % 2], i=i), "\n\nAnswer:"),
            LABELS[i % 2],
            options,
        )
        for i in range(count)
    ]


def judge_of(url, **changes):
    return {
        **{
            "model": "a-model",
            "endpoint": url,
            "key": VARIABLE,
            "max_usd": 1.0,
            "timeout_s": 30.0,
            "at_once": 4,
        },
        **PRICES,
        **changes,
    }


def settings_of(judge, **changes):
    return {
        "endpoint": identity(judge),
        "language": "en",
        "answer": "label",
        "labels": list(LABELS),
        **changes,
    }


def work_of(tmp_path, server, rows, *, name="step", settings=(), args=(), **judge):
    told = judge_of(server.url, **judge)
    folder = tmp_path / f"{name}-rows"
    folder.mkdir(exist_ok=True)
    write_examples(folder, "test", rows)
    return FakeWork(
        tmp_path / name,
        name=name,
        settings=settings_of(told, **dict(settings)),
        args={"judge": told, "split": "test", "answers": str(tmp_path / "answers"), **dict(args)},
        inputs={"rows": folder},
    )


def done(work):
    ((_, outcome),) = outputs([work])
    return read_answers(work.out), outcome


def kept(tmp_path):
    """The lines of all files in the cache."""
    files = sorted((tmp_path / "answers").glob("*/*"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def predictions(work):
    return [answer["prediction"] for answer in done(work)[0]]


# --- what is asked and what comes of it ---------------------------------------------------------------------


def test_every_row_is_answered_counted_and_priced(serve, tmp_path):
    work = work_of(tmp_path, serve(right), examples(10))
    answers, outcome = done(work)
    assert answers == [{"id": f"r{i}", "prediction": LABELS[i % 2]} for i in range(10)]
    counts = {"asked": 10, "kept": 0, "unreadable": 0, "timeouts": 0, "failed": 0}
    tokens = {"input_tokens": 1000, "output_tokens": 20}
    assert outcome["result"] == {**counts, **tokens, "usd": pytest.approx(10 * ONE)}
    assert outcome["tokens"] == 1020
    assert outcome["fees_usd"] == pytest.approx(10 * ONE)
    assert work.events[-1] == (10, 10, {"fees_usd": pytest.approx(10 * ONE)})


def test_the_task_is_asked_as_it_stands_and_labels_are_listed_before_its_cue(serve, tmp_path):
    server = serve(lambda server, text, nth: "sport")
    done(work_of(tmp_path, server, examples(1, instruction="What is it about?\n\n")))
    (asked,) = server.asked
    assert asked["path"] == "/v1/chat/completions"
    assert asked["model"] == "a-model"
    assert asked["temperature"] == 0
    expected = "What is it about?\n\nball 0\n\nAnswer with one of: sport, politics\n\nAnswer:"
    assert asked["messages"] == [{"role": "user", "content": expected}]


def test_labels_are_not_listed_where_the_instruction_has_them_all(serve, tmp_path):
    server = serve(lambda server, text, nth: "sport")
    rows = [*examples(1), *examples(1, instruction="Is it sport?\n\n")]
    done(work_of(tmp_path, server, rows))
    texts = sorted(server.texts)
    assert texts[0].startswith("Is it sport?\n\nball 0\n\nAnswer with one of: sport, politics\n")
    assert texts[1] == "Sport or politics?\n\nball 0\n\nAnswer:"


def test_choices_of_a_row_are_its_own_and_stand_in_lines_where_they_hold_commas(serve, tmp_path):
    server = serve(lambda server, text, nth: "it is a dog, a big one.")
    options = ("a cat, a small one", "a dog, a big one")
    rows = examples(1, options=options, instruction="")
    work = work_of(tmp_path, server, rows, settings={"answer": "choice", "labels": None})
    assert predictions(work) == ["a dog, a big one"]
    listed = "Answer with one of:\n- a cat, a small one\n- a dog, a big one\n\nAnswer:"
    assert server.texts == [f"ball 0\n\n{listed}"]


def test_written_answers_are_kept_as_they_are_and_marked_where_they_were_cut(serve, tmp_path):
    said = {"0": ("a; b", "stop"), "1": ("long; lo", "length"), "2": ("  ", "stop")}

    def answer(server, text, nth):
        found, reason = said.get(text.split()[4], ("c", "stop"))
        return 200, {}, completion(found, finish_reason=reason)

    server = serve(answer)
    settings = {"answer": "phrases", "labels": None, "max_new_tokens": 24}
    answers, outcome = done(work_of(tmp_path, server, examples(6), settings=settings))
    assert answers[:4] == [
        {"id": "r0", "prediction": "a; b"},
        {"id": "r1", "prediction": "long; lo", "cut": True},
        {"id": "r2", "prediction": None, "said": "  "},
        {"id": "r3", "prediction": "c"},
    ]
    assert outcome["result"]["unreadable"] == 1
    assert {one["max_tokens"] for one in server.asked} == {24}
    assert all("\n\nAnswer with phrases parted by semicolons\n\nAnswer:" in text for text in server.texts)


def test_rows_with_one_text_are_asked_once(serve, tmp_path):
    server = serve(right)
    answers, outcome = done(work_of(tmp_path, server, examples(20, text="{word}")))
    assert [answer["prediction"] for answer in answers] == [*LABELS] * 10
    assert outcome["result"]["asked"] == len(server.asked) == 2


def test_so_many_are_asked_at_once_and_never_more(serve, tmp_path):
    together, under_way, most = threading.Barrier(3), [], []

    def answer(server, text, nth):
        under_way.append(text)
        most.append(len(under_way))
        together.wait(30)  # is broken, and the answers fail, where fewer come
        under_way.remove(text)
        return right(server, text, nth)

    assert None not in predictions(work_of(tmp_path, serve(answer), examples(12), at_once=3))
    assert max(most) == 3


@pytest.mark.parametrize("lacking", ["usd_per_million_input", "usd_per_million_output"])
def test_without_prices_nobody_is_asked(serve, lacking):
    server = serve(right)
    with pytest.raises(InputError, match="nobody could say what asking costs"):
        check_endpoint(judge_of(server.url, **{lacking: None}))
    assert server.asked == []


def test_a_server_that_is_free_may_be_asked_whatever_the_limit(serve, tmp_path):
    free = {"usd_per_million_input": 0.0, "usd_per_million_output": 0.0, "max_usd": 0.0}
    work = work_of(tmp_path, serve(right), examples(4), **free)
    outcome = done(work)[1]
    assert outcome["fees_usd"] == outcome["result"]["usd"] == 0.0
    assert outcome["result"]["input_tokens"] == 400


def test_no_key_is_sent_where_none_is_named(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    server = serve(right)
    done(work_of(tmp_path, server, examples(2), key=None))
    assert "sk-of-somebody-else" not in str(server.headers)


@pytest.mark.parametrize(
    ("key", "said"),
    [("NOT_SET_ANYWHERE", "is not set"), ("sk-abc-123", "is no name of an environment variable")],
)
def test_a_key_that_is_not_there_stops_before_anything_is_sent(serve, key, said):
    server = serve(right)
    with pytest.raises(InputError, match=said):
        check_endpoint(judge_of(server.url, key=key))
    assert server.asked == []


def test_tokens_are_estimated_where_a_server_does_not_count_them(serve, tmp_path):
    server = serve(lambda server, text, nth: (200, {}, completion("sport", usage=None)))
    work = work_of(tmp_path, server, examples(1))
    expected = expected_cost(examples(1), work.settings, work.args["judge"])
    result = done(work)[1]["result"]
    assert result["input_tokens"] == expected["input_tokens"] > 10
    assert 0 < result["output_tokens"] < 20


@pytest.mark.parametrize("usage", [{}, "many", {"prompt_tokens": -5}, {"prompt_tokens": True}])
def test_counts_that_are_none_are_not_believed(serve, tmp_path, usage):
    server = serve(lambda server, text, nth: (200, {}, completion("sport", usage=usage)))
    assert done(work_of(tmp_path, server, examples(1)))[1]["result"]["input_tokens"] > 10


def test_settings_that_newer_models_refuse_are_said_otherwise(serve, tmp_path):
    def answer(server, text, nth):
        for name in ("max_tokens", "temperature"):
            if name in server.asked[nth - 1]:
                return refusal(400, f"Unsupported parameter: '{name}'", param=name)
        return right(server, text, nth)

    server = serve(answer)
    answers, outcome = done(work_of(tmp_path, server, examples(6), at_once=1))
    assert [answer["prediction"] for answer in answers] == [LABELS[i % 2] for i in range(6)]
    assert outcome["result"]["failed"] == 0
    assert len(server.asked) == 8, "two refusals, then it is known"
    assert server.asked[-1].keys() == {"path", "messages", "model", "max_completion_tokens"}


# --- what goes wrong ----------------------------------------------------------------------------------------


def test_what_times_out_is_no_answer_is_asked_once_and_again_in_the_next_run(serve, tmp_path):
    hanging = [True]

    def answer(server, text, nth):
        return server.hang() if hanging[0] and "ball 2\n" in text else right(server, text, nth)

    server = serve(answer)
    answers, outcome = done(work_of(tmp_path, server, examples(10), timeout_s=2.0))
    assert answers[2] == {"id": "r2", "prediction": None}
    assert [answer["prediction"] for answer in answers].count(None) == 1
    assert (outcome["result"]["asked"], outcome["result"]["timeouts"], outcome["result"]["failed"]) == (
        10,
        1,
        0,
    )
    assert len(server.asked) == 10
    hanging[0] = False
    outcome = done(work_of(tmp_path, server, examples(10), name="again"))[1]
    assert (outcome["result"]["asked"], outcome["result"]["kept"]) == (1, 9)


def test_more_than_a_fifth_of_timeouts_fails_the_step_and_the_rest_is_kept(serve, tmp_path):
    def answer(server, text, nth):
        return server.hang() if "ball" in text else right(server, text, nth)

    server = serve(answer)
    work = work_of(tmp_path, server, examples(10), timeout_s=2.0, at_once=10)
    with pytest.raises(SabirError) as caught:
        done(work)
    assert re.fullmatch(
        rf"estimate\.judge: a-model at {server.url} gave no usable answer to ([3-5]) of 10 questions \(\1 timed out "
        r"after 2 s; the last: it timed out\)\. Look at the server and the prompt, or name another judge\. "
        r"What it answered is kept: the next run asks only the rest\.",
        str(caught.value),
    )
    assert not (work.out / "outputs.jsonl").exists()
    assert len(kept(tmp_path)) == 5


def test_nonsense_says_nothing_is_counted_and_not_paid_for_twice(serve, tmp_path):
    def answer(server, text, nth):
        return "As a language model I cannot say." if "vote 3\n" in text else right(server, text, nth)

    server = serve(answer)
    for name, counts in (("one", (10, 0)), ("two", (0, 10))):
        answers, outcome = done(work_of(tmp_path, server, examples(10), name=name))
        assert answers[3] == {
            "id": "r3",
            "prediction": None,
            "said": "As a language model I cannot say.",
        }
        assert outcome["result"]["unreadable"] == 1
        assert (outcome["result"]["asked"], outcome["result"]["kept"]) == counts
    assert len(server.asked) == 10


def test_a_judge_that_only_talks_nonsense_is_stopped_early(serve, tmp_path):
    server = serve(lambda server, text, nth: "Hm.")
    with pytest.raises(
        SabirError,
        match=r"no usable answer to 20 questions in a row \(20 with an answer that is "
        r"none of the options; the last: it said 'Hm\.'\)",
    ):
        done(work_of(tmp_path, server, examples(1000), at_once=1))
    assert 20 <= len(server.asked) == len(kept(tmp_path)) <= 21, "what is under way is paid and kept too"


def test_a_busy_server_is_asked_again(serve, tmp_path):
    seen = set()

    def answer(server, text, nth):
        if text not in seen:
            seen.add(text)
            return refusal(429 if "ball" in text else 503, "slow down")
        return right(server, text, nth)

    server = serve(answer)
    answers, outcome = done(work_of(tmp_path, server, examples(10)))
    assert [answer["prediction"] for answer in answers] == [LABELS[i % 2] for i in range(10)]
    assert outcome["result"]["asked"] == 10
    assert len(server.asked) == 20


def test_one_waits_as_long_as_the_server_wishes_and_else_ever_longer(serve, tmp_path, monkeypatch):
    waits = []

    class Event:
        def wait(self, seconds):
            waits.append(seconds)
            return False

        def set(self):
            pass

    def answer(server, text, nth):
        headers = {"retry-after": "7"} if nth == 3 else {"retry-after": "86400"} if nth == 4 else {}
        return refusal(429, "slow down", headers=headers) if nth < 6 else "sport"

    server = serve(answer)
    monkeypatch.setattr(chat, "WAIT_S", 1.0)
    asking = chat.Chat(url=server.url, model="m", key=VARIABLE, timeout_s=30)
    asking._over = Event()
    assert asking.ask("what?", max_tokens=4).text == "sport"
    asking.close()
    for seconds, expected in zip(waits, (1, 2, 7, 8, 16), strict=True):
        assert seconds == 7 if expected == 7 else 0.75 * expected <= seconds <= 1.25 * expected


def test_a_server_that_only_fails_is_asked_a_few_times_and_told_of(serve, tmp_path):
    server = serve(lambda server, text, nth: refusal(500, "the model fell over"))
    with pytest.raises(SabirError) as caught:
        done(work_of(tmp_path, server, examples(10), at_once=1))
    assert (
        "no usable answer to 3 of 10 questions (3 failed; the last: HTTP 500: 'the model fell over')"
        in str(caught.value)
    )
    assert len(server.asked) == 3 * chat.TRIES
    assert kept(tmp_path) == []


def test_where_nobody_listens_the_sentence_says_so(serve, tmp_path):
    server = serve(right)
    server.close()
    with pytest.raises(SabirError, match=r"the last: 'ConnectError: .*refused"):
        done(work_of(tmp_path, server, examples(10)))


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b'{"choices": [{"mess'),
        ({"content-type": "text/html"}, b"<html>Welcome</html>"),
        ({}, b"[]"),
        ({}, b'{"choices": []}'),
        ({}, b'{"choices": [{"message": {"content": 7}}]}'),
        ({}, b"\xff\xfe"),
    ],
)
def test_what_is_no_completion_is_no_answer(serve, tmp_path, headers, body):
    def answer(server, text, nth):
        return (200, headers, body) if "ball 4\n" in text else right(server, text, nth)

    answers, outcome = done(work_of(tmp_path, serve(answer), examples(10)))
    assert answers[4] == {"id": "r4", "prediction": None}
    assert outcome["result"]["failed"] == 1
    assert len(kept(tmp_path)) == 9


@pytest.mark.parametrize(
    ("status", "more"), [(401, {}), (403, {}), (404, {}), (429, {"code": "insufficient_quota"})]
)
def test_what_the_next_question_would_meet_too_ends_it_at_once(serve, tmp_path, status, more):
    server = serve(lambda server, text, nth: refusal(status, f"no, not with {KEY}", **more))
    with pytest.raises(SabirError) as caught:
        done(work_of(tmp_path, server, examples(500)))
    assert str(caught.value).startswith(
        f"estimate.judge: a-model at {server.url} refuses: HTTP {status}: 'no, not with ***'. Check the key in "
        f"{VARIABLE}, the model's name, and the URL"
    )
    assert len(server.asked) <= 4


def test_a_server_that_wants_a_key_where_none_is_named_says_so(serve, tmp_path):
    server = serve(lambda server, text, nth: refusal(401, "who are you?"))
    with pytest.raises(SabirError, match=r"'who are you\?'\. Check whether it wants a key"):
        done(work_of(tmp_path, server, examples(2), key=None))


def test_a_server_on_ones_own_machine_needs_no_key(serve, tmp_path):
    server = serve(right)
    assert None not in predictions(work_of(tmp_path, server, examples(2), key=None))
    assert all("sk-" not in one["authorization"] for one in server.headers)


# --- what is kept -------------------------------------------------------------------------------------------


def test_what_was_answered_once_is_answered_without_server_key_or_package(serve, tmp_path, monkeypatch):
    server = serve(right)
    first, _ = done(work_of(tmp_path, server, examples(10)))
    server.close()
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(endpoint, "find_spec", lambda name: None)
    again, outcome = done(work_of(tmp_path, server, examples(10), name="again", settings={"language": "de"}))
    assert again == first
    assert (outcome["result"]["asked"], outcome["result"]["kept"], outcome["fees_usd"]) == (0, 10, 0.0)


@pytest.mark.parametrize("changed", ["model", "text", "length"])
def test_another_model_text_or_length_is_asked_anew(serve, tmp_path, changed):
    server = serve(lambda server, text, nth: "x")
    written = {"answer": "text", "labels": None, "max_new_tokens": 8}
    done(work_of(tmp_path, server, examples(2), settings=written))
    other = {"max_new_tokens": 9} if changed == "length" else {}
    rows = examples(2, text="other {word} {i}" if changed == "text" else "{word} {i}")
    judge = {"model": "another"} if changed == "model" else {}
    work = work_of(tmp_path, server, rows, name="again", settings={**written, **other}, **judge)
    assert done(work)[1]["result"]["asked"] == 2


def test_a_killed_step_pays_nothing_twice(serve, tmp_path):
    """Killed by SIGKILL while the eighth question is under way; the seven before are not asked again."""

    def answer(server, text, nth):
        return server.hang() if nth == 8 else right(server, text, nth)

    server = serve(answer)
    work = work_of(tmp_path, server, examples(12), at_once=1)
    code = (
        "import json, sys; from pathlib import Path; from types import SimpleNamespace\n"
        "from sabir.work.endpoint import outputs\n"
        "told = json.loads(sys.argv[1])\n"
        "told['inputs'] = {key: Path(value) for key, value in told['inputs'].items()}\n"
        "told['out'] = Path(told['out'])\n"
        "list(outputs([SimpleNamespace(**told, emit=lambda *a, **k: None)]))\n"
    )
    told = {
        "name": work.name,
        "settings": work.settings,
        "args": work.args,
        "inputs": {"rows": str(work.inputs["rows"])},
        "out": str(work.out),
    }
    process = subprocess.Popen([sys.executable, "-c", code, json.dumps(told)])
    deadline = time.monotonic() + 60
    while len(server.asked) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(server.asked) == 8
    answers, outcome = done(work)
    assert [answer["prediction"] for answer in answers] == [LABELS[i % 2] for i in range(12)]
    assert (outcome["result"]["kept"], outcome["result"]["asked"]) == (7, 5)
    assert outcome["fees_usd"] == pytest.approx(5 * ONE)
    assert sorted(server.texts[:7] + server.texts[8:]) == sorted(set(server.texts))


def test_an_interrupted_step_keeps_what_is_under_way(serve, tmp_path):
    server = serve(right)
    work = work_of(tmp_path, server, examples(50))
    events = []

    def emit(*event, **facts):
        events.append(event)
        if len(events) == 3:
            raise KeyboardInterrupt

    work.emit = emit
    with pytest.raises(KeyboardInterrupt):
        done(work)
    assert 3 <= len(kept(tmp_path)) == len(server.asked) <= 3 + 4


def test_a_torn_line_in_the_cache_is_passed_over(serve, tmp_path):
    server = serve(right)
    done(work_of(tmp_path, server, examples(5)))
    (file,) = (tmp_path / "answers").glob("*/*")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:3], b"[1]\n", b'{"key": "x"}\n', lines[3][:20]]))
    outcome = done(work_of(tmp_path, server, examples(5), name="again"))[1]
    assert (outcome["result"]["kept"], outcome["result"]["asked"]) == (3, 2)


# --- money --------------------------------------------------------------------------------------------------


def test_what_it_will_cost_is_said_before_and_what_is_kept_costs_nothing(serve, tmp_path):
    work = work_of(tmp_path, serve(right), examples(4))
    judge, folder = work.args["judge"], tmp_path / "answers"
    before = expected_cost(examples(4), work.settings, judge, answers=folder)
    assert before["questions"] == 4
    assert before["usd"] == pytest.approx(before["input_tokens"] * 10e-6 + before["output_tokens"] * 1000e-6)
    assert expected_cost(examples(4, text="{word}"), work.settings, judge)["questions"] == 2
    done(work)
    nothing = {"questions": 0, "input_tokens": 0, "output_tokens": 0, "usd": 0.0}
    assert expected_cost(examples(4), work.settings, judge, answers=folder) == nothing
    assert expected_cost(examples(6), work.settings, judge, answers=folder)["questions"] == 2


def test_a_character_of_chinese_is_two_thirds_of_a_token_and_one_of_english_a_third(serve, tmp_path):
    work = work_of(tmp_path, serve(right), [])

    def tokens(text):
        rows = [Example("1", Prompt("Sport or politics? sport politics", text, ""), "sport")]
        return expected_cost(rows, work.settings, work.args["judge"])["input_tokens"]

    assert tokens("z" * 3000) - tokens("") == 1000
    assert tokens("字" * 3000) - tokens("") == 2000


def test_what_would_cost_more_than_the_limit_is_refused_with_the_numbers(serve):
    judge = judge_of("http://127.0.0.1:1/v1", max_usd=0.5)
    costs = [{"questions": 1000, "input_tokens": 20000, "output_tokens": 200, "usd": 0.4}] * 2
    refuse_above(costs[:1], judge)
    with pytest.raises(InputError) as caught:
        refuse_above(costs, judge)
    assert str(caught.value) == (
        "estimate.judge.max_usd: is 0.5 USD, and 2,000 questions to a-model would cost about 0.80 USD (an estimate: "
        "40,000 tokens to read, 400 to write). Raise it, or ask about fewer texts."
    )


def test_asking_stops_where_the_money_is_spent_and_goes_on_with_more(serve, tmp_path):
    server = serve(lambda server, text, nth: (200, {}, completion(right(server, text, nth), usage=(0, 100))))
    with pytest.raises(SabirError) as caught:
        done(work_of(tmp_path, server, examples(20), max_usd=0.55))  # an answer costs 0.1
    assert str(caught.value).startswith("estimate.judge.max_usd: is 0.55 USD; 0.")
    spent = sum(line["usd"] for line in kept(tmp_path))
    assert f"{spent:.4f} USD are spent" in str(caught.value)
    assert 0.5 < spent < 0.55 + 4 * 0.1, "what is under way at that moment is paid too"
    asked = len(server.asked)
    _, outcome = done(work_of(tmp_path, server, examples(20), name="again", max_usd=5.0))
    assert outcome["result"]["kept"] == asked
    assert outcome["fees_usd"] == pytest.approx(2.0 - spent)
    assert len(server.asked) == 20


def test_what_other_steps_of_the_command_spent_counts_from_its_beginning_on(serve, tmp_path):
    server = serve(lambda server, text, nth: (200, {}, completion(right(server, text, nth), usage=(0, 100))))
    began = time.time()
    done(work_of(tmp_path, server, examples(4), max_usd=0.5, args={"since": began}))
    other = examples(4, text="more {word} {i}")
    with pytest.raises(
        SabirError, match=r"max_usd: is 0\.5 USD; 0\.5000 USD are spent.* has 3 questions left"
    ):
        done(work_of(tmp_path, server, other, name="two", max_usd=0.5, at_once=1, args={"since": began}))
    assert None not in predictions(work_of(tmp_path, server, other, name="three", max_usd=0.5, at_once=1))


@pytest.mark.parametrize("lacks", ["input", "output"])
def test_one_price_without_the_other_is_refused(lacks):
    judge = judge_of("http://127.0.0.1:1/v1", **{f"usd_per_million_{lacks}": None})
    with pytest.raises(InputError, match=rf"estimate\.judge\.usd_per_million_{lacks}: is not set"):
        check_endpoint(judge)


# --- what is said before anything is asked ------------------------------------------------------------------


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch):
    check_endpoint(judge_of("http://127.0.0.1:1/v1"))
    monkeypatch.setattr(endpoint, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"estimate\.judge\.endpoint: .*Run: pip install 'sabir\[judge\]'\."):
        check_endpoint(judge_of("http://127.0.0.1:1/v1"))


@pytest.mark.parametrize(
    "url", ["https://me:pw@api.example.com/v1", "https://api.example.com/v1?key=1", "https://x.com/v1#key"]
)
def test_a_url_with_a_secret_is_refused_and_not_repeated(url):
    with pytest.raises(InputError, match="holds a user, a password or a query") as caught:
        identity(judge_of(url))
    assert "pw" not in str(caught.value)
    assert "key=1" not in str(caught.value)


def test_a_url_is_what_stands_before_the_call():
    assert identity(judge_of("https://x.com/v1/")) == identity(judge_of("https://x.com/v1"))
    assert judge_key(judge_of("https://x.com/v1/")) == judge_key(judge_of("https://x.com/v1"))
    with pytest.raises(InputError, match=r"Write https://x\.com/v1\."):
        identity(judge_of("https://x.com/v1/chat/completions"))


def test_a_key_that_can_be_none_is_refused_without_being_said(monkeypatch):
    monkeypatch.setenv(VARIABLE, "sk-geheim-ä")
    with pytest.raises(InputError, match=f"{VARIABLE}: holds characters that no key has") as caught:
        check_endpoint(judge_of("http://127.0.0.1:1/v1"))
    assert "geheim" not in str(caught.value)


# --- as a step of a run -------------------------------------------------------------------------------------


def run_it(tmp_path, server, rows, run_id="r1", **judge):
    """Run the step in a store of its own; its fingerprint, the store and the failures."""
    work = work_of(tmp_path, server, rows, **judge)
    store = Store(tmp_path / "store")
    source = Step("data", "data", "work.test_endpoint:copied", args={"from": str(work.inputs["rows"])})
    args = {**work.args, "answers": str(store.path / "answers")}
    own = Step(
        "outputs/judge/en/test",
        "outputs",
        "sabir.work.endpoint:outputs",
        settings=work.settings,
        deps={"rows": "data"},
        args=args,
    )
    graph = Graph([source, own])
    with Owner(store, run_id) as owner:
        found = run(
            graph,
            assess(graph, store, {}),
            store,
            InlineBackend(),
            run_id=run_id,
            listener=Listener(),
            owner=owner,
        )
    return graph.fingerprints[own.name], store, found.failed


def copied(works):
    for work in works:
        shutil.copyfile(f"{work.args['from']}/test.jsonl", work.out / "test.jsonl")
        yield work.name, {}


def costs_of(fingerprint, store, run_id):
    """The ledger's entry of the step's run, at a price of 3.6 USD an hour."""
    record = store.record(fingerprint)
    row = {
        "name": "outputs/judge/en/test",
        "kind": "outputs",
        "fingerprint": fingerprint,
        "status": "run",
        "why": "",
    }
    return ledger_entry(
        [row],
        {},
        {row["name"]: record} if record else {},
        run=run_id,
        phase="none",
        devices=1,
        usd_per_hour=3.6,
        ran={row["name"]} if record else set(),
        failures={},
        attempts=ledger.attempts(store, run_id),
    )


def test_what_was_paid_stands_in_the_ledger_beside_the_device_time(serve, tmp_path):
    fingerprint, store, failed = run_it(tmp_path, serve(right), examples(10))
    assert failed == {}
    assert store.record(fingerprint)["cost"]["fees_usd"] == pytest.approx(10 * ONE)
    entry = costs_of(fingerprint, store, "r1")
    (step,) = entry["steps"]
    assert step["fees_usd"] == pytest.approx(10 * ONE)
    assert step["usd"] == pytest.approx(10 * ONE + 0.001 * step["device_s"])
    assert [row["usd"] for row in entry["costs"]] == [pytest.approx(step["usd"])] * 2


def test_what_a_step_paid_before_it_failed_stands_in_the_ledger_too_and_is_not_paid_again(serve, tmp_path):
    def answer(server, text, nth):
        return refusal(404, "gone") if nth > 6 else right(server, text, nth)

    fingerprint, store, failed = run_it(tmp_path, serve(answer), examples(10), at_once=1)
    assert "refuses: HTTP 404: 'gone'" in failed["outputs/judge/en/test"].message
    (attempt,) = ledger.attempts(store, "r1")
    assert attempt["fees_usd"] == pytest.approx(6 * ONE)
    (row, total) = costs_of(fingerprint, store, "r1")["costs"]
    assert row["usd"] == total["usd"] == pytest.approx(6 * ONE + 0.001 * row["device_s"])
    server = serve(right)
    work = work_of(tmp_path, server, examples(10))
    assert done(work)[1]["result"]["kept"] == 0, "another server is another judge"


def test_the_key_is_written_nowhere(serve, tmp_path):
    def answer(server, text, nth):
        return right(server, text, nth) if nth < 5 else refusal(500, f"bad header: Bearer {KEY}")

    server = serve(answer)
    _, store, failed = run_it(tmp_path, server, examples(10), at_once=1)
    assert server.headers[0]["authorization"] == f"Bearer {KEY}", "it was sent"
    assert "bad header: Bearer ***" in failed["outputs/judge/en/test"].message
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "error.json" for path in files)
    assert any(path.parent.parent == store.path / "answers" for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    assert os.environ[VARIABLE] == KEY
