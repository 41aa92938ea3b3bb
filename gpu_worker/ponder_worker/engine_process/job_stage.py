"""The step of a job that runs here, and what its former steps left behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain

from ponder.domain.batch.calibration import Calibration
from ponder.domain.batch.stages import Pin, Task, lesson_scope, next_step, pins, stage_request
from ponder.domain.strategy import ACCEPT, AcceptByReward, AnyAccept, BestOfN
from ponder.jobs.tick_report import Usage
from ponder_worker.answers.equality import canonical
from ponder_worker.protocol import RESULT, Document, JobResult, Sums
from ponder_worker.search import acceptance
from ponder_worker.search.strategies.best_of_n import DECISION as SELECT
from ponder_worker.search.tree.node import child_seed

_FIRST_STAGE_ORDINAL = 1 << 33
"""Ordinals from here on belong to no child: a later stage gets a seed that no node and no random number has."""
_NOT_ACCEPTED = "An answer so far, which may be wrong, is above. Solve the problem again, and check your work."


@dataclass(frozen=True, slots=True)
class JobStage:
    """One step of a job: a stage that solves its problem, or a judgement of what a stage made. Most jobs have a single
    step, whose request and result are the job's.

    whole: the job's request. former: the results of the steps before it. deltas: the saved tree of this step. number:
    its place among the steps.
    """

    whole: Document
    former: tuple[JobResult, ...]
    deltas: tuple[Document, ...]
    number: int = 0

    @classmethod
    def of(cls, request: Document, deltas: Iterable[Document]) -> JobStage:
        """Reads a job's deltas. The last one of each former step holds its result. Raises pydantic's errors."""
        former: list[JobResult] = []
        own: list[Document] = []
        number = 0
        for delta in deltas:
            own.append(delta)
            if "result" in delta:
                result = RESULT.validate_python(delta["result"])
                # Earlier workers wrote none of this: each step of theirs was a stage.
                about = {"step": number, "stage": number, "task": "solve"}
                former.append(replace(result, tree=about | result.tree))
                number = delta.get("next", number + 1)
                own = []
        return cls(request, tuple(former), tuple(own), number)

    @property
    def steps(self) -> Sequence[Pin]:
        """The weights of all steps; none for a job that has a single one."""
        return pins(self.whole)

    @property
    def task(self) -> Task:
        return self.steps[self.number].task if self.steps else "solve"

    def after(self, accepted: bool | None) -> int | None:
        """Returns the number of the step that follows this one; None if the job is to settle (see `next_step`)."""
        return next_step(self.steps, self.number, accepted) if self.steps else None

    @property
    def is_last(self) -> bool:
        """Whether no other model would be asked to solve the problem."""
        return self.after(False) is None

    @property
    def accept(self) -> AnyAccept | None:
        """The condition under which the answer of this stage is good enough, if this step decides that. The answer of
        the last stage always is.
        """
        if self.is_last or self.is_judged_elsewhere:
            return None
        stage = self.whole["strategy"]["stages"][self._stage]
        return ACCEPT.validate_python(stage["accept"])

    @property
    def is_judged_elsewhere(self) -> bool:
        """Whether another step decides if the answer of this stage is good enough."""
        return self._is_followed_by("accept")

    @property
    def is_selected_elsewhere(self) -> bool:
        """Whether another step chooses among the candidates of this stage."""
        return self._is_followed_by("select")

    def verifies(self, *, is_complete: bool) -> bool:
        """Returns whether the model of this stage counts the job's success: the answer is its own, and no other step
        does. An answer that was cut off is the job's only if no former one is complete.
        """
        former = _answering(self.former)
        is_own = is_complete or former is None or self.former[former].choices[0].finish_reason != "stop"
        return is_own and not any(step.task == "verify" for step in self.steps)

    @property
    def is_answered(self) -> bool:
        """Whether a step before this one has made an answer."""
        return any(result.choices for result in self.former)

    @property
    def selection(self) -> BestOfN:
        """The strategy of this stage, whose judge chooses among its candidates."""
        return BestOfN.model_validate(stage_request(self.whole, self._stage)["strategy"])

    @property
    def needs_score(self) -> bool:
        """Whether the reward model reads the answer of this stage, whatever the stage's strategy does."""
        return isinstance(self.accept, AcceptByReward)

    @property
    def calibration(self) -> Calibration | None:
        """The worth of the reward model's probabilities, if it was measured."""
        document = self.steps[self.number].calibration
        return None if document is None else Calibration.read(document)

    @property
    def request(self) -> Document:
        """The request of this step alone."""
        if not self.steps:
            return self.whole
        request = stage_request(self.whole, self._stage, num_used=self._num_used)
        if self.task != "solve":
            return request
        if self.is_selected_elsewhere:
            request["strategy"] = request["strategy"] | {"select": "majority", "judge": None}
        if self.whole["strategy"].get("show_tried") and (tried := self._tried) is not None:
            request |= _shown(request, tried)
        return request

    @property
    def made(self) -> JobResult:
        """The result that this judgement is about: that of its stage, or of the one that gives the job's answer."""
        results = _selected(self.former)
        answered_by = _answering(results)
        if self.task == "verify" and answered_by is not None:
            return results[answered_by]
        return [result for result in results if result.tree["stage"] == self._stage and _solves(result)][-1]

    def has_room(self, num_tokens: int) -> bool:
        """Returns whether the job's budget leaves tokens for another step after this one has made so many."""
        limit = (self.whole.get("budget") or {}).get("tokens")
        return limit is None or self._num_used + num_tokens < limit

    def seed(self, root_seed: int) -> int:
        """Returns the seed of this step's root: a step of the same model must not repeat the samples of another."""
        return child_seed(root_seed, _FIRST_STAGE_ORDINAL + self.number) if self.number else root_seed

    @property
    def teaches(self) -> bool:
        """Whether the batch learns from how the stages of a cascade fare; not where verdicts may see a reference."""
        return self._is_cascade and not self.whole.get("oracle")

    @property
    def is_routed(self) -> bool:
        """Whether a stage may be skipped."""
        return self._is_cascade and self.task == "solve" and bool(self.whole["strategy"].get("route", True))

    def scope(self, fingerprint: str, *, ahead: int = 0) -> str:
        """Returns the beginning of the names of sums that are about this stage of jobs like this, or a later one."""
        scope = f"{lesson_scope(self.whole, fingerprint)}:"
        return f"{scope}stage{self._stage + ahead}." if self._is_cascade else scope

    def marked(self, delta: Document) -> Document:
        """Returns a delta that says which step it belongs to."""
        return {"step": self.number, **delta} if self.steps else delta

    def document(self, tree: Document, decisions: Document) -> Document:
        """Returns the tree of this step as a part of the job's document."""
        if not self.steps:
            return tree | {"decisions": decisions} if decisions else tree
        pin = self.steps[self.number]
        about: Document = {"step": self.number, "stage": pin.stage, "task": pin.task, "model": pin.model}
        about["fingerprint"] = pin.fingerprint
        if pin.task == "solve":
            about["strategy"] = stage_request(self.whole, pin.stage)["strategy"]["name"]
        return about | tree | {"decisions": decisions}

    def whole_result(self, last: JobResult, ended: str | None) -> JobResult:
        """Returns the result of the job, of which this step is the last to run: one answer, one bill, all trees.

        The answer is that of the last stage that has a complete one, or else any. ended: what ended the search early.
        """
        if not self.steps:
            return last
        results = _selected((*self.former, last))
        answered_by = _answering(results)
        whole = replace(
            last,
            usage=_added(result.usage for result in results),
            tree={"stages": [result.tree for result in results], "answered_by": answered_by},
            learned=_united(result.learned for result in results) | self._confirmed(results, ended),
            first_token_ms=_first(result.first_token_ms for result in results),
            first_visible_token_ms=_first(result.first_visible_token_ms for result in results),
        )
        if answered_by is None:
            return whole
        answer = results[answered_by]
        reason = answer.finish_reason if answered_by == len(results) - 1 else ended or answer.finish_reason
        judged = last.judged if self.task == "verify" else answer.judged
        choices = answer.choices[: int(self.whole.get("n") or 1)]
        return replace(whole, error=None, choices=choices, finish_reason=reason, judged=judged)

    def _confirmed(self, results: Sequence[JobResult], ended: str | None) -> Sums:
        """Returns what the job teaches about the measures of its answers.

        An answer is right if a verifier said so that may be asked, or else if the last model found the same. No
        reference is looked at.
        """
        lessons: Sums = {}
        if not self.teaches:
            return lessons
        scope = lesson_scope(self.whole, "")
        solved = [result for result in results if _solves(result)]
        for result in solved:
            decision = result.tree["decisions"].get(acceptance.DECISION)
            is_right = _is_right(result, solved[-1])
            if decision is None or is_right is None or ended is not None:
                continue
            for name, value in acceptance.lessons(decision, is_right=is_right).items():
                lessons[f"{scope}:stage{result.tree['stage']}.{name}"] = value
        return lessons

    def _is_followed_by(self, task: Task) -> bool:
        return any(step.stage == self._stage and step.task == task for step in self.steps[self.number + 1 :])

    @property
    def _is_cascade(self) -> bool:
        return bool(self.steps) and "stages" in self.whole["strategy"]

    @property
    def _stage(self) -> int:
        """The number of the stage that this step solves or judges."""
        return self.steps[self.number].stage if self.steps else 0

    @property
    def _num_used(self) -> int:
        return sum(result.usage.completion_tokens for result in self.former)

    @property
    def _tried(self) -> str | None:
        texts = [result.choices[0].text for result in _selected(self.former) if result.choices]
        return texts[-1] if texts else None


