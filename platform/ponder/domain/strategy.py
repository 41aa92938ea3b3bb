"""The search strategies a user may ask for. Each spec has the defaults of the CLI and the API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

Aggregate = Literal["last", "min", "product", "mean"]
"""The way to combine the scores of a path's steps, which are probabilities of being right."""

Select = Literal["best", "weighted", "majority", "tournament", "genselect"]
"""The way to choose among samples."""

EarlyStopping = Literal["beta", "window"]
"""The rule for stopping early. `beta`: with a probability of 0.95 more samples would not change the answer (Aggarwal et
al. 2023, arXiv:2305.11860). `window`: five samples in a row agree (Li et al. 2024, arXiv:2401.10480)."""


Group = Literal[
    "One answer",
    "Several answers and a choice",
    "A search guided by a reward model",
    "Checked and tried again",
    "As much as each problem needs",
]
"""The kinds of strategies, for lists of them, in the order in which somebody would try them."""


class Spec(BaseModel):
    """An immutable value. An unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Judging(Spec):
    """How a model judges: `n` replies of up to `max_tokens` vote. Without a `model` it is the one that answered.

    `template` is a question of one's own in place of the shipped one. Below it the judge is told how to end its reply.
    """

    placeholders: ClassVar[tuple[str, ...]] = ("problem", "answers")
    """The names that a template may have in braces. It must have the last one."""

    model: str | None = Field(default=None, min_length=1, max_length=256)
    template: str | None = Field(default=None, min_length=1, max_length=20_000)
    n: int = Field(default=1, ge=1, le=64)
    max_tokens: int = Field(default=512, ge=1, le=65536)

    @field_validator("template")
    @classmethod
    def _names_what_there_is(cls, template: str | None) -> str | None:
        if template is None:
            return None
        named, known = PLACEHOLDER.findall(template), ", ".join(f"{{{name}}}" for name in cls.placeholders)
        for name in named:
            if name not in cls.placeholders:
                told = {"name": f"{{{name}}}", "known": known}
                raise PydanticCustomError("template", "{name} is no placeholder; those here are {known}", told)
        if cls.placeholders[-1] not in named:
            least = {"name": f"{{{cls.placeholders[-1]}}}"}
            raise PydanticCustomError("template", "it must say with {name} where to put what is judged", least)
        return template


PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
"""A name in braces in a template."""


class StrategySpec(Spec):
    """The questions that every strategy can answer about itself.

    A strategy that can be named has a `title` and belongs to a `group`. `use` and `cost` are a sentence each, on when
    to take it and what it takes.
    """

    title: ClassVar[str]
    group: ClassVar[Group]
    use: ClassVar[str]
    cost: ClassVar[str]

    @property
    def num_candidates(self) -> int | None:
        """The most candidates it makes, or None for as many as the request asks for."""
        return getattr(self, "n", None)

    @property
    def needs_scores(self) -> bool:
        """Whether it cannot do without a reward model."""
        return True

    @property
    def uses_scores(self) -> bool:
        """Whether it asks a reward model where there is one."""
        return self.needs_scores

    @property
    def needs_verifier(self) -> bool:
        """Whether it asks the job's verifier while it runs."""
        return False

    @property
    def needs_turns(self) -> bool:
        """Whether it goes on with the conversation."""
        return False

    @property
    def judging(self) -> Judging | None:
        """How a model judges the candidates, if one chooses among them."""
        return None


class Direct(StrategySpec):
    """One sample per choice: the baseline for every other strategy."""

    title: ClassVar[str] = "One sample"
    group: ClassVar[Group] = "One answer"
    use: ClassVar[str] = "For easy problems, and as the baseline for everything else."
    cost: ClassVar[str] = "One sample for each problem: the least there is."

    name: Literal["direct"] = "direct"

    @property
    def needs_scores(self) -> bool:
        return False


class Confidence(Spec):
    """The use of a sample's confidence in itself: the lowest geometric mean of the probabilities of any `window` tokens
    in a row that it consists of (DeepConf: Fu et al. 2025, arXiv:2508.15260).

    Votes are weighted by it, and only the share `keep` of the most confident samples has a vote. After `num_warmup`
    whole samples, a sample is stopped as soon as it is less confident than the share `keep` of those was.
    """

    keep: float = Field(default=0.9, gt=0, le=1)
    window: int = Field(default=2048, ge=1, le=65536)
    num_warmup: int = Field(default=16, ge=1, le=1024)


