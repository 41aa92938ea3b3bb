"""Suites: what a run of `ponder bench` measures, read from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ponder.domain.batch.refusal import explain
from ponder.domain.storable import JsonObject
from ponder.domain.strategy import AnyStrategy, Cascade, Strategy, read_name
from ponder.domain.verifier import Verifier
from ponder.errors import InvalidInput

_PACKAGE = files("ponder.bench") / "suites"


def _named(given: Any) -> Any:
    """Reads a name as `read_name` does, and the text `"none"` as null, which TOML does not have."""
    if isinstance(given, dict):
        return {name: None if value == "none" else value for name, value in given.items()}
    return read_name(given)


class Part(BaseModel):
    """A part of a suite or of a run. An unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MultipleChoice(Part):
    """Turns problems into multiple choice: the answers are shuffled, and the reference is the letter of the right one.

    The wrong answers are in the fields `wrong`, or without any are `distractors` answers of other problems and numbers
    near the right one.
    """

    wrong: tuple[str, ...] = Field(default=(), max_length=9)
    distractors: int = Field(default=3, ge=1, le=9)


class DataSet(Part):
    """Problems of a file. `path` is relative to the suite or to `--data`; `hf:org/name/FILE` is on the Hub.

    `prompt`, `answer`, `id` and `level` are names of fields, or texts with fields in braces: `{question}\\nThink.`
    `sampling`: fields of each line's body, such as `temperature` and `max_tokens`. `problems`: how many are taken,
    spread evenly over the file. `domain` is what kinds of problems are compared by.
    """

    name: str = Field(min_length=1, max_length=64)
    path: str
    prompt: str
    answer: str | None = None
    id: str | None = None
    level: str | None = None
    domain: str | None = None
    system: str | None = None
    verifier: Annotated[Verifier | None, BeforeValidator(_named)] = None
    sampling: JsonObject = Field(default_factory=dict)
    problems: int | None = Field(default=None, ge=1)
    multiple_choice: MultipleChoice | None = None

    @model_validator(mode="after")
    def _choices_have_an_answer(self) -> Self:
        if self.multiple_choice is not None and self.answer is None:
            raise ValueError("multiple choice needs the field with the right answer: set `answer`")
        return self


class AtOnce(Part):
    """All jobs in one batch."""

    process: Literal["at_once"] = "at_once"

    @property
    def label(self) -> str:
        return "at once"


class Poisson(Part):
    """Independent arrivals: exponential times between them."""

    process: Literal["poisson"]
    rate_per_s: float = Field(gt=0)

    @property
    def label(self) -> str:
        return f"poisson {self.rate_per_s:g}/s"


class Gamma(Part):
    """Arrivals whose times between them have a gamma distribution. `cv`, its coefficient of variation, is 1 for a
    Poisson process, and more for bursts.
    """

    process: Literal["gamma"]
    rate_per_s: float = Field(gt=0)
    cv: float = Field(gt=0, le=20)

    @property
    def label(self) -> str:
        return f"gamma {self.rate_per_s:g}/s cv {self.cv:g}"


class Trace(Part):
    """The arrivals of a recorded service: BurstGPT, Azure, Mooncake or ServeGen (see `traces`).

    With `rate_per_s` its time is stretched so that this is the mean rate.
    """

    process: Literal["trace"]
    path: str
    rate_per_s: float | None = Field(default=None, gt=0)

    @property
    def label(self) -> str:
        rate = "" if self.rate_per_s is None else f" {self.rate_per_s:g}/s"
        return f"{Path(self.path).name}{rate}"


Arrivals = Annotated[AtOnce | Poisson | Gamma | Trace, Field(discriminator="process")]


class WorkerSetting(Part):
    """Workers that a run starts for itself, one setting after the other. `options` are those of `ponder worker`."""

    name: str = Field(min_length=1, max_length=64)
    model: str | None = None
    reward_model: str | None = None
    count: int = Field(default=1, ge=1, le=64)
    options: JsonObject = {}


class Suite(Part):
    """Everything that is measured: each data set with each model or worker, strategy, budget, concurrency and process
    of arrivals.

    `budgets` are tokens a problem; 0 sets none. `concurrency` is the most jobs in flight; 0 sets no limit. Each seed
    makes one job of every problem. The first model or worker is what the others are compared with.
    """

    name: str = Field(min_length=1, max_length=64)
    description: str = ""
    data: tuple[DataSet, ...] = Field(min_length=1)
    models: tuple[str, ...] = ()
    workers: tuple[WorkerSetting, ...] = ()
    strategies: tuple[Annotated[Strategy, BeforeValidator(_named)], ...] = Field(
        default=({"name": "direct"},), min_length=1, validate_default=True
    )
    budgets: tuple[Annotated[int, Field(ge=0, le=1_000_000)], ...] = Field(default=(0,), min_length=1)
    concurrency: tuple[Annotated[int, Field(ge=0, le=10_000)], ...] = Field(default=(0,), min_length=1)
    arrivals: tuple[Arrivals, ...] = Field(default=(AtOnce(),), min_length=1)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for what, names in (("data", [one.name for one in self.data]), ("workers", [one.name for one in self.workers])):
            if len(names) > len(set(names)):
                raise ValueError(f"two {what} have the same name: they need one each")
        return self


def shipped() -> Sequence[str]:
    """Returns the names of the suites that come with ponder."""
    return sorted(Path(found.name).stem for found in _PACKAGE.iterdir() if found.name.endswith(".toml"))


def read_suite(named: str) -> tuple[Suite, Path]:
    """Reads a shipped suite by its name, or a file. Returns it and the folder that its paths begin in.

    Raises InvalidInput that names the field and what would be right.
    """
    path = Path(str(_PACKAGE)) / f"{named}.toml" if named in shipped() else Path(named)
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise InvalidInput(
            f"there is no suite {named}: name a TOML file, or one of {', '.join(shipped())}", param="SUITE"
        ) from None
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"{named} cannot be read as TOML: {error}", param="SUITE") from None
    try:
        return Suite.model_validate(document), path.parent
    except ValidationError as error:
        raise InvalidInput(f"{named}: {explain(error).message}", param="SUITE") from None


def strategy_label(strategy: AnyStrategy) -> str:
    """Returns a strategy's name with its n and the parameters that are not its defaults: `best_of_n n=4`."""
    name = str(type(strategy).model_fields["name"].default)
    if isinstance(strategy, Cascade):
        stages = (f"{stage.model or 'own'} {strategy_label(stage.strategy)}" for stage in strategy.stages)
        return f"{name} {', then '.join(stages)}"
    settings = strategy.model_dump(exclude={"name"})
    changed = strategy.model_dump(exclude={"name"}, exclude_defaults=True)
    told = {key: value for key, value in settings.items() if key == "n" or key in changed}
    return " ".join([name, *(f"{key}={'off' if value is None else value}" for key, value in told.items())])
