"""Chooses the verifier of a line, and checks that it can judge and may drive the search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ponder.domain.batch.endpoint import AnyBody
from ponder.domain.batch.options import LineOptions
from ponder.domain.batch.stages import Task
from ponder.domain.batch.terms import ServedModel, Terms
from ponder.domain.storable import JsonObject
from ponder.domain.strategy import AcceptByJudge, AnyStrategy, Cascade, Judging
from ponder.domain.verifier import JsonSchema, Judge, Math, Verifier, why_not_asked
from ponder.domain.verifier_check import check_limited_schema, check_verifier
from ponder.errors import InvalidInput

_MATH = Math()


@dataclass(frozen=True, slots=True)
class Driver:
    """A judge that drives a search.

    path: where it stands in the strategy. answers: the model whose answers it reads.
    """

    task: Task
    stage: int
    path: str
    judging: Judging
    answers: ServedModel
    model: ServedModel

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is another model than the one that answers, so that the job travels to its queue."""
        return self.model.fingerprint != self.answers.fingerprint


@dataclass(frozen=True, slots=True)
class Verification:
    """The verifier of a line, and the models that judge.

    verifier_model: that of the verifier `judge`, if it is asked in a step of its own.
    """

    verifier: Verifier | None
    reference: str | None
    oracle: bool
    max_rounds: int
    drivers: tuple[Driver, ...] = ()
    verifier_model: ServedModel | None = None

    @classmethod
    def of(cls, body: AnyBody, own: LineOptions, terms: Terms, models: Sequence[ServedModel]) -> Verification:
        """Merges the options field by field, the line's before its batch's. Raises InvalidInput.

        models: those that answer, one for each stage of a cascade.
        """
        batch = terms.options
        reference = own.reference if own.reference is not None else batch.reference
        strategy = own.strategy or terms.strategy
        verifier = _verifier(body, own, batch.verifier, reference)
        made = cls(
            verifier=verifier,
            reference=reference,
            oracle=bool(batch.oracle if own.oracle is None else own.oracle),
            max_rounds=own.max_rounds or batch.max_rounds or 1,
            drivers=tuple(_drivers(strategy, models, terms)),
            verifier_model=_verifier_model(verifier, models, terms),
        )
        _check_own(body, own, terms)
        made._check_reference()
        made._check_code(terms)
        made._check_asking(strategy)
        made._check_selection(strategy)
        made._check_judge(models)
        return made

    @property
    def elsewhere(self) -> tuple[ServedModel, ...]:
        """The models that judge what another one has made."""
        drivers = tuple(driver.model for driver in self.drivers if driver.is_elsewhere)
        return drivers if self.verifier_model is None else (*drivers, self.verifier_model)

    def document(self) -> JsonObject:
        return {
            "verifier": self.verifier.model_dump(by_alias=True) if self.verifier else None,
            "reference": self.reference,
            "oracle": self.oracle,
            "max_rounds": self.max_rounds,
        }

    def _check_reference(self) -> None:
        """Refuses a reference that no answer could be compared with, because its tokens would be wasted."""
        if self.verifier is None or self.reference is None:
            return
        lacks = self.verifier.why_unreadable(self.reference)
        if lacks is not None:
            raise InvalidInput(
                f"{self.verifier.name} cannot compare answers with this reference: {lacks}",
                param="body.ponder.reference",
                code="unreadable_reference",
            )

    def _check_code(self, terms: Terms) -> None:
        if self.verifier is not None and self.verifier.runs_code and not terms.allows_code:
            raise InvalidInput(
                f"{self.verifier.name} runs programs that a model wrote, which the operator does not allow: "
                "that takes `ponder up --allow-code`, or PONDER_ALLOW_CODE=true for dispatchers and workers",
                param="body.ponder.verifier",
                code="code_not_allowed",
            )

    def _check_asking(self, strategy: AnyStrategy) -> None:
        """Refuses a strategy or rounds that ask the verifier during the search without being allowed to."""
        if self.max_rounds == 1 and not strategy.needs_verifier:
            return
        reason = why_not_asked(self.verifier, has_reference=self.reference is not None, oracle=self.oracle)
        if reason is not None:
            field, asks = (
                ("strategy", f"{strategy.name} asks the verifier")
                if strategy.needs_verifier
                else ("max_rounds", f"max_rounds is {self.max_rounds}")
            )
            raise InvalidInput(f"{asks}, but {reason}", param=f"body.ponder.{field}", code="no_verifier")

    def _check_selection(self, strategy: AnyStrategy) -> None:
        """Refuses what would ask about an answer before another model has chosen it."""
        for driver in self.drivers:
            if driver.task != "select" or not driver.is_elsewhere:
                continue
            accept = strategy.stages[driver.stage].accept if isinstance(strategy, Cascade) else None
            if self.max_rounds > 1 or (accept is not None and not self._is_judged_elsewhere(driver.stage)):
                asked = "its rounds are verified" if accept is None else f"its answer is accepted by {accept.by}"
                raise InvalidInput(
                    f"{driver.model.name} chooses among the samples of {driver.answers.name} after they have ended, "
                    f"but {asked} before: leave out the judge's model, or let another model judge that too",
                    param=f"body.ponder.strategy.{driver.path}.model",
                    code="conflicting_judge",
                )

    def _is_judged_elsewhere(self, stage: int) -> bool:
        return any(one.task == "accept" and one.stage == stage and one.is_elsewhere for one in self.drivers)

    def _check_judge(self, models: Sequence[ServedModel]) -> None:
        """Refuses a judge that cannot be asked, or that would count the success of what it has driven."""
        judge = self.verifier
        if not isinstance(judge, Judge):
            return
        if judge.use_reference and self.reference is None:
            raise InvalidInput(
                "the judge is to see the reference, and there is none: give one, or leave out use_reference",
                param="body.ponder.verifier.use_reference",
                code="no_reference",
            )
        if judge.model is None and any(driver.is_elsewhere for driver in self.drivers):
            raise InvalidInput(
                "another model drives the search, so the job does not end where its answer was made: name the model of "
                "the verifier",
                param="body.ponder.verifier.model",
                code="no_judge",
            )
        counting = {model.fingerprint for model in ([self.verifier_model] if self.verifier_model else models)}
        for driver in self.drivers:
            if driver.model.fingerprint in counting and driver.judging.template == judge.template:
                raise InvalidInput(
                    f"this judge also drives the search (strategy.{driver.path}), and no judge counts the success of "
                    "what it has chosen: give one of them another template or model, or name another verifier",
                    param="body.ponder.verifier",
                    code="judge_drives",
                )