class SampleSpec(StrategySpec):
    """A choice among n whole samples. If only the `shortest` samples are to choose from, the others are cut off as soon
    as so many have ended (short-m@k: Hassid et al. 2025, arXiv:2505.17813).
    """

    n: int = Field(default=8, ge=1, le=1024)
    early_stopping: EarlyStopping | None = "beta"
    shortest: int | None = Field(default=None, ge=1, le=1024)
    confidence: Confidence | None = None

    @model_validator(mode="after")
    def _check_shortest(self) -> Self:
        if self.shortest is not None and self.shortest > self.n:
            raise ValueError(f"shortest is {self.shortest}; it must be at most n, {self.n}")
        if self.shortest is not None and self.confidence is not None:
            raise ValueError("shortest needs all samples at once, and confidence the first of them before the others")
        return self


class SelfConsistency(SampleSpec):
    """The majority among the canonical answers of n samples (Wang et al. 2022, arXiv:2203.11171)."""

    title: ClassVar[str] = "Majority vote"
    group: ClassVar[Group] = "Several answers and a choice"
    use: ClassVar[str] = "For problems with a short answer that can be compared, such as a number."
    cost: ClassVar[str] = "Up to n samples, fewer where they agree early."

    name: Literal["self_consistency"] = "self_consistency"

    @property
    def needs_scores(self) -> bool:
        return False


class BestOfN(SampleSpec):
    """The best of n samples, each scored by the reward model (Cobbe et al. 2021, arXiv:2110.14168).

    `best` takes the highest score, `weighted` the highest sum of scores per answer, `majority` the most frequent one.
    Without a reward model, a `judge` compares two at a time in a knockout `tournament`, or chooses among all at once
    (`genselect`, Toshniwal et al. 2025, arXiv:2507.17797).
    """

    title: ClassVar[str] = "Best of n"
    group: ClassVar[Group] = "Several answers and a choice"
    use: ClassVar[str] = "Where a reward model or a judge can tell a good answer from a poor one."
    cost: ClassVar[str] = "Up to n samples, and a score for each."

    name: Literal["best_of_n"] = "best_of_n"
    select: Select = "best"
    judge: Judging | None = None

    @field_validator("judge")
    @classmethod
    def _is_asked(cls, judge: Judging | None, info: ValidationInfo) -> Judging | None:
        if judge is not None and info.data.get("select") not in ("tournament", "genselect"):
            raise PydanticCustomError(
                "judge", "no judge is asked here: leave it out, or select tournament or genselect"
            )
        return judge

    @property
    def needs_scores(self) -> bool:
        return self.select in ("best", "weighted")

    @property
    def judging(self) -> Judging | None:
        return (self.judge or Judging()) if self.select in ("tournament", "genselect") else None


class StepSearch(StrategySpec):
    """A search over steps that a reward model scores.

    By default `aggregate` is the reward model's own way: `product` if a score is a likelihood, else `last`.
    """

    n: int = Field(default=4, ge=1, le=256)
    max_rounds: int = Field(default=40, ge=1, le=400)
    separator: str = Field(default="\n", min_length=1, max_length=16)
    aggregate: Aggregate | None = None


class BeamSearch(StepSearch):
    """Reward-guided search over steps (Snell et al. 2024, arXiv:2408.03314).

    It keeps n paths. Each round every active path grows by one step, all are scored, and the best n / width survive and
    are copied to n again.
    """

    title: ClassVar[str] = "Beam search"
    group: ClassVar[Group] = "A search guided by a reward model"
    use: ClassVar[str] = "For long solutions that go wrong at single steps."
    cost: ClassVar[str] = "n paths side by side, and a score for every step."

    name: Literal["beam_search"] = "beam_search"
    width: int = Field(default=4, ge=1, le=64)


class Dvts(StepSearch):
    """Diverse verifier tree search: n / width independent subtrees, each keeps the best of `width` continuations
    (Beeching et al. 2024, https://huggingface.co/spaces/HuggingFaceH4/blogpost-scaling-test-time-compute).
    """

    title: ClassVar[str] = "Diverse beam search"
    group: ClassVar[Group] = "A search guided by a reward model"
    use: ClassVar[str] = "Like a beam search, where all of its paths become alike."
    cost: ClassVar[str] = "n paths side by side, and a score for every step."

    name: Literal["dvts"] = "dvts"
    n: int = Field(default=8, ge=1, le=256)
    width: int = Field(default=4, ge=1, le=64)


