"""Chooses the verifier of a line, and checks that it can judge and may drive the search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ponder.domain.batch.endpoint import AnyBody
from ponder.domain.batch.options import LineOptions
from ponder.domain.batch.terms import ServedModel, Terms
from ponder.domain.storable import JsonObject
from ponder.domain.strategy import AcceptByJudge, AnyStrategy, Cascade, Judging
from ponder.domain.verifier import JsonSchema, Judge, Math, Verifier, why_not_asked
from ponder.domain.verifier_check import check_limited_schema, check_verifier
from ponder.errors import InvalidInput

_MATH = Math()


@dataclass(frozen=True, slots=True)
class Verification:
    verifier: Verifier | None
    reference: str | None
    oracle: bool
    max_rounds: int

    @classmethod
    def of(cls, body: AnyBody, own: LineOptions, terms: Terms, models: Sequence[ServedModel]) -> Verification:
        """Merges the options field by field, the line's before its batch's. Raises InvalidInput.

        models: those that answer, one for each stage of a cascade.
        """
        batch = terms.options
        reference = own.reference if own.reference is not None else batch.reference
        made = cls(
            verifier=_verifier(body, own, batch.verifier, reference),
            reference=reference,
            oracle=bool(batch.oracle if own.oracle is None else own.oracle),
            max_rounds=own.max_rounds or batch.max_rounds or 1,
        )
        _check_own(body, own, terms)
        made._check_reference()
        made._check_code(terms)
        strategy = own.strategy or terms.strategy
        made._check_asking(strategy)
        made._check_judges(strategy, models)
        return made

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
                f"{self.verifier.name} runs programs that a model wrote, which the operator does not allow "
                "(PONDER_ALLOW_CODE)",
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

    def _check_judges(self, strategy: AnyStrategy, models: Sequence[ServedModel]) -> None:
        """Refuses judges that cannot be asked, and one that would count the success of what it has driven."""
        drivers = list(_drivers(strategy, models))
        for path, judging, model in drivers:
            _check_judge(judging, model, f"body.ponder.strategy.{path}.model")
        counter = self.verifier
        if not isinstance(counter, Judge):
            return
        for model in models:
            _check_judge(counter, model, "body.ponder.verifier.model")
        if counter.use_reference and self.reference is None:
            raise InvalidInput(
                "the judge is to see the reference, and there is none: give one, or leave out use_reference",
                param="body.ponder.verifier.use_reference",
                code="no_reference",
            )
        for path, judging, model in drivers:
            is_same_model = (judging.model or model.name) == (counter.model or model.name)
            if is_same_model and judging.template == counter.template:
                raise InvalidInput(
                    f"this judge also drives the search (strategy.{path}), and no judge counts the success of what it "
                    "has chosen: give one of them another template, or name another verifier",
                    param="body.ponder.verifier",
                    code="judge_drives",
                )


def _drivers(strategy: AnyStrategy, models: Sequence[ServedModel]) -> Iterator[tuple[str, Judging, ServedModel]]:
    """Yields the judges that drive a search: where each stands in the strategy, and the model that it judges."""
    if not isinstance(strategy, Cascade):
        if strategy.judging is not None:
            yield "judge", strategy.judging, models[0]
        return
    for number, (stage, model) in enumerate(zip(strategy.stages, models, strict=True)):
        if stage.strategy.judging is not None:
            yield f"stages[{number}].strategy.judge", stage.strategy.judging, model
        if isinstance(stage.accept, AcceptByJudge):
            yield f"stages[{number}].accept", stage.accept, model


def _check_judge(judging: Judging, model: ServedModel, param: str) -> None:
    """Refuses a judge that is not the model whose answers it reads."""
    if judging.model not in (None, model.name):
        raise InvalidInput(
            f"{judging.model} cannot judge the answers of {model.name} yet: leave out the judge's model",
            param=param,
            code="unsupported_judge",
        )


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
