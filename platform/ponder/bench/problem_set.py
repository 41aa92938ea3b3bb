"""The problems of a suite, read from users' files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

from ponder.bench.suite import DataSet, MultipleChoice
from ponder.datasets.dataset import text_of
from ponder.datasets.source import Source
from ponder.errors import InvalidInput, SetupError
from ponder.remedy import pip_install
from ponder.wire import Json

_FIELD = re.compile(r"\{(\w+)\}")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_MARK = re.compile(r"####\s*(.+)\s*$")
_HUB = "hf:"
_SEED = 0
"""Draws the order of choices and the wrong answers, the same in every run."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. `level` is its difficulty as it stands in the data."""

    id: str
    prompt: str
    reference: str | None
    level: str | None
    wrong: tuple[str, ...] = ()
    """The wrong answers of a multiple-choice problem, as far as the data has them."""

    def line(self, data: DataSet, model: str, seed: int) -> Json:
        """Returns the batch line of one job: this problem with this seed."""
        system = [{"role": "system", "content": data.system}] if data.system else []
        body: Json = {
            "model": model,
            "messages": [*system, {"role": "user", "content": self.prompt}],
            "seed": seed,
            "metadata": {"level": self.level} if self.level is not None else {},
            **data.sampling,
        }
        if self.reference is not None:
            body["ponder"] = {"reference": self.reference}
        return {
            "custom_id": f"{self.id}#{seed}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": body,
        }


def problem_of(custom_id: str) -> tuple[str, int]:
    """Returns the problem and the seed that a job's custom id names."""
    problem, _, seed = custom_id.rpartition("#")
    return problem, int(seed)


def read_problems(data: DataSet, folder: Path, most: int | None) -> list[Problem]:
    """Reads the problems of a data set: as many as it says, and at most `most`, spread evenly over the file.

    Raises InvalidInput for a file or row that cannot be read, because a benchmark must not leave out problems silently.
    """
    path = _from_hub(data.path) if data.path.startswith(_HUB) else _found(folder, data.path)
    source = Source.of(path)
    problems = [_problem(data, row.number, row.values, f"{path}, {row.place}", row.trouble) for row in source.rows()]
    if not problems:
        raise InvalidInput(f"{path} has no problems")
    if len({problem.id for problem in problems}) < len(problems):
        raise InvalidInput(f"{path}: two problems have the same id; name another field with `id`")
    chosen = _spread(problems, min(data.problems or len(problems), most or len(problems)))
    return chosen if data.multiple_choice is None else list(_multiple_choice(data.multiple_choice, chosen))


def _found(folder: Path, name: str) -> Path:
    """Returns a path relative to a folder, or the folder itself if it is the file. Raises InvalidInput."""
    path = folder if folder.is_file() else folder / name
    if not path.is_file():
        raise InvalidInput(f"{path}: there is no such file; --data names the folder, or the file, of the problems")
    return path


def _from_hub(name: str) -> Path:
    """Downloads `hf:org/name/FILE` into the Hub's cache. Raises SetupError or InvalidInput."""
    parts = name.removeprefix(_HUB).split("/", 2)
    if len(parts) < 3:
        raise InvalidInput(f"{name}: write hf:org/name/FILE, such as hf:openai/gsm8k/main/test-00000-of-00001.parquet")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise SetupError(f"{name} needs huggingface_hub: {pip_install('huggingface_hub')}") from None
    try:
        return Path(hf_hub_download(f"{parts[0]}/{parts[1]}", parts[2], repo_type="dataset"))
    except (OSError, HfHubHTTPError) as error:
        raise InvalidInput(f"{name} cannot be downloaded ({type(error).__name__}: {error})") from error


def _problem(data: DataSet, number: int, values: Mapping[str, Any] | None, place: str, trouble: str) -> Problem:
    if values is None:
        raise InvalidInput(f"{place}: {trouble}")
    try:
        return Problem(
            id=_filled(data.id, values) if data.id else f"row-{number}",
            prompt=_filled(data.prompt, values),
            reference=_filled(data.answer, values) if data.answer else None,
            level=_filled(data.level, values) if data.level and values.get(data.level) is not None else None,
            wrong=tuple(_filled(name, values) for name in data.multiple_choice.wrong) if data.multiple_choice else (),
        )
    except InvalidInput as error:
        raise InvalidInput(f"{place}: {error.message}") from None


def _filled(template: str, values: Mapping[str, Any]) -> str:
    """Returns a field by its name, or a text with the fields that it names in braces."""
    if not _FIELD.search(template):
        return text_of(values, template)
    return _FIELD.sub(lambda found: text_of(values, found[1]), template)


def _spread(problems: Sequence[Problem], num: int) -> list[Problem]:
    """Takes `num` problems at equal distances, so that a file sorted by level or topic is represented."""
    return [problems[index * len(problems) // num] for index in range(min(num, len(problems)))]


def _multiple_choice(how: MultipleChoice, problems: Sequence[Problem]) -> Iterator[Problem]:
    """Yields the problems with lettered answers; the reference becomes a letter."""
    answers = [_last(problem.reference or "") for problem in problems]
    for problem, right in zip(problems, answers, strict=True):
        rng = Random(f"{_SEED}/{problem.id}")  # noqa: S311
        choices = [right, *(problem.wrong or _distractors(right, answers, how.distractors, rng))]
        rng.shuffle(choices)
        letters = [chr(ord("A") + index) for index in range(len(choices))]
        listed = "\n".join(f"{letter}) {choice}" for letter, choice in zip(letters, choices, strict=True))
        yield replace(problem, prompt=f"{problem.prompt}\n\n{listed}", reference=letters[choices.index(right)])


def _last(answer: str) -> str:
    """Returns the final answer of a worked solution as GSM8K writes them, or the answer as it is."""
    found = _MARK.search(answer)
    return found[1].strip() if found else answer.strip()


def _distractors(right: str, answers: Sequence[str], num: int, rng: Random) -> list[str]:
    """Makes up wrong answers: numbers near the right one, then answers of other problems."""
    made: list[str] = []
    if _NUMBER.fullmatch(right.replace(",", "")):
        value, form = Decimal(right.replace(",", "")), ",f" if "," in right else "f"
        steps = rng.sample([1, 2, 5, 10, -1, -2, -5, 20], k=min(num, 8))
        made = [format(value + step, form) for step in steps]
    others = [answer for answer in dict.fromkeys(answers) if answer not in (right, *made)]
    made += rng.sample(others, k=min(max(0, num - len(made)), len(others)))
    return made[:num]