class Rebase(StepSearch):
    """Reward-balanced search: each round n expansions, less those that are finished, are shared among the paths in
    proportion to exp(score / temperature) (Wu et al. 2024, arXiv:2408.00724).
    """

    title: ClassVar[str] = "Reward-balanced search"
    group: ClassVar[Group] = "A search guided by a reward model"
    use: ClassVar[str] = "Like a beam search, where a weak beginning can still turn out well."
    cost: ClassVar[str] = "n paths side by side, and a score for every step."

    name: Literal["rebase"] = "rebase"
    n: int = Field(default=8, ge=1, le=256)
    temperature: float = Field(default=0.2, gt=0, le=100)


class Mcts(StepSearch):
    """Monte Carlo tree search over steps, chosen by PUCT, with the reward model as value instead of rollouts
    (Zhang et al. 2024, arXiv:2406.03816; PUCT: Silver et al. 2017, arXiv:1712.01815).

    Each of the n simulations expands a leaf by `width` steps.
    """

    title: ClassVar[str] = "Monte Carlo tree search"
    group: ClassVar[Group] = "A search guided by a reward model"
    use: ClassVar[str] = "For the hardest problems, where many different steps are worth a try."
    cost: ClassVar[str] = "n times width steps, each with a score: among the dearest."

    name: Literal["mcts"] = "mcts"
    n: int = Field(default=16, ge=1, le=1024)
    width: int = Field(default=4, ge=1, le=64)
    exploration: float = Field(default=1.0, ge=0, le=100)


class ParticleFilter(StepSearch):
    """A particle filter: n particles, resampled after every step in proportion to their scores to the power of
    1 / temperature (Puri et al. 2025, arXiv:2502.01618).
    """

    title: ClassVar[str] = "Particle filter"
    group: ClassVar[Group] = "A search guided by a reward model"
    use: ClassVar[str] = "Where the scores are too noisy to keep the best paths only."
    cost: ClassVar[str] = "n paths side by side, and a score for every step."

    name: Literal["particle_filter"] = "particle_filter"
    n: int = Field(default=8, ge=1, le=256)
    temperature: float = Field(default=1.0, gt=0, le=100)


class AbMcts(StrategySpec):
    """Adaptive branching Monte Carlo tree search over whole answers: each of the n answers is a new one, or the
    refinement of an earlier one in a further turn that says `refine`, as Thompson sampling over the reward model's
    scores decides (AB-MCTS-A: Inoue et al. 2025, arXiv:2503.04412).
    """

    title: ClassVar[str] = "New answers or better ones"
    group: ClassVar[Group] = "A search guided by a reward model"
    use: ClassVar[str] = "Where a model can improve on its own answers, and a reward model notices."
    cost: ClassVar[str] = "n whole answers with a score each; later ones read earlier ones."

    name: Literal["ab_mcts"] = "ab_mcts"
    n: int = Field(default=8, ge=1, le=256)
    refine: str = Field(
        default="Check each step of that answer. Then give the best answer that you can.", min_length=1, max_length=1024
    )

    @property
    def needs_turns(self) -> bool:
        return True


class Refine(StrategySpec):
    """Up to n tries in one conversation: an answer that fails verification is tried again with the verifier's feedback
    (Madaan et al. 2023, arXiv:2303.17651; with an external verifier: Huang et al. 2023, arXiv:2310.01798).
    """

    title: ClassVar[str] = "Retry with feedback"
    group: ClassVar[Group] = "Checked and tried again"
    use: ClassVar[str] = "Where a verifier that needs no reference answer can say what is wrong."
    cost: ClassVar[str] = "One answer where the first one passes, at most n."

    name: Literal["refine"] = "refine"
    n: int = Field(default=3, ge=1, le=64)

    @property
    def needs_scores(self) -> bool:
        return False

    @property
    def needs_verifier(self) -> bool:
        return True

    @property
    def needs_turns(self) -> bool:
        return True


class BudgetForcing(StrategySpec):
    """One sample whose thinking is continued `num_waits` times by `wait`, and closed at the limit of thinking tokens
    (Muennighoff et al. 2025, arXiv:2501.19393). A model without thinking marks has its end put off instead, and is made
    to answer by `answer`.
    """

    title: ClassVar[str] = "Longer thinking"
    group: ClassVar[Group] = "One answer"
    use: ClassVar[str] = "For a model that thinks, and stops too early."
    cost: ClassVar[str] = "One sample, made longer by every wait."

    name: Literal["budget_forcing"] = "budget_forcing"
    num_waits: int = Field(default=1, ge=0, le=64)
    wait: str = Field(default="Wait", min_length=1, max_length=256)
    answer: str = Field(default="\nFinal Answer:", min_length=1, max_length=256)

    @property
    def needs_scores(self) -> bool:
        return False