def _shown(request: Document, tried: str) -> Document:
    """Returns the messages with the answer that was not accepted, and the request for a better one."""
    messages, template = list(request["messages"]), dict(request.get("template") or {})
    begun = ""
    if template.pop("continue_final_message", False):
        begun = str(messages.pop()["content"])
        template.pop("add_generation_prompt", None)
    said = {"role": "assistant", "content": f"{begun}{tried}"}
    return {"messages": [*messages, said, {"role": "user", "content": _NOT_ACCEPTED}], "template": template}


def _solves(result: JobResult) -> bool:
    return bool(result.tree["task"] == "solve")


def _selected(results: Sequence[JobResult]) -> list[JobResult]:
    """Returns the results of all steps, with the candidates of a stage in the order in which another model put them."""
    placed = list(results)
    for result in results:
        order = result.tree["decisions"].get(SELECT, {}).get("order")
        if order is None:
            continue
        stage = result.tree["stage"]
        place = next(place for place, one in enumerate(placed) if _solves(one) and one.tree["stage"] == stage)
        made = placed[place]
        candidates = [made.tree["candidates"][number] for number in order]
        choices = tuple(made.choices[number] for number in order)
        placed[place] = replace(made, choices=choices, tree={**made.tree, "candidates": candidates})
    return placed


