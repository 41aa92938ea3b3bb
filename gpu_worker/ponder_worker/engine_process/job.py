"""A job in the engine process: from its request to its result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from ponder.domain.budget import Budget
from ponder.domain.state import Lane
from ponder.domain.strategy import STRATEGY
from ponder.jobs.tick_report import Usage
from ponder_worker.engine.sequence import Priority
from ponder_worker.engine_process import job_request
from ponder_worker.engine_process.engine_client import EngineClient
from ponder_worker.engine_process.engine_core import EngineCore, Meter
from ponder_worker.engine_process.job_error import EXPECTED, job_error
from ponder_worker.engine_process.learned import Learned
from ponder_worker.engine_process.questions import Questions
from ponder_worker.engine_process.result import Made, as_choices, as_document
from ponder_worker.models.reward import Mark
from ponder_worker.protocol import AdmittedJob, Document, JobResult, Sums
from ponder_worker.search import strategy
from ponder_worker.search.candidate import Candidate
from ponder_worker.search.errors import NothingMade
from ponder_worker.search.expansion.search_limits import Limits
from ponder_worker.search.search import Search
from ponder_worker.search.tree import seed
from ponder_worker.search.tree.search_tree import SearchTree

_log = structlog.get_logger(__name__)

_PRIORITIES: dict[Lane, Priority] = {Lane.INTERACTIVE: "interactive", Lane.BATCH: "batch"}


class Job:
    """One search coroutine and its tree. Whatever it raises becomes its own error; `on_done` is called once."""

    def __init__(
        self,
        admitted: AdmittedJob,
        floor: EngineCore,
        questions: Questions,
        learned: Learned,
        on_done: Callable[[Job], None],
    ) -> None:
        """Raises whatever a malformed request or delta brings about; its result then is `unreadable`."""
        self.id = admitted.job_id
        self.batch_id = admitted.batch_id
        self._request = admitted.request
        self._tenant = admitted.tenant_id
        self._priority = _PRIORITIES[admitted.lane]
        self._floor = floor
        self._questions = questions
        self._learned = learned
        self._on_done = on_done
        self._meter = Meter(self.id)
        self._made: Made | None = None
        self._error: BaseException | None = None
        self._is_done = False
        self._line: EngineClient | None = None
        self._task: asyncio.Task[None] | None = None
        sampling = self._request["sampling"]
        self.tree = SearchTree.fold(
            seed.of_job(self.id, sampling.get("seed")),
            admitted.deltas,
            keep_logprobs=bool(sampling.get("logprobs")),
        )
        self.search: Search | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def end(self, reason: str) -> None:
        """Settles with what there is."""
        if self.search is not None:
            self._guard(lambda: self.search.end(reason) if self.search is not None else None)
        elif self.tree.ended is None:
            self.tree.end(reason)

    def drop(self) -> None:
        """Stops, and will never be done."""
        self._is_done = True
        self._release()

    def look(self) -> None:
        """After a step."""
        if self.search is not None and self.search.blocked:
            for growth in list(self.search.blocked):
                growth.look()

    def delta(self) -> Document | None:
        if self.search is not None:
            self.search.sync_all()
        self._count()
        return self.tree.delta()

    def result(self) -> JobResult:
        """Its tree holds everything, so that no more deltas are needed."""
        self._count()
        made = self._made
        return JobResult(
            job_id=self.id,
            error=None if self._error is None else job_error(self._error),
            finish_reason=made.finish_reason if made else None,
            choices=as_choices(made, self._floor.engines.generator.tokenizer) if made else (),
            usage=self._usage(),
            tree=as_document(self.tree, self.search, made),
            learned=self._lessons(),
        )

    def _usage(self) -> Usage:
        counts = self.tree.counts
        return Usage(
            prompt_tokens=len(self.tree.root.ids),
            completion_tokens=self.tree.num_tokens,
            thinking_tokens=self.search.num_thinking_tokens if self.search is not None else 0,
            reward_tokens=counts.get("reward_tokens", 0),
            cached_tokens=counts.get("cached_tokens", 0),
            recomputed_tokens=counts.get("recomputed_tokens", 0),
        )

    def _lessons(self) -> Sums:
        """None of a search that failed or was told to end: it did not spend as it would have."""
        if self.search is None or self._made is None or self.tree.ended is not None:
            return {}
        return self.search.lessons

    async def _run(self) -> None:
        try:
            spec = STRATEGY.validate_python(self._request["strategy"])
            max_rounds = int(self._request.get("max_rounds") or 1)
            if spec.needs_verifier or max_rounds > 1:
                job_request.check_verifier(self._request)
            messages = job_request.messages(self._request)
            if not self.tree.root.ids:
                self.tree.root.ids += await self._floor.prompts.make(messages)
            self.search = search = self._open(messages, spec.uses_scores)
            ranked = await strategy.run(search, spec, max_rounds)
            self._made = self._choose(search, ranked)
        except asyncio.CancelledError:
            return
        except Exception as error:
            self._fail(error)
            return
        self._finish()

    def _open(self, messages: list[dict[str, str]], scores: bool) -> Search:
        engines, request = self._floor.engines, self._request
        room = job_request.room(engines, len(self.tree.root.ids), scores=scores)
        budget = Budget.model_validate(request.get("budget") or {})
        self._line = EngineClient(
            self._floor,
            job_request.sampling(request, engines.defaults),
            messages=messages,
            salt=self._tenant.encode(),
            meter=self._meter,
            priority=self._priority,
            prompt_length=len(self.tree.root.ids),
            guard=self._guard,
            ask=partial(self._questions.ask, self.id),
            no_verifier=job_request.no_verifier(request),
            # A guess that misses costs dollars, and takes time from others of this job.
            may_guess=budget.dollars is None and budget.deadline_s is None,
        )
        caps = [cap for cap in (budget.tokens_per_sample, request["sampling"].get("max_tokens")) if cap is not None]
        return Search(
            self.tree,
            self._line,
            Limits(budget.tokens, min(caps) if caps else None, room, budget.thinking_tokens),
            num_choices=int(request.get("n") or 1),
            answer_of=job_request.answer_of(request),
            learned=partial(self._learned.of, self.batch_id),
            # A score at a mark is of all steps before it; a likelihood is of its own step.
            aggregate="last" if isinstance(engines.reward_kind, Mark) else "product",
        )

    def _choose(self, search: Search, ranked: list[Candidate]) -> Made:
        if not ranked:
            raise NothingMade(f"the search ended before it had made anything: {self.tree.ended or 'budget'}")
        return Made(tuple(ranked), search.num_choices, self.tree.ended or ("budget" if search.wall.refused else None))

    def _guard(self, callback: Callable[[], None]) -> None:
        if self._is_done:
            return
        try:
            callback()
        except Exception as error:
            if self._task is not None:
                self._task.cancel()
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._error = error
        if not isinstance(error, EXPECTED):
            _log.error("job_broke", job=self.id, exc_info=error)
        self._finish()

    def _finish(self) -> None:
        if self._is_done:
            return
        self._is_done = True
        self._release()
        self._on_done(self)

    def _release(self) -> None:
        self._questions.drop(self.id)
        if self.search is not None:
            self.search.sync_all()
            self.search.close()
        if self._line is not None:
            self._line.cancel_scores()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def _count(self) -> None:
        meter = self._meter
        self.tree.count("recomputed_tokens", meter.recomputed_tokens)
        self.tree.count("reward_tokens", meter.reward_tokens)
        if meter.cached_tokens and "cached_tokens" not in self.tree.counts:
            self.tree.count("cached_tokens", min(meter.cached_tokens, len(self.tree.root.ids)))
        meter.recomputed_tokens = meter.reward_tokens = 0
