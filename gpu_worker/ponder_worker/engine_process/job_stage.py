"""The stage of a job that runs here, and what its former stages left behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

from ponder.domain.batch.calibration import Calibration
from ponder.domain.batch.stages import Pin, lesson_scope, pins, stage_request
from ponder.domain.strategy import ACCEPT, AcceptByReward, AnyAccept
from ponder.jobs.tick_report import Usage
from ponder_worker.answers.equality import canonical
from ponder_worker.protocol import RESULT, Document, JobResult, Sums
from ponder_worker.search import acceptance
from ponder_worker.search.tree.node import child_seed

_FIRST_STAGE_ORDINAL = 1 << 33
"""Ordinals from here on belong to no child: a later stage gets a seed that no node and no random number has."""
_NOT_ACCEPTED = "An answer so far, which may be wrong, is above. Solve the problem again, and check your work."


@dataclass(frozen=True, slots=True)
class JobStage:
    """One stage of a cascade. A job that is no cascade has a single one, which changes nothing.

    whole: the job's request. former: the results of the stages before it. deltas: the saved tree of this stage.
    """

    whole: Document
    former: tuple[JobResult, ...]
    deltas: tuple[Document, ...]

    @classmethod
    def of(cls, request: Document, deltas: Iterable[Document]) -> JobStage:
        """Reads a job's deltas. The last one of each former stage holds its result. Raises pydantic's errors."""
        former: list[JobResult] = []
        own: list[Document] = []
        for delta in deltas:
            own.append(delta)
            if "result" in delta:
                former.append(RESULT.validate_python(delta["result"]))
                own = []
        return cls(request, tuple(former), tuple(own))

    @property
    def number(self) -> int:
        return len(self.former)

    @property
    def pins(self) -> Sequence[Pin]:
        return pins(self.whole)

    @property
    def next(self) -> Pin | None:
        """The weights of the next stage; None for the last."""
        return next(iter(self.pins[self.number + 1 :]), None)

    @property
    def accept(self) -> AnyAccept | None:
        """The condition under which the answer of this stage is good enough; None for the last, which always is."""
        if self.next is None:
            return None
        return ACCEPT.validate_python(self.whole["strategy"]["stages"][self.number]["accept"])

    @property
    def needs_score(self) -> bool:
        """Whether the reward model reads the answer of this stage, whatever the stage's strategy does."""
        return isinstance(self.accept, AcceptByReward)

    @property
    def calibration(self) -> Calibration | None:
        """The worth of the reward model's probabilities, if it was measured."""
        document = self.pins[self.number].calibration
        return None if document is None else Calibration.read(document)

    @property
    def request(self) -> Document:
        """The request of this stage alone."""
        if not self.pins:
            return self.whole
        request = stage_request(self.whole, self.number, num_used=self._num_used)
        if self.whole["strategy"].get("show_tried") and (tried := self._tried) is not None:
            request |= _shown(request, tried)
        return request

    def has_room(self, num_tokens: int) -> bool:
        """Returns whether the job's budget leaves tokens for another stage after this one has made so many."""
        limit = (self.whole.get("budget") or {}).get("tokens")
        return limit is None or self._num_used + num_tokens < limit

    def seed(self, root_seed: int) -> int:
        """Returns the seed of this stage's root: a stage of the same model must not repeat the samples of another."""
        return child_seed(root_seed, _FIRST_STAGE_ORDINAL + self.number) if self.number else root_seed

    @property
    def teaches(self) -> bool:
        """Whether the batch learns from how the stages of a cascade fare; not where verdicts may see a reference."""
        return bool(self.pins) and not self.whole.get("oracle")

    @property
    def is_routed(self) -> bool:
        """Whether a stage may be skipped."""
        return bool(self.pins) and bool(self.whole["strategy"].get("route", True))

    def scope(self, fingerprint: str, *, ahead: int = 0) -> str:
        """Returns the beginning of the names of sums that are about this stage of jobs like this, or a later one."""
        scope = f"{lesson_scope(self.whole, fingerprint)}:"
        return f"{scope}stage{self.number + ahead}." if self.pins else scope

    def marked(self, delta: Document) -> Document:
        """Returns a delta that says which stage it belongs to."""
        return {"stage": self.number, **delta} if self.pins else delta

    def document(self, tree: Document, decisions: Document) -> Document:
        """Returns the tree of this stage as a part of the job's document."""
        if not self.pins:
            return tree | {"decisions": decisions} if decisions else tree
        pin, strategy = self.pins[self.number], self.whole["strategy"]["stages"][self.number]["strategy"]
        about = {"model": pin.model, "fingerprint": pin.fingerprint, "strategy": strategy["name"]}
        return about | tree | {"decisions": decisions}

    def whole_result(self, last: JobResult, ended: str | None) -> JobResult:
        """Returns the result of the job, of which this stage is the last to run: one answer, one bill, all trees.

        The answer is that of the last stage that has a complete one, or else any. ended: what ended the search early.
        """
        if not self.pins:
            return last
        results = (*self.former, last)
        answered_by = _answering(results)
        stages = [result.tree for result in results]
        whole = replace(
            last,
            usage=_added(result.usage for result in results),
            tree={"stages": stages, "answered_by": answered_by},
            learned=_united(result.learned for result in results) | self._confirmed(results, ended),
            first_token_ms=_first(result.first_token_ms for result in results),
            first_visible_token_ms=_first(result.first_visible_token_ms for result in results),
        )
        if answered_by is None:
            return whole
        answer = results[answered_by]
        reason = answer.finish_reason if answer is last else ended or answer.finish_reason
        return replace(whole, error=None, choices=answer.choices, finish_reason=reason, judged=answer.judged)

    def _confirmed(self, results: Sequence[JobResult], ended: str | None) -> Sums:
        """Returns what the job teaches about the measures of its answers.

        An answer is right if a verifier said so that may be asked, or else if the last model found the same. No
        reference is looked at.
        """
        lessons: Sums = {}
        if not self.teaches:
            return lessons
        scope = lesson_scope(self.whole, "")
        for number, result in enumerate(results):
            decision = result.tree.get("decisions", {}).get(acceptance.DECISION)
            is_right = _is_right(result, results[-1])
            if decision is None or is_right is None or ended is not None:
                continue
            for name, value in acceptance.lessons(decision, is_right=is_right).items():
                lessons[f"{scope}:stage{number}.{name}"] = value
        return lessons

    @property
    def _num_used(self) -> int:
        return sum(result.usage.completion_tokens for result in self.former)

    @property
    def _tried(self) -> str | None:
        texts = [result.choices[0].text for result in self.former if result.choices]
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
    return {name: value for one in lessons for name, value in one.items()}


def _first(times: Iterable[int | None]) -> int | None:
    return min((time for time in times if time is not None), default=None)