def _drivers(strategy: AnyStrategy, models: Sequence[ServedModel], terms: Terms) -> Iterator[Driver]:
    """Yields the judges that drive a search. Raises UnknownModel."""
    if isinstance(strategy, Cascade):
        stages = [(f"stages[{number}].strategy.judge", stage.strategy) for number, stage in enumerate(strategy.stages)]
        rules = [stage.accept for stage in strategy.stages]
    else:
        stages, rules = [("judge", strategy)], [None]
    for number, ((path, plain), rule, model) in enumerate(zip(stages, rules, models, strict=True)):
        if plain.judging is not None:
            judge = _judging_model(plain.judging, path, model, terms)
            yield Driver("select", number, path, plain.judging, model, judge)
        if isinstance(rule, AcceptByJudge):
            path = f"stages[{number}].accept"
            yield Driver("accept", number, path, rule, model, _judging_model(rule, path, model, terms))


def _judging_model(judging: Judging, path: str, answers: ServedModel, terms: Terms) -> ServedModel:
    return answers if judging.model is None else terms.served(judging.model, f"body.ponder.strategy.{path}.model")


def _verifier_model(verifier: Verifier | None, models: Sequence[ServedModel], terms: Terms) -> ServedModel | None:
    """Returns the model that counts success, unless each model that may answer does that itself."""
    if not isinstance(verifier, Judge) or verifier.model is None:
        return None
    model = terms.served(verifier.model, "body.ponder.verifier.model")
    return None if {one.fingerprint for one in models} == {model.fingerprint} else model


def _check_own(body: AnyBody, own: LineOptions, terms: Terms) -> None:
    """Checks the line's pattern and schemas. Those of its batch were checked at submission."""
    check_verifier(own.verifier, terms.limits, "body.ponder.verifier")
    schema = body.response_format.wanted_schema if body.response_format else None
    if schema is not None:
        check_limited_schema(schema, terms.limits, "body.response_format.json_schema.schema")


def _verifier(body: AnyBody, own: LineOptions, batchs: Verifier | None, reference: str | None) -> Verifier | None:
    """Returns the line's verifier, or its response format's, or the batch's, or `math` if there is a reference."""
    schema = body.response_format.wanted_schema if body.response_format else None
    if own.verifier and schema is not None and own.verifier.name != "json_schema":
        raise InvalidInput(
            "response_format is verified against its schema and cannot be combined with another verifier",
            param="body.ponder.verifier",
            code="conflicting_verifier",
        )
    if own.verifier:
        return own.verifier
    if schema is not None:
        return JsonSchema.model_validate({"schema": schema})
    return batchs or (_MATH if reference is not None else None)
