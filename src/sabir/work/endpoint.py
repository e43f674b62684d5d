"""Step `outputs` by an endpoint: what a model on somebody's server answers to the rows of one language and split.

The server speaks the OpenAI chat protocol: a company's, or vLLM, llama.cpp, Ollama on one's own machine. What it
answers is kept by content as it comes and paid for once; what it costs is counted, and limited.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sabir.errors import InputError, SabirError
from sabir.work import Outcome, Work
from sabir.work.chat import Chat, Lost, Reply, key_in
from sabir.work.meant import meant
from sabir.work.outputs import write_answers
from sabir.work.paid import Answer, Paid, answer_key, endpoint_key
from sabir.work.prepare import Example, read_examples
from sabir.work.questions import GENERATED

WHERE = "estimate.judge"
FORM = 1  # raise it when the same row is asked or the same answer is read otherwise
MOST_LOST = 0.2  # of the questions of a step
IN_A_ROW = 20  # lost: there is nobody, or nobody who understands
GRACE_S = 5.0  # for what is under way when the rest is given up
LABEL_TOKENS = 64  # that an answer may take where one is chosen: some begin with a sentence
FRAME_TOKENS = 8  # of a server's chat template
LATIN = 0x250  # characters below it take a third of a token, as a rule, and all others two thirds
KEPT = "What it answered is kept: the next run asks only the rest."

Judge = Mapping[str, Any]  # the fields of `estimate.judge`


def identity(judge: Judge) -> dict[str, Any]:
    """What of a judge's settings decides its answers: `endpoint` among the settings of its steps.

    Raises InputError for a URL that holds a secret: it is written down.
    """
    url = judge["endpoint"].rstrip("/")
    parts = urlsplit(url)
    if parts.username is not None or parts.query or parts.fragment:
        fix = "Write it without, and name the environment variable that holds the key: key: ..."
        raise InputError(f"{WHERE}.endpoint", "the URL holds a user, a password or a query.", fix)
    if parts.path.endswith("/chat/completions"):
        fix = f"Write {url.removesuffix('/chat/completions')}."
        raise InputError(f"{WHERE}.endpoint", "the URL names a single call.", fix)
    return {"url": url, "model": judge["model"], "form": FORM}


def check_endpoint(judge: Judge) -> None:
    """Raise InputError where an endpoint cannot be asked from here as it is described; nothing is asked."""
    identity(judge)
    prices = [judge["usd_per_million_input"], judge["usd_per_million_output"]]
    if None in prices:
        lacks = "input" if prices[0] is None else "output"
        message = "is not set: nobody could say what asking costs, or when max_usd is reached."
        raise InputError(
            f"{WHERE}.usd_per_million_{lacks}", message, "Write both prices, 0 for what is free."
        )
    if find_spec("openai") is None:
        message = "an endpoint is asked with the package `openai`, which is not installed."
        raise InputError(f"{WHERE}.endpoint", message, "Run: pip install 'sabir[judge]'.")
    key_in(judge["key"])


def judge_key(judge: Judge) -> str:
    """The folder below answers/ in which its answers are kept."""
    told = identity(judge)
    return endpoint_key(told["url"], told["model"])


def expected_cost(
    examples: Iterable[Example], settings: Mapping[str, Any], judge: Judge, *, answers: Path | None = None
) -> dict[str, Any]:
    """About what asking these rows will take: `questions`, `input_tokens`, `output_tokens`, `usd` (None: no price).

    An estimate by the number of characters, before anything is asked. Rows with one text are asked once, and what is
    kept already is not asked.

    Args:
        settings: of the step.
        answers: the folder that answers are kept in.
    """
    paid = Paid(None if answers is None else answers / judge_key(judge), since=time.time())
    asked = [
        one for one in _apart(_question(example, settings) for example in examples) if not paid.get(one.key)
    ]
    tokens = [sum(one.input_tokens for one in asked), sum(one.output_tokens for one in asked)]
    return {
        "questions": len(asked),
        "input_tokens": tokens[0],
        "output_tokens": tokens[1],
        "usd": _usd(judge, *tokens),
    }


def refuse_above(costs: Iterable[Mapping[str, Any]], judge: Judge) -> None:
    """Raise InputError where asking would cost more than one command may spend; see `expected_cost` for the costs."""
    costs = list(costs)
    usd = sum(cost["usd"] or 0.0 for cost in costs)
    if usd > judge["max_usd"]:
        count, read, written = (
            sum(cost[key] for cost in costs) for key in ("questions", "input_tokens", "output_tokens")
        )
        raise InputError(
            f"{WHERE}.max_usd",
            f"is {judge['max_usd']:g} USD, and {count:,} questions to {judge['model']} would cost about {usd:.2f} USD "
            f"(an estimate: {read:,} tokens to read, {written:,} to write).",
            "Raise it, or ask about fewer texts.",
        )


# --- the step ---------------------------------------------------------------------------------------------


def outputs(works: Sequence[Work]) -> Iterator[tuple[str, Outcome]]:
    """Have an endpoint answer; as `work.outputs:outputs`, but that a prediction may be None: it says nothing.

    `args`: `judge`, `split`, `answers` (the folder of kept answers), and `since`: when the command began, in Unix
    time, from which on `max_usd` counts, whoever asks; without it from now on. The result counts `asked`, `kept`,
    `unreadable`, `timeouts`, `failed`, `input_tokens`, `output_tokens` and `usd`: what this step paid.

    Raises SabirError where more than a fifth of the questions has no answer that can be read, where the server cannot
    be used at all, and where the money is spent; what was answered until then is kept.
    """
    now = time.time()
    for work in works:
        asking = _Asking(work, since=work.args.get("since", now))
        asking.ask_what_is_open()
        write_answers(work.out, list(asking.told()))
        yield work.name, asking.outcome()


@dataclass(frozen=True)
class _Question:
    """One text to ask, and what it will take, about."""

    key: str
    text: str
    options: tuple[str, ...]  # () where an answer is written
    max_tokens: int
    input_tokens: int
    output_tokens: int

    def read(self, answer: Answer) -> str | None:
        """What an answer says; None: nothing."""
        return meant(answer.text, self.options) if self.options else answer.text.strip() or None


def _apart(questions: Iterable[_Question]) -> list[_Question]:
    """Each of them once."""
    return list({one.key: one for one in questions}.values())


def _question(example: Example, settings: Mapping[str, Any]) -> _Question:
    written = settings["answer"] in GENERATED
    options = () if written else tuple(settings.get("labels") or example.options)
    text = _asked(example, settings["answer"], options)
    longest = max(map(_tokens, options), default=0)
    most = settings["max_new_tokens"] if written else max(LABEL_TOKENS, 2 * longest)
    return _Question(
        key=answer_key(text, most),
        text=text,
        options=options,
        max_tokens=most,
        input_tokens=FRAME_TOKENS + _tokens(text),
        output_tokens=most if written else longest,
    )


def _asked(example: Example, answer: str, options: tuple[str, ...]) -> str:
    """The prompt of the task, and before its cue the form of the answer, where the prompt says nothing of it."""
    prompt = example.prompt
    frame = prompt.before + prompt.after
    line = ""
    if options and not _names(frame, options):
        listed = [f"\n- {one}" for one in options] if "," in "".join(options) else [" " + ", ".join(options)]
        line = f"\n\nAnswer with one of:{''.join(listed)}"
    elif answer == "phrases" and "semicolon" not in frame and ";" not in frame:
        line = "\n\nAnswer with phrases parted by semicolons"
    return prompt.before + prompt.source + line + prompt.after


@lru_cache(maxsize=16)  # what stands around the texts of a task is the same for all, as a rule
def _names(frame: str, options: tuple[str, ...]) -> bool:
    """Whether all options stand there."""
    return all(meant(frame, [option]) for option in options)


def _tokens(text: str) -> int:
    """About how many tokens a text is, on the safe side."""
    latin = sum(ord(character) < LATIN for character in text)
    return round(latin / 3 + (len(text) - latin) / 1.5 + 0.5)


def _usd(judge: Judge, input_tokens: int, output_tokens: int) -> float | None:
    prices = judge["usd_per_million_input"], judge["usd_per_million_output"]
    if None in prices:
        return None
    return (input_tokens * prices[0] + output_tokens * prices[1]) / 1e6


@dataclass
class _Counts:
    asked: int = 0
    kept: int = 0
    unreadable: int = 0
    timeouts: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def lost(self) -> int:
        """Questions without an answer that can be read."""
        return self.unreadable + self.timeouts + self.failed


@dataclass
class _Asking:
    """One step: its questions, and the answers so far."""

    work: Work
    since: float
    counts: _Counts = field(default_factory=_Counts)
    in_a_row: int = 0  # lost, since the last one that was not
    last: str = ""  # of what went wrong

    def __post_init__(self) -> None:
        args = self.work.args
        self.judge: Judge = args["judge"]
        self.told_as = self.work.settings["endpoint"]
        examples = read_examples(self.work.inputs["rows"], args["split"])
        self.rows = [(example.id, _question(example, self.work.settings)) for example in examples]
        self.questions = _apart(one for _, one in self.rows)
        folder = Path(args["answers"]) / endpoint_key(self.told_as["url"], self.told_as["model"])
        self.paid = Paid(folder, since=self.since)
        self.usd = _usd(self.judge, 0, 0)

    @property
    def who(self) -> str:
        return f"{self.told_as['model']} at {self.told_as['url']}"

    def ask_what_is_open(self) -> None:
        """Ask what is not kept, many at once; whatever ends it, what has come by then is kept."""
        found = [self.paid.get(one.key) for one in self.questions]
        still = [one for one, answer in zip(self.questions, found, strict=True) if answer is None]
        self.counts.kept = len(self.questions) - len(still)
        for one, answer in zip(self.questions, found, strict=True):
            if answer is not None:
                self._count_unreadable(one, answer)
        self.in_a_row = 0  # of what was kept
        self._refuse_lost()
        if not still:
            return
        check_endpoint({**self.judge, "endpoint": self.told_as["url"]})
        chat = Chat(
            url=self.told_as["url"],
            model=self.told_as["model"],
            key=self.judge["key"],
            timeout_s=self.judge["timeout_s"],
        )
        under_way: dict[Future[Reply | Lost], _Question] = {}
        pool = ThreadPoolExecutor(self.judge["at_once"])
        try:
            self._ask(chat, pool, still[::-1], under_way)
        finally:
            chat.stop()
            for future in wait(under_way, timeout=GRACE_S).done:
                self._take(under_way[future], future.result())
            chat.close()
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(
        self,
        chat: Chat,
        pool: ThreadPoolExecutor,
        still: list[_Question],
        under_way: dict[Future[Reply | Lost], _Question],
    ) -> None:
        """Ask all, the last first, as long as there is money and the server is of use."""
        while still or under_way:
            self.paid.look()  # what others spend is spent
            while (
                still
                and len(under_way) < self.judge["at_once"]
                and self._affords([still[-1], *under_way.values()])
            ):
                one = still.pop()
                under_way[pool.submit(chat.ask, one.text, max_tokens=one.max_tokens)] = one
            if not under_way:
                raise self._spent(len(still))
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                reply = future.result()
                self._take(under_way.pop(future), reply)
                if isinstance(reply, Lost) and reply.hopeless:
                    raise self._useless(reply)
            self._refuse_lost()

    def _affords(self, questions: Iterable[_Question]) -> bool:
        """Whether the money that is left will do for these, about."""
        costs = (_usd(self.judge, one.input_tokens, one.output_tokens) or 0.0 for one in questions)
        return self.paid.spent_usd + sum(costs) <= self.judge["max_usd"]

    def _take(self, one: _Question, reply: Reply | Lost) -> None:
        counts = self.counts
        counts.asked += 1
        if isinstance(reply, Lost):
            counts.timeouts += reply.timeout
            counts.failed += not reply.timeout
            self.in_a_row, self.last = self.in_a_row + 1, reply.why
        else:
            read = one.input_tokens if reply.input_tokens is None else reply.input_tokens
            written = (
                FRAME_TOKENS + _tokens(reply.text) if reply.output_tokens is None else reply.output_tokens
            )
            answer = Answer(reply.text, reply.cut, read, written, _usd(self.judge, read, written))
            self.paid.add(one.key, answer)
            counts.input_tokens += read
            counts.output_tokens += written
            if answer.usd is not None:
                self.usd = (self.usd or 0.0) + answer.usd
            self.in_a_row = self.in_a_row + 1 if self._count_unreadable(one, answer) else 0
        self.work.emit(counts.kept + counts.asked, len(self.questions), fees_usd=self.usd)

    def _count_unreadable(self, one: _Question, answer: Answer) -> bool:
        if one.read(answer) is not None:
            return False
        self.counts.unreadable += 1
        self.last = f"it said {answer.text[:80]!r}" if answer.text else "it said nothing"
        return True

    # --- what ends it ---------------------------------------------------------------------------------------

    def _refuse_lost(self) -> None:
        """Fail where the rest would say little: some lost are None, many are none at random."""
        counts, total = self.counts, len(self.questions)
        if self.in_a_row >= max(IN_A_ROW, 2 * self.judge["at_once"]):
            of = f"to {self.in_a_row} questions in a row"
        elif counts.lost > MOST_LOST * total:
            of = f"to {counts.lost} of {total} questions"
        else:
            return
        unread = "empty" if self.work.settings["answer"] in GENERATED else "none of the options"
        kinds = {
            f"timed out after {self.judge['timeout_s']:g} s": counts.timeouts,
            "failed": counts.failed,
            f"with an answer that is {unread}": counts.unreadable,
        }
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
        raise SabirError(
            WHERE,
            f"{self.who} gave no usable answer {of} ({told}; the last: {self.last}).",
            f"Look at the server and the prompt, or name another judge. {KEPT}",
        )

    def _useless(self, lost: Lost) -> SabirError:
        variable = self.judge["key"]
        keyed = (
            f"the key in {variable}"
            if variable
            else "whether it wants a key (key: the variable that holds it)"
        )
        fix = f"Check {keyed}, the model's name, and the URL (most end in /v1). {KEPT}"
        return SabirError(WHERE, f"{self.who} refuses: {lost.why}.", fix)

    def _spent(self, still: int) -> SabirError:
        return SabirError(
            f"{WHERE}.max_usd",
            f"is {self.judge['max_usd']:g} USD; {self.paid.spent_usd:.4f} USD are spent, and {self.who} has {still:,} "
            "questions left to answer.",
            f"Raise it, or ask about fewer texts. {KEPT}",
        )

    # --- what comes of it -------------------------------------------------------------------------------------

    def told(self) -> Iterator[dict[str, Any]]:
        """Each row's answer, as it is written; `said` is what cannot be read."""
        for row, one in self.rows:
            answer = self.paid.get(one.key)
            prediction = None if answer is None else one.read(answer)
            said = {"said": answer.text} if answer is not None and prediction is None else {}
            cut = {"cut": True} if answer is not None and answer.cut and not one.options else {}
            yield {"id": row, "prediction": prediction, **said, **cut}

    def outcome(self) -> Outcome:
        counts = self.counts
        return {
            "tokens": counts.input_tokens + counts.output_tokens,
            "fees_usd": self.usd,
            "result": {**vars(counts), "usd": self.usd},
        }