class AnswerProbing(StrategySpec):
    """One sample whose thinking ends as soon as its answer has settled (Certaindex: Fu et al. 2024, arXiv:2412.20993).

    Every `every` tokens `probe` is put behind the unfinished thought, and the model says its answer in at most
    `probe_tokens` tokens, which are then left out. After `num_equal` equal answers the thought is closed. A model
    without thinking marks is made to answer by `answer` instead.
    """

    title: ClassVar[str] = "Shorter thinking"
    group: ClassVar[Group] = "One answer"
    use: ClassVar[str] = "For a model that thinks on after it knows the answer."
    cost: ClassVar[str] = "Less than one whole sample, and short probes of its answer."

    name: Literal["answer_probing"] = "answer_probing"
    every: int = Field(default=256, ge=1, le=65536)
    num_equal: int = Field(default=3, ge=2, le=64)
    probe: str = Field(default="\nFinal Answer:", min_length=1, max_length=256)
    probe_tokens: int = Field(default=32, ge=1, le=1024)
    answer: str = Field(default="\nFinal Answer:", min_length=1, max_length=256)

    @property
    def needs_scores(self) -> bool:
        return False


class Adaptive(StrategySpec):
    """Adaptive allocation: probes tell how hard a job is, and earlier jobs of the batch how much more to spend on it,
    up to n samples, sure paths or particles. Without a reward model it goes by the agreement of answers.

    `worth` is the price of one more solved task, in multiples of the average; a higher one buys more accuracy.
    """

    title: ClassVar[str] = "Adaptive"
    group: ClassVar[Group] = "As much as each problem needs"
    use: ClassVar[str] = "Where some problems are much harder than others."
    cost: ClassVar[str] = "A probe for easy problems, up to n samples for hard ones."

    name: Literal["adaptive"] = "adaptive"
    n: int = Field(default=16, ge=1, le=256)
    num_probes: int = Field(default=1, ge=1, le=64)
    worth: float = Field(default=10.0, gt=0, le=1e6)
    separator: str = Field(default="\n", min_length=1, max_length=16)

    @property
    def needs_scores(self) -> bool:
        return False

    @property
    def uses_scores(self) -> bool:
        return True


PlainStrategy = (
    Direct | SelfConsistency | BestOfN | BeamSearch | Dvts | Rebase | Mcts | AbMcts | ParticleFilter | Refine
    | BudgetForcing | AnswerProbing | Adaptive
)  # fmt: skip
"""The strategies that run on one model."""


def read_name(value: Any) -> Any:
    """Reads `"best_of_n"` as `{"name": "best_of_n"}`."""
    return {"name": value} if isinstance(value, str) else value


def read_tokens(value: Any) -> Any:
    """Reads a bare number as a budget of tokens."""
    return {"tokens": value} if isinstance(value, int) and not isinstance(value, bool) else value


class AcceptByVerifier(Spec):
    """A stage's answer is accepted if the job's verifier passes it. The verifier must be one that may be asked."""

    by: Literal["verifier"] = "verifier"


class Measured(Spec):
    """A stage's answer is accepted if a measure of it reaches a threshold.

    With `learn` the measure only says which answers are alike, and the threshold is for the chance that such an answer
    is right, as the batch has learnt it.
    """

    threshold: float = Field(default=0.75, gt=0, le=1)
    learn: bool = False


class AcceptByAgreement(Measured):
    """The measure is the share of the stage's samples that give the answer."""

    by: Literal["agreement"] = "agreement"


class AcceptByReward(Measured):
    """The measure is the probability of being right that the reward model gives the answer's text."""

    by: Literal["reward"] = "reward"
    threshold: float = Field(default=0.8, gt=0, le=1)
    calibrated_on: str | None = Field(default=None, max_length=64)
    """A batch of other problems, which tells the chance that a text of some probability is right. The threshold is then
    for that chance."""


class AcceptByJudge(Judging):
    """A stage's answer is accepted if most of the judge's replies call it correct."""

    placeholders: ClassVar[tuple[str, ...]] = ("problem", "answer")

    by: Literal["judge"] = "judge"


AnyAccept = AcceptByVerifier | AcceptByAgreement | AcceptByReward | AcceptByJudge
ACCEPT: TypeAdapter[AnyAccept] = TypeAdapter(Annotated[AnyAccept, Field(discriminator="by")])
ACCEPT_NAMES: tuple[str, ...] = tuple(spec.model_fields["by"].default for spec in get_args(AnyAccept))


