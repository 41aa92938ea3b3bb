"""A job in the engine process, from its request document to its result."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from random import Random

import structlog

from ponder.domain.batch.stages import Pin
from ponder.domain.state import Lane
from ponder.domain.strategy import STRATEGY, AcceptByJudge
from ponder.jobs.tick_report import Usage
from ponder.trace import log_ids
from ponder_worker.engine import Structure
from ponder_worker.engine.sequence import Priority
from ponder_worker.engine_process import job_request
from ponder_worker.engine_process.engine_client import EngineClient
from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.job_result import EXPECTED, Made, as_choices, as_document, job_error
from ponder_worker.engine_process.job_stage import JobStage
from ponder_worker.engine_process.learned import Learned
from ponder_worker.engine_process.parent_pipe import Questions
from ponder_worker.engine_process.prompts import Prompt
from ponder_worker.engine_process.span_recorder import SpanRecorder
from ponder_worker.engine_process.work_book import Meter
from ponder_worker.models.reward import Mark
from ponder_worker.protocol import AdmittedJob, Choice, Document, EndedSpan, JobResult, Sums
from ponder_worker.search import acceptance, judging, routing, strategies
from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.search import Search
from ponder_worker.search.search_error import NothingMade
from ponder_worker.search.strategies.best_of_n import select
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.node import child_seed, root_seed
from ponder_worker.search.tree.search_tree import SearchTree

_log = structlog.get_logger(__name__)

_ROUTE_ORDINAL = (1 << 33) - 1
"""An ordinal that belongs to no child, for the random numbers that route a job. So does the one before it."""
_PRIORITIES: dict[Lane, Priority] = {Lane.INTERACTIVE: "interactive", Lane.BATCH: "batch"}


class Job:
    """One search coroutine and its tree. Whatever it raises becomes the job's own error; `on_done` is called once."""

    def __init__(
        self,
        admitted: AdmittedJob,
        core: EngineCore,
        questions: Questions,
        learned: Learned,
        on_done: Callable[[Job], None],
        *,
        on_span: Callable[[EndedSpan], None],
    ) -> None:
        """Raises anything at all for a malformed request or delta. The job's result is then `unreadable`."""
        self.id = admitted.job_id
        self.batch_id = admitted.batch_id
        self._stage = JobStage.of(admitted.request, admitted.deltas)
        self._request = self._stage.request
        self._scope = self._stage.scope(core.engines.fingerprint)
        self._tenant = admitted.tenant_id
        self._priority = _PRIORITIES[admitted.lane]
        self._family = next(core.families)
        self._core = core
        self._questions = questions
        self._learned = learned
        self._on_done = on_done
        self._log_ids = log_ids(self.batch_id, self.id, is_traced=admitted.attempt_span is not None)
        self._meter = Meter(self.id)
        self._spans = None if admitted.attempt_span is None else SpanRecorder(self.id, admitted.attempt_span, on_span)
        self._made: Made | None = None
        self._error: BaseException | None = None
        self._is_done = False
        self._client: EngineClient | None = None
        self._task: asyncio.Task[None] | None = None
        self._grammar: object = None  # held, so that it stays compiled
        sampling = self._request["sampling"]
        self.tree = SearchTree.fold(
            self._stage.seed(root_seed(self.id, sampling.get("seed"))),
            self._stage.deltas,
            keep=job_request.kept_logprobs(self._request),
        )
        self._meter.first_token_ms = self.tree.counts.get("first_token_ms")
        self._meter.first_visible_token_ms = self.tree.counts.get("first_visible_token_ms")
        self.search: Search | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def end(self, reason: str) -> None:
        """Makes the job settle with what there is."""
        if self.search is not None:
            self._guard(lambda: self.search.end(reason) if self.search is not None else None)
        elif self.tree.ended is None:
            self.tree.end(reason)

    def drop(self) -> None:
        """Stops the job. `on_done` is not called."""
        self._is_done = True
        self._release()

    def look(self) -> None:
        """Lets the search act on what its streams have brought. Must be called after every step."""
        if self.search is not None:
            self._guard(self.search.expander.look)
            self._guard(self._reconsider)
        if self._spans is not None:
            self._spans.look(self._meter.cached_tokens)

    def close_spans(self) -> None:
        """Ends the spans that are open, because the process exits."""
        if self._spans is not None:
            self._spans.close()

    def delta(self) -> Document | None:
        if self.search is not None:
            self.search.expander.streams.sync_all()
        self._count()
        delta = self.tree.delta()
        return None if delta is None else self._stage.marked(delta)

    def last_delta(self) -> Document:
        """Returns the last delta of a step that is over, with its result and the number of the step that follows."""
        delta = self.delta() or self._stage.marked({"nodes": []})
        return delta | {"result": asdict(self._result()), "next": self._next}

    @property
    def next_stage(self) -> Pin | None:
        """The weights of the model that the job goes on with; None if it is to settle."""
        return None if self._next is None else self._stage.steps[self._next]

    @property
    def _next(self) -> int | None:
        """The number of the step that follows this one."""
        if self.tree.ended is not None or not self._stage.has_room(self.tree.num_tokens):
            return None
        decisions = self.tree.decisions
        is_refused = decisions.get(routing.DECISION, {}).get("skipped", False)
        accepted = decisions.get(acceptance.DECISION, {}).get("accepted", False if is_refused else None)
        if self._error is not None and accepted is None and self._decides:
            # Nobody is asked in its place. What a former stage answered counts.
            return self._stage.after(True) if self._stage.is_answered else None
        return self._stage.after(accepted)

    @property
    def _decides(self) -> bool:
        """Whether nothing can follow this step if it fails, unless another model solves the problem."""
        return self._stage.task in ("solve", "accept")

    def result(self) -> JobResult:
        """Returns the job's result. Its tree is complete, so that no deltas are needed beside it."""
        return self._stage.whole_result(self._result(), self.tree.ended)

    def _result(self) -> JobResult:
        """Returns the result of the stage that ran here."""
        self._count()
        made = self._made
        return JobResult(
            job_id=self.id,
            error=None if self._error is None else job_error(self._error),
            finish_reason=made.finish_reason if made else None,
            choices=self._choices(made) if made else (),
            usage=self._usage(),
            tree=self._stage.document(as_document(self.tree, self.search, made), dict(self.tree.decisions)),
            learned=self._lessons(),
            first_token_ms=self.tree.counts.get("first_token_ms"),
            first_visible_token_ms=self.tree.counts.get("first_visible_token_ms"),
            ended_ms=self._core.now_ms,
            judged=self.tree.decisions.get(judging.DECISION, {}).get("passed"),
        )

    def _choices(self, made: Made) -> tuple[Choice, ...]:
        return as_choices(
            made,
            self._core.engines.generator.tokenizer,
            is_chat="prompt" not in self._request,
            has_logprobs=bool(self._request["sampling"].get("logprobs")),
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
            judge_tokens=self.tree.num_judge_tokens,
        )

    def _is_skipped(self) -> bool:
        """Decides whether this stage of a cascade is left out, before anything is computed for it.

        A job that was told to end skips no stage, because no other one will run.
        """
        if self._stage.is_last or not self._stage.is_routed or self.tree.ended is not None:
            return False
        if routing.DECISION not in self.tree.decisions:
            route = self._route(routing.groups(self._request), _ROUTE_ORDINAL)
            self.tree.decide(routing.DECISION, route.document())
        return bool(self.tree.decisions[routing.DECISION]["skipped"])

    def _reconsider(self) -> None:
        """Ends this stage of a cascade early where answers that begin as unsurely were not accepted."""
        told = self.tree.decisions.get(routing.DECISION)
        first = self.tree.child(self.tree.root, 0)
        if self.search is None or told is None or "confidence" in told or first is None or self.tree.ended is not None:
            return
        self.search.expander.streams.sync(first)
        if len(first.ids) < routing.FIRST_TOKENS:
            return
        confidence = math.exp(first.logprob / len(first.ids))
        route = self._route(routing.with_confidence(routing.groups(self._request), confidence), _ROUTE_ORDINAL - 1)
        self.tree.decide(routing.DECISION, route.document() | {"confidence": confidence})
        if route.skipped:
            self.search.expander.abandon("routed")
            self._finish()

    def _route(self, groups: Sequence[str], ordinal: int) -> routing.Route:
        here = self._learned.of(self.batch_id, self._scope)
        there = self._learned.of(self.batch_id, self._stage.scope(self._core.engines.fingerprint, ahead=1))
        return routing.choose(here, there, groups, Random(child_seed(self.tree.root.seed, ordinal)))  # noqa: S311

    def _lessons(self) -> Sums:
        """Returns none for a search that failed or was told to end, because it did not spend as it would have."""
        if self.search is None or self.tree.ended is not None:
            return {}
        lessons = self.search.lessons | (self._routing_lessons() if self._stage.teaches else {})
        return {f"{self._scope}{name}": number for name, number in lessons.items()}

    def _routing_lessons(self) -> Sums:
        """Returns what is learnt about skipping this stage of a cascade, or the one that is judged here."""
        stage, decisions = self._stage, self.tree.decisions
        accepted = decisions.get(acceptance.DECISION, {}).get("accepted")
        if stage.task == "accept":
            groups = self._groups(stage.made.tree["decisions"])
            return routing.late_lessons(groups, is_accepted=bool(accepted), work=self._work())
        if self._made is None:
            return {}
        is_accepted = not stage.is_judged_elsewhere if accepted is None else accepted
        return routing.lessons(self._groups(decisions), is_accepted=is_accepted, work=self._work())

    def _groups(self, decisions: Document) -> Sequence[str]:
        """Returns the groups of the problem. decisions: those of the stage that is a lesson for them."""
        confidence = decisions.get(routing.DECISION, {}).get("confidence")
        groups = routing.groups(self._request)
        return groups if confidence is None else routing.with_confidence(groups, confidence)

    def _work(self) -> float:
        """Returns the operations of everything that was computed for this stage once."""
        usage, engines = self._usage(), self._core.engines
        num_tokens = sum(len(node.ids) for node in self.tree.nodes)
        work = float(num_tokens * engines.generator.flops_per_token)
        return work + usage.reward_tokens * (engines.reward.flops_per_token if engines.reward is not None else 0)

    async def _run(self) -> None:
        try:
            if self._stage.task != "solve":
                await self._judge()
                self._finish()
                return
            if self._is_skipped():
                self._finish()
                return
            spec = STRATEGY.validate_python(self._request["strategy"])
            max_rounds = int(self._request.get("max_rounds") or 1)
            if spec.needs_verifier or max_rounds > 1:
                job_request.check_verifier(self._request)
            prompt = job_request.prompt(self._request)
            if not self.tree.root.ids:
                self.tree.root.ids += await self._core.prompts.make(prompt)
            structure = job_request.structure(self._request, self._core.engines.thought, self.tree.root.ids)
            if structure is not None:
                self._grammar = await asyncio.to_thread(self._core.engines.generator.compile, structure.grammar)
            self.search = search = self._open(prompt, spec.uses_scores or self._stage.needs_score, structure)
            ranked = await strategies.run(search, spec, max_rounds)
            if self._spans is not None:
                self._spans.end_round()
            self._made = self._choose(search, ranked)
            if (rule := self._stage.accept) is not None:
                await acceptance.decide(search, rule, ranked, self._stage.calibration)
            if self.next_stage is None and self._stage.verifies(is_complete=ranked[0].is_complete):
                await self._verify(search, prompt.begun + ranked[0].said)
        except asyncio.CancelledError:
            return
        except Exception as error:
            self._fail(error)
            return
        self._finish()

    async def _judge(self) -> None:
        """Judges what another model made in a step before this one."""
        stage, prompt = self._stage, job_request.prompt(self._request)
        self.search = search = self._open(prompt, scores=False, structure=None)
        choices = stage.made.choices
        texts = [choice.text for choice in choices]
        is_whole = [choice.finish_reason == "stop" for choice in choices]
        if stage.task == "select":
            votes = [choice.answer if whole else None for choice, whole in zip(choices, is_whole, strict=True)]
            shown = [place for place, text in enumerate(texts) if is_whole[place] and text.strip()]
            await select(search, stage.selection, texts, votes, shown)
        elif stage.task == "verify":
            await self._verify(search, prompt.begun + texts[0])
        elif isinstance(rule := stage.accept, AcceptByJudge):
            await acceptance.judge(search, rule, texts[0] if is_whole[0] else "")

    async def _verify(self, search: Search, answer: str) -> None:
        if (judge := job_request.judge(self._request)) is not None:
            end_span = None if self._spans is None else self._spans.begin_verification()
            await judging.decide(search, judge, search.engine.problem, answer, self._request.get("reference"))
            if end_span is not None:
                end_span(search.tree.decisions[judging.DECISION]["passed"])

    def _open(self, prompt: Prompt, scores: bool, structure: Structure | None) -> Search:
        engines, request = self._core.engines, self._request
        room = job_request.room(engines, len(self.tree.root.ids), scores=scores)
        budget = job_request.budget(request, thinks=engines.thought is not None)
        self._client = EngineClient(
            self._core,
            job_request.sampling(request, engines.defaults, structure),
            thought=job_request.thought(request, engines),
            prompt=prompt,
            salt=self._tenant.encode(),
            meter=self._meter,
            priority=self._priority,
            family=self._family,
            guard=self._guard,
            questions=self._questions,
            no_verifier=job_request.no_verifier(request),
            # What turns out not to be needed costs dollars, and takes time from the job's other sequences.
            may_waste=budget.dollars is None and budget.deadline_s is None,
            spans=self._spans,
        )
        caps = [cap for cap in (budget.tokens_per_sample, request["sampling"].get("max_tokens")) if cap is not None]
        return Search(
            self.tree,
            self._client,
            SearchLimits(budget.tokens, min(caps) if caps else None, room, budget.thinking_tokens),
            num_choices=int(request.get("n") or 1),
            answer_of=job_request.answer_of(request, prompt.begun),
            learned=partial(self._learned.of, self.batch_id, self._scope),
            # A score at a mark judges all steps up to it; a likelihood is that of its own step.
            aggregate="last" if isinstance(engines.reward_kind, Mark) else "product",
            on_round=None if self._spans is None else self._spans.begin_round,
        )

    def _choose(self, search: Search, ranked: list[Candidate]) -> Made:
        if not ranked:
            raise NothingMade(f"the search ended before it had made anything: {self.tree.ended or 'budget'}")
        return Made(
            tuple(ranked),
            len(ranked) if self._stage.is_selected_elsewhere else search.num_choices,
            self.tree.ended or ("budget" if search.expander.has_refused_samples else None),
        )

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
            _log.error("job_broke", **self._log_ids, exc_info=error)
        elif self._decides and not self._stage.is_last:
            self.tree.decide(acceptance.DECISION, {"accepted": False, "error": job_error(error).code})
        self._finish()

    def _finish(self) -> None:
        if self._is_done:
            return
        self._is_done = True
        self._release()
        self._on_done(self)

    def _release(self) -> None:
        self.close_spans()
        self._questions.drop(self.id)
        if self.search is not None:
            self.search.expander.streams.sync_all()
            self.search.expander.close()
        if self._client is not None:
            self._client.cancel_scores()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def _count(self) -> None:
        meter = self._meter
        self.tree.count("recomputed_tokens", meter.recomputed_tokens)
        self.tree.count("reward_tokens", meter.reward_tokens)
        if meter.cached_tokens and "cached_tokens" not in self.tree.counts:
            self.tree.count("cached_tokens", min(meter.cached_tokens, len(self.tree.root.ids)))
        meter.recomputed_tokens = meter.reward_tokens = 0
        for name in ("first_token_ms", "first_visible_token_ms"):
            if name not in self.tree.counts:
                self.tree.count(name, getattr(meter, name) or 0)