def _answering(results: Sequence[JobResult]) -> int | None:
    answered = [number for number, result in enumerate(results) if result.choices]
    complete = [number for number in answered if results[number].choices[0].finish_reason == "stop"]
    return max(complete or answered, default=None)


def _is_right(result: JobResult, last: JobResult) -> bool | None:
    """Returns whether a stage's answer is right, None if nobody knows."""
    candidates = result.tree.get("candidates") or ()
    if candidates:
        passed: bool | None = result.tree["nodes"][candidates[0]["node"]].get("passed")
        if passed is not None:
            return passed
    if result is last or not last.choices or last.choices[0].finish_reason != "stop":
        return None
    if result.answer is None or last.answer is None:
        return False
    return canonical(result.answer) == canonical(last.answer)


def _added(usages: Iterable[Usage]) -> Usage:
    rows = list(usages)
    return Usage(**{field.name: sum(getattr(row, field.name) for row in rows) for field in fields(Usage)})


def _united(lessons: Iterable[Sums]) -> Sums:
    united: Sums = {}
    for name, value in chain.from_iterable(one.items() for one in lessons):
        united[name] = united.get(name, 0.0) + value
    return united


def _first(times: Iterable[int | None]) -> int | None:
    return min((time for time in times if time is not None), default=None)
