"""Users who go on submitting while everything breaks: small batches of many kinds, without pause."""

from __future__ import annotations

import itertools
import json
import threading
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Any, Self

from fault_injection.service import MODEL
from fault_injection.testbed import KEYS, Testbed
from sqlalchemy.exc import SQLAlchemyError

from ponder_worker.demo.problems import Problem, random_problem

ENDPOINT = "/v1/chat/completions"
MAX_TOKENS = 160
"""The limit of a sample."""
_LINES = 12
_PENDING = 40
"""More than this many unsettled lines, and users wait."""
_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Recipe:
    """The options that the lines of a batch share. level: the problems' level. tokens: the budget of each line."""

    strategy: dict[str, Any]
    verifier: dict[str, Any]
    level: int
    tokens: int | None = None
    max_rounds: int = 1
    priority: str = "batch"


NUMBER, EXACT, MATH = {"name": "number"}, {"name": "exact"}, {"name": "math"}
SHORT = {"name": "regex", "pattern": r"^\d{1,2}$"}
ROUND = {"name": "contains", "texts": ["0", "5"], "need": "any"}
JUDGE = {"name": "judge", "max_tokens": 24}
VOTES = {
    "strategy": {"name": "self_consistency", "n": 8, "early_stopping": None},
    "accept": {"by": "agreement", "threshold": 0.9},
}
JUDGED = {"strategy": {"name": "direct"}, "accept": {"by": "judge", "max_tokens": 24}}
RECIPES = (
    Recipe({"name": "direct"}, NUMBER, 4, priority="interactive"),
    Recipe({"name": "self_consistency", "n": 16, "early_stopping": None}, MATH, 4),
    Recipe({"name": "best_of_n", "n": 16, "select": "weighted", "early_stopping": None}, EXACT, 5, tokens=1200),
    Recipe({"name": "beam_search", "n": 8, "width": 2}, NUMBER, 4),
    Recipe({"name": "refine", "n": 3}, SHORT, 4),
    Recipe({"name": "rebase", "n": 8}, EXACT, 4, tokens=500),
    Recipe({"name": "adaptive", "n": 16}, ROUND, 4),
    Recipe({"name": "mcts", "n": 8, "width": 2}, MATH, 4),
    Recipe({"name": "particle_filter", "n": 8}, NUMBER, 4, tokens=600),
    Recipe({"name": "best_of_n", "n": 8}, SHORT, 5, max_rounds=2),
    Recipe(
        {"name": "cascade", "stages": [VOTES, {"model": MODEL, "strategy": {"name": "best_of_n", "n": 8}}]}, NUMBER, 5
    ),
    Recipe({"name": "best_of_n", "n": 4, "select": "tournament", "judge": {"max_tokens": 24}}, NUMBER, 4),
    Recipe({"name": "self_consistency", "n": 4, "early_stopping": None}, JUDGE, 4),
    Recipe({"name": "cascade", "stages": [JUDGED, {"model": MODEL, "strategy": {"name": "direct"}}]}, NUMBER, 4),
)
POISON = Recipe({"name": "self_consistency", "n": 256, "early_stopping": None}, NUMBER, 5, priority="interactive")
"""Long enough that its worker can be killed three times, and it does not wait for what was handed in before."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line as it was handed in, and the right answer to it."""

    custom_id: str
    recipe: Recipe
    reference: str


@dataclass(frozen=True, slots=True)
class Submission:
    """One batch that the API has taken."""

    batch_id: str
    tenant: str
    lines: tuple[Line, ...]


class Workload:
    """Hands in batches until the `with` ends. `submissions`: what the API has confirmed so far."""

    def __init__(self, testbed: Testbed, seed: int) -> None:
        self.submissions: list[Submission] = []
        self._testbed = testbed
        self._rng = Random(f"workload/{seed}")
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._feed, name="workload")
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def submit(self, recipe: Recipe, num_lines: int) -> Submission:
        """One batch, over the API, however long that takes to answer. From any thread."""
        with self._lock:
            number, tenant = next(self._numbers), self._rng.choice(tuple(KEYS))
            problems = [random_problem(self._rng, recipe.level, "expression") for _ in range(num_lines)]
        lines = tuple(Line(f"{number}-{index}", recipe, str(problem.answer)) for index, problem in enumerate(problems))
        data = b"".join(json.dumps(_row(*pair)).encode() + b"\n" for pair in zip(lines, problems, strict=True))
        with self._testbed.client(tenant) as client:
            file = client.upload(lambda: [data], f"{number}.jsonl")
            batch = client.submit(file["id"], options=_options(recipe), idempotency_key=f"chaos-{number}")
        submission = Submission(batch["id"], tenant, lines)
        with self._lock:
            self.submissions.append(submission)
        return submission

    def _feed(self) -> None:
        try:
            for recipe in itertools.cycle(RECIPES):
                self.submit(recipe, _LINES)
                while not self._stop.wait(_PAUSE_S) and self._is_full():
                    pass
                if self._stop.is_set():
                    return
        except Exception as error:  # raised where the `with` ends
            self._failure = error

    def _is_full(self) -> bool:
        """Also while Postgres is away, and nobody can say."""
        with suppress(SQLAlchemyError):
            return self._testbed.num_pending() > _PENDING
        return True


def _row(line: Line, problem: Problem) -> dict[str, Any]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": problem.prompt}], "max_tokens": MAX_TOKENS}
    own: dict[str, Any] = {"verifier": line.recipe.verifier}
    if line.recipe.verifier in (NUMBER, EXACT, MATH, JUDGE):
        own["reference"] = line.reference
    return {"custom_id": line.custom_id, "method": "POST", "url": ENDPOINT, "body": body | {"ponder": own}}


def _options(recipe: Recipe) -> dict[str, Any]:
    budget = {"budget": {"tokens": recipe.tokens}} if recipe.tokens else {}
    return {"strategy": recipe.strategy, "max_rounds": recipe.max_rounds, "priority": recipe.priority} | budget