class StageBudget(Spec):
    """Limits of one stage, within those of its job."""

    tokens: int | None = Field(default=None, ge=1, le=100_000_000)
    tokens_per_sample: int | None = Field(default=None, ge=1, le=1_000_000)
    thinking_tokens: int | None = Field(default=None, ge=1, le=1_000_000)


class Stage(Spec):
    """One model's try at a problem, and when its answer is good enough. Only the first may leave out the model."""

    model: str | None = Field(default=None, min_length=1, max_length=256)
    strategy: Annotated[
        Annotated[PlainStrategy, Field(discriminator="name")], BeforeValidator(read_name), Field(default_factory=Direct)
    ]
    budget: Annotated[StageBudget, BeforeValidator(read_tokens)] = StageBudget()
    accept: Annotated[AnyAccept, Field(discriminator="by")] | None = None


class Cascade(StrategySpec):
    """Several models in turn, the cheapest first: a problem goes on to the next stage if an answer is not accepted
    (Chen et al. 2023, arXiv:2305.05176).

    With `show_tried` the next stage also reads the answer that was not accepted. With `route` a stage is skipped where
    the batch has learnt that it does not pay.
    """

    title: ClassVar[str] = "Cascade of models"
    group: ClassVar[Group] = "As much as each problem needs"
    use: ClassVar[str] = "Where a cheap model solves most problems, and a dearer one the rest."
    cost: ClassVar[str] = "The cheap model for all, the next only for answers that are not accepted."

    name: Literal["cascade"] = "cascade"
    stages: list[Stage] = Field(min_length=2, max_length=8)
    show_tried: bool = False
    route: bool = True

    @field_validator("stages")
    @classmethod
    def _has_an_end(cls, stages: list[Stage]) -> list[Stage]:
        for number, stage in enumerate(stages):
            if (wrong := _why_wrong(stage, is_first=number == 0, is_last=stage is stages[-1])) is not None:
                raise PydanticCustomError("stage", "stage {number} {wrong}", {"number": number, "wrong": wrong})
        return stages

    @property
    def num_candidates(self) -> int | None:
        return min((most for stage in self.stages if (most := stage.strategy.num_candidates) is not None), default=None)

    @property
    def needs_scores(self) -> bool:
        return any(stage.strategy.needs_scores for stage in self.stages)

    @property
    def uses_scores(self) -> bool:
        return any(stage.strategy.uses_scores or isinstance(stage.accept, AcceptByReward) for stage in self.stages)

    @property
    def needs_verifier(self) -> bool:
        return any(stage.strategy.needs_verifier or isinstance(stage.accept, AcceptByVerifier) for stage in self.stages)

    @property
    def needs_turns(self) -> bool:
        return self.show_tried or any(stage.strategy.needs_turns for stage in self.stages)


def _why_wrong(stage: Stage, *, is_first: bool, is_last: bool) -> str | None:
    """Returns what a stage lacks, or has too much, as a stage of its place."""
    if stage.model is None and not is_first:
        return "names no model: only the first may leave it to the line"
    if is_last:
        return "is the last, whose answer always counts: leave out its accept" if stage.accept is not None else None
    if stage.accept is None:
        return f"does not say when its answer is good enough: add accept by {', '.join(ACCEPT_NAMES)}"
    return _why_not_accepted(stage, stage.accept)


def _why_not_accepted(stage: Stage, accept: AnyAccept) -> str | None:
    if isinstance(accept, AcceptByAgreement) and (stage.strategy.num_candidates or 1) < 2:
        return f"is accepted by agreement, but {stage.strategy.name} makes a single sample: let several vote"
    if not isinstance(accept, AcceptByReward) or accept.calibrated_on is None:
        return None
    if stage.model is None:
        return "is calibrated on a batch, but names no model: name the one that was used there"
    return "cannot both learn and be calibrated on a batch: leave one out" if accept.learn else None


AnyStrategy = PlainStrategy | Cascade
Strategy = Annotated[AnyStrategy, Field(discriminator="name")]
STRATEGY: TypeAdapter[AnyStrategy] = TypeAdapter(Strategy)
STRATEGY_SPECS: Mapping[str, type[StrategySpec]] = {
    spec.model_fields["name"].default: spec for spec in get_args(AnyStrategy)
}
STRATEGY_NAMES = tuple(STRATEGY_SPECS)
PLAIN_STRATEGY_NAMES = tuple(spec.model_fields["name"].default for spec in get_args(PlainStrategy))
"""Strategies that run on one model."""
