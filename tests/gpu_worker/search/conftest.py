"""An engine that computes nothing: what it says is a function of the seed and the position, as with the real one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from ponder.domain.strategy import ACCEPT, STRATEGY
from ponder.domain.verifier import Judge
from ponder_worker.search import acceptance, judging, strategies
from ponder_worker.search.engine_port import ScoreRequest, StreamEnd, StreamRequest, VerifierReply
from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.search import Search
from ponder_worker.search.thought import Thought
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.delta_recorder import Keep
from ponder_worker.search.tree.node import child_seed
from ponder_worker.search.tree.search_tree import SearchTree

END = 0
OPEN, CLOSE, WAIT, CLOSING, TURN = 6, 7, 8, 9, 10
SAID = [
    f"{mark} " for mark in ("Verdict: correct", "Verdict: wrong", "Better: A", "Better: B", "Choice: 1", "Choice: 2")
]
PIECES = ["", "1", "2", "3", "\n", "a", "<think>", "</think>", "Wait", "So:", "No.", "?", *SAID]
PROMPT = [11, 11, 11]
THOUGHT = Thought((OPEN,), (CLOSE,), "</think>", (CLOSING, CLOSE), answer_tokens=5)


def token_at(stream_seed: int, position: int) -> int:
    """Ends are rare, line breaks not."""
    drawn = child_seed(stream_seed, position) % 40
    return END if drawn < 3 else 4 if drawn < 10 else 1 + drawn % 3 if drawn < 30 else 5


def thinking_token_at(stream_seed: int, position: int) -> int:
    """A thought opens at once, and closes seldom."""
    drawn = child_seed(stream_seed, position) % 40
    return OPEN if position == len(PROMPT) else CLOSE if 30 <= drawn < 33 else token_at(stream_seed, position)


def judge_token_at(stream_seed: int, position: int, *, start: int, thinks: bool) -> int:
    """Judges end soon, and change their minds."""
    drawn = child_seed(stream_seed, position - start) % 16
    if thinks and position == start:
        return OPEN
    if drawn < 4:
        return END
    return CLOSE if thinks and drawn < 7 else 4 if drawn < 9 else PIECES.index(SAID[drawn % len(SAID)])


@dataclass(eq=False)
class StubStream:
    request: StreamRequest
    done: Callable[[StreamEnd], None]
    tokens: list[int]
    draw: Callable[[int, int], int]
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[tuple[tuple[int, float], ...]] = field(default_factory=list)

    def advance(self) -> StreamEnd | None:
        token = self.draw(self.request.seed, len(self.tokens))
        if self.draw is thinking_token_at and self.tokens[-1] == TURN:
            token = OPEN
        self.tokens.append(token)
        self.logprobs.append(-1.0 / (1 + token_at(self.request.seed, len(self.tokens) + 1000)))
        made = len(self.tokens) - self.request.start
        assert made <= self.request.max_tokens, "the engine was asked for a token beyond the cap"
        if token == END:
            return StreamEnd("stop")
        if self.request.separator is not None and PIECES[token] == self.request.separator:
            return StreamEnd("separator")
        return StreamEnd("length") if made == self.request.max_tokens else None


class StubEngine:
    """A stub. Its `step` advances some streams by a token and answers some scores; `rng` chooses, as the clock would.

    speculates: the probability that it has room for a guess.
    """

    def __init__(self, rng: random.Random, thought: Thought | None = None, speculates: float = 0.0) -> None:
        self.rng = rng
        self.thought = thought
        self.speculates = speculates
        self.guesses: set[int] = set()
        """The ids of the streams that are still speculative."""
        self.streams: list[StubStream] = []
        self.scores: list[tuple[ScoreRequest, Callable[[float], None]]] = []
        self.can_score = True
        self.context_length = 14
        self.problem = "1 + 1?"
        self.begun = ""
        self.num_generated = 0
        self.num_scores = 0
        self.num_streams = 0
        self.num_verified = 0
        self.verifying: list[tuple[str, Callable[[VerifierReply], None]]] = []

    def generate(self, request: StreamRequest, done: Callable[[StreamEnd], None]) -> StubStream:
        draw = token_at if self.thought is None else thinking_token_at
        if request.judges:
            draw = partial(judge_token_at, start=request.start, thinks=self.thought is not None)
        stream = StubStream(request, done, list(request.tokens), draw)
        self.streams.append(stream)
        self.num_streams += 1
        return stream

    def speculate(self, request: StreamRequest, done: Callable[[StreamEnd], None]) -> StubStream | None:
        if self.rng.random() >= self.speculates:
            return None
        stream = self.generate(request, done)
        self.guesses.add(id(stream))
        return stream

    def adopt(self, stream: Any) -> None:
        self.guesses.remove(id(stream))

    def cancel(self, stream: Any) -> None:
        self.guesses.discard(id(stream))
        if stream in self.streams:  # a guess may have ended
            self.streams.remove(stream)

    def score(self, step: ScoreRequest, done: Callable[[float], None]) -> None:
        assert step.ids
        self.num_scores += 1
        self.scores.append((step, done))

    def cancel_scores(self) -> None:
        self.scores.clear()

    def verify(self, text: str, answer: str | None, done: Callable[[VerifierReply], None]) -> None:
        self.num_verified += 1
        self.verifying.append((text, done))

    def encode(self, text: str) -> list[int]:
        return [PIECES.index(text)]

    async def question(self, text: str) -> list[int]:
        return [11] * (3 + text.count("# Answer"))

    def user_turn(self, text: str) -> list[int]:
        return [END, TURN]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(PIECES[token] for token in ids)

    @property
    def has_work(self) -> bool:
        return bool(self.streams or self.scores or self.verifying)

    def step(self) -> None:
        chosen = [stream for stream in self.streams if self.rng.random() < 0.7]
        ended = []
        for stream in chosen:
            self.num_generated += 1
            if (end := stream.advance()) is not None:
                self.streams.remove(stream)
                ended.append((stream, end))
        scored = [entry for entry in self.scores if self.rng.random() < 0.5]
        self.scores = [entry for entry in self.scores if entry not in scored]
        self.rng.shuffle(ended)
        for stream, end in ended:
            stream.done(end)
        for step, done in scored:
            done(score_of(step))
        verified = [entry for entry in self.verifying if self.rng.random() < 0.5]
        self.verifying = [entry for entry in self.verifying if entry not in verified]
        for text, said in verified:
            said(verdict_of(text))


def num_sampled(tree: SearchTree) -> int:
    """Tokens that the engine made for it. A wait has taken the place of one."""
    forced = [(node, first, num) for node in tree.nodes for first, num in node.forced]
    return tree.num_tokens - sum(num - (node.ids[first] == WAIT) for node, first, num in forced)


def score_of(step: ScoreRequest) -> float:
    """A number that depends on all ids of the path; sums of them have no rounding."""
    value = 0
    for token in step.ids_before + step.ids:
        value = child_seed(value, token)
    return -float(value % 1024) / 64


def verdict_of(text: str) -> VerifierReply:
    passed = sum(map(ord, text)) % 3 == 0
    return VerifierReply(passed, "" if passed else "No.")


@dataclass
class Attempt:
    """One stay of a job with one worker. `deltas` is what ticks have saved, over all attempts."""

    search: Search
    engine: StubEngine
    deltas: list[dict[str, Any]]
    max_rounds: int = 1
    accept: dict[str, Any] | None = None
    judge: dict[str, Any] | None = None
    ranked: list[Candidate] | None = None

    def save(self) -> None:
        self.search.expander.streams.sync_all()
        delta = self.search.tree.delta()
        if delta is not None:
            self.deltas.append(delta)


JOB_SEED = 5


def attempt(
    limits: SearchLimits,
    *,
    rng: random.Random,
    deltas: list[dict[str, Any]] | None = None,
    job_seed: int = JOB_SEED,
    num_choices: int = 1,
    thought: Thought | None = None,
    max_rounds: int = 1,
    speculates: float = 0.0,
    accept: dict[str, Any] | None = None,
    judge: dict[str, Any] | None = None,
) -> Attempt:
    deltas = [] if deltas is None else list(deltas)
    tree = SearchTree.fold(job_seed, deltas, keep=Keep.LOGPROBS)
    if not tree.root.ids:
        tree = SearchTree(job_seed, PROMPT, keep=Keep.LOGPROBS)
    engine = StubEngine(rng, thought, speculates)
    return Attempt(Search(tree, engine, limits, num_choices=num_choices), engine, deltas, max_rounds, accept, judge)


def run(
    one: Attempt,
    spec: dict[str, Any],
    *,
    after_step: Callable[[int], bool] = lambda num_steps: True,
    after_turn: Callable[[int], bool] = lambda num_steps: True,
) -> list[Candidate] | None:
    """Runs the strategy and what judges its choice until both are done, or it is killed because one of the two
    callbacks returns False.

    Both get the number of the step. after_step is called before the strategy knows what the step has brought,
    after_turn when it waits again. It does nothing in between, so that with both it can be killed at every await.
    """

    async def play() -> list[Candidate]:
        ranked = await strategies.run(one.search, STRATEGY.validate_python(spec), one.max_rounds)
        if one.accept is not None and ranked:
            await acceptance.decide(one.search, ACCEPT.validate_python(one.accept), ranked)
        if one.judge is not None and ranked:
            judge = Judge.model_validate(one.judge)
            await judging.decide(one.search, judge, one.search.engine.problem, ranked[0].said, None)
        return ranked

    async def live() -> list[Candidate] | None:
        task = asyncio.ensure_future(play())
        num_steps = 0
        while not task.done():
            await asyncio.sleep(0)
            if task.done():
                break
            if not after_turn(num_steps):
                task.cancel()
                return None
            one.engine.step()
            num_steps += 1
            if one.search.expander.budget.tokens is not None:
                nodes = [node for node in one.search.tree.nodes if node.is_sampled]
                used = sum(map(one.search.expander.streams.length, nodes))
                assert used <= one.search.expander.budget.tokens
            one.search.expander.look()
            assert num_steps < 20_000, "the strategy waits for something that nobody does"
            if not after_step(num_steps):
                task.cancel()
                return None
        return await task

    one.ranked = asyncio.run(live())
    return one.ranked


SPECS: list[dict[str, Any]] = [
    {"name": "direct"},
    {"name": "self_consistency", "n": 9},
    {"name": "self_consistency", "n": 12, "early_stopping": "window"},
    {"name": "self_consistency", "n": 5, "early_stopping": None},
    {"name": "self_consistency", "n": 12, "confidence": {"keep": 0.5, "window": 3, "num_warmup": 4}},
    {"name": "self_consistency", "n": 7, "shortest": 3},
    {"name": "best_of_n", "n": 9, "select": "best"},
    {"name": "best_of_n", "n": 8, "early_stopping": None, "confidence": {"keep": 0.4, "window": 2, "num_warmup": 3}},
    {"name": "best_of_n", "n": 5, "select": "best", "early_stopping": None},
    {"name": "best_of_n", "n": 4, "select": "weighted", "early_stopping": None},
    {"name": "best_of_n", "n": 5, "select": "tournament", "early_stopping": None, "judge": {"max_tokens": 6}},
    {"name": "best_of_n", "n": 7, "select": "tournament", "early_stopping": None, "judge": {"n": 3, "max_tokens": 6}},
    {"name": "best_of_n", "n": 5, "select": "genselect", "judge": {"max_tokens": 6}},
    {"name": "best_of_n", "n": 7, "select": "genselect", "early_stopping": None, "judge": {"n": 3, "max_tokens": 8}},
    {"name": "beam_search", "n": 4, "width": 2, "max_rounds": 6},
    {"name": "beam_search", "n": 3, "width": 4, "max_rounds": 3},
    {"name": "dvts", "n": 6, "width": 2, "max_rounds": 5},
    {"name": "dvts", "n": 2, "width": 3, "max_rounds": 3},
    {"name": "rebase", "n": 5, "max_rounds": 5},
    {"name": "mcts", "n": 5, "width": 3, "max_rounds": 4},
    {"name": "ab_mcts", "n": 5, "refine": "No."},
    {"name": "particle_filter", "n": 5, "max_rounds": 6, "temperature": 4.0},
    {"name": "refine", "n": 3},
    {"name": "budget_forcing", "num_waits": 2, "answer": "So:"},
    {"name": "answer_probing", "every": 4, "num_equal": 2, "probe": "So:", "probe_tokens": 3, "answer": "So:"},
    {"name": "adaptive", "n": 9},
    {"name": "adaptive", "n": 8, "num_probes": 3, "worth": 1.0},
]


@pytest.fixture(params=SPECS, ids=lambda spec: "-".join(map(str, spec.values())))
def spec(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param  # type: ignore[no-any-return]
