"""Evaluation of the demo models: one sample, majority, best of N by the reward model, and the probe.

The probe shows whether a reward model notices one wrong result in a right solution.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer

from ponder_worker.demo.problems import Problem
from ponder_worker.demo.training.bpe import END, token_id
from ponder_worker.demo.training.llama import Llama, load_model
from ponder_worker.demo.training.padded_sampling import log_probabilities, sample

MAX_NEW_TOKENS = 320
_ANSWER = re.compile(r"\nAnswer: (\d+)$")
StepScores = Callable[[Sequence[tuple[str, Sequence[str]]]], list[list[float]]]
"""A function from (prompt, steps) pairs to a score for every step; higher is better."""
OFFSETS = (1, 10)


@dataclass(frozen=True, slots=True)
class Pair:
    """A generator and the reward model that scores it. Both have the same tokenizer."""

    generator: Llama
    reward: Llama
    tokenizer: Tokenizer

    @classmethod
    def load(cls, folder: Path, generator: str = "generator") -> "Pair":
        """Loads the models in `folder`/reward and in the folder beside it with the generator's name."""
        tokenizer = Tokenizer.from_file(str(folder / generator / "tokenizer.json"))
        return cls(load_model(folder / generator), load_model(folder / "reward"), tokenizer)


@dataclass(frozen=True, slots=True)
class Solved:
    """One problem and its samples. scores: the reward model's log-probabilities, summed over the whole sample."""

    problem: Problem
    answers: tuple[int | None, ...]
    scores: tuple[float, ...]
    num_tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """Shares of problems solved. `majority`, `best_of` and `pass_at` are by N, over a problem's first N samples."""

    problems: int
    one_sample: float
    majority: dict[int, float]
    best_of: dict[int, float]
    pass_at: dict[int, float]
    tokens_per_sample: float


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The outcome of a probe.

    accused: the share of right steps below the threshold. found: the share of corrupted steps below it, by offset.
    auc: how often a right step scores above a corrupted one, by offset.
    """

    threshold: float
    accused: float
    found: dict[int, float]
    auc: dict[int, float]


def solve(pair: Pair, problems: Sequence[Problem], num_samples: int, temperature: float, seed: int) -> list[Solved]:
    """Samples every problem `num_samples` times and scores the samples."""
    random = torch.Generator().manual_seed(seed)
    end = token_id(pair.tokenizer, END)
    solved = []
    # Problems of one level and kind have similar lengths, so little is padded.
    for _, group in groupby(sorted(problems, key=_alike), key=_alike):
        part = list(group)
        prompts = [pair.tokenizer.encode(f"{problem.prompt}\n").ids for problem in part]
        samples = sample(
            pair.generator,
            prompts,
            num_samples=num_samples,
            temperature=temperature,
            max_new_tokens=MAX_NEW_TOKENS,
            end=end,
            random=random,
        )
        for problem, prompt, outputs in zip(part, prompts, samples, strict=True):
            texts = [pair.tokenizer.decode(output) for output in outputs]
            values = log_probabilities(pair.reward, [[*prompt, *output, end] for output in outputs])
            scores = tuple(sum(value[len(prompt) - 1 :]) for value in values)
            answers = tuple(read_answer(text) for text in texts)
            solved.append(Solved(problem, answers, scores, tuple(len(output) + 1 for output in outputs)))
    return solved


def read_answer(text: str) -> int | None:
    """The number in the last line, if that line is ``Answer: N``."""
    match = _ANSWER.search(f"\n{text}")
    return int(match[1]) if match else None


def figures(solved: Sequence[Solved]) -> Figures:
    """The figures of these samples."""
    sizes = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= len(solved[0].answers)]
    return Figures(
        problems=len(solved),
        one_sample=_mean(answer == s.problem.answer for s in solved for answer in s.answers),
        majority={n: _mean(_majority(s, n) == s.problem.answer for s in solved) for n in sizes},
        best_of={n: _mean(_best(s, n) == s.problem.answer for s in solved) for n in sizes},
        pass_at={n: _mean(s.problem.answer in s.answers[:n] for s in solved) for n in sizes},
        tokens_per_sample=_mean(count for s in solved for count in s.num_tokens),
    )


def by(key: Callable[[Problem], str], solved: Iterable[Solved]) -> dict[str, Figures]:
    """The figures of each group of problems with the same key."""
    groups: dict[str, list[Solved]] = {}
    for item in solved:
        groups.setdefault(key(item.problem), []).append(item)
    return {name: figures(group) for name, group in sorted(groups.items())}


def corrupted(problem: Problem, step: int, offset: int) -> list[str]:
    """The steps up to and including `step`, with the result of that one off by `offset`."""
    before, _, result = problem.steps[step].rpartition("= ")
    return [*problem.steps[:step], f"{before}= {int(result) + offset}"]


def probe(score: StepScores, problems: Sequence[Problem], rng: Random, accuse: float = 0.01) -> ProbeResult:
    """Corrupt one step of each problem by each offset.

    The threshold is set on every second problem, such that a share `accuse` of the right steps is below it. All
    reported figures are measured on the other problems.
    """
    calibrate = [value for steps in _right(score, problems[::2]) for value in steps]
    threshold = sorted(calibrate)[int(len(calibrate) * accuse)]
    tested = problems[1::2]
    right = [value for steps in _right(score, tested) for value in steps]
    where = [rng.randrange(len(problem.steps)) for problem in tested]
    found, auc = {}, {}
    for offset in OFFSETS:
        pairs = [(p.prompt, corrupted(p, step, offset)) for p, step in zip(tested, where, strict=True)]
        wrong = [steps[-1] for steps in score(pairs)]
        found[offset] = sum(value < threshold for value in wrong) / len(wrong)
        auc[offset] = area_under_curve(right, wrong)
    return ProbeResult(threshold, sum(value < threshold for value in right) / len(right), found, auc)


def area_under_curve(right: Sequence[float], wrong: Sequence[float]) -> float:
    """The chance that a value of `right` is larger than one of `wrong`, ties counting half."""
    wins = sum((r > w) + 0.5 * (r == w) for r in right for w in wrong)
    return wins / (len(right) * len(wrong))


def likelihood_probe(pair: Pair, problems: Sequence[Problem], seed: int) -> ProbeResult:
    """Probe the reward model. A step is scored by the sum of its tokens' log-probabilities."""
    return probe(step_scores(pair.reward, pair.tokenizer), problems, Random(seed))  # noqa: S311


def step_scores(reward: Llama, tokenizer: Tokenizer) -> StepScores:
    """A function that scores steps by `reward`. The line break that ends a step is part of it."""

    def score(solutions: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        pieces = [[tokenizer.encode(f"{line}\n").ids for line in (prompt, *steps)] for prompt, steps in solutions]
        values = log_probabilities(reward, [[token for piece in row for token in piece] for row in pieces])
        return [_step_sums(row, value) for row, value in zip(pieces, values, strict=True)]

    return score


def as_json(result: Figures | ProbeResult) -> dict[str, object]:
    """The result as a document, with shares rounded to four places."""
    return {name: _rounded(value) for name, value in asdict(result).items()}


def _right(score: StepScores, problems: Sequence[Problem]) -> list[list[float]]:
    return score([(problem.prompt, problem.steps) for problem in problems])


def _step_sums(pieces: Sequence[Sequence[int]], values: Sequence[float]) -> list[float]:
    sums, at = [], len(pieces[0]) - 1
    for piece in pieces[1:]:
        sums.append(sum(values[at : at + len(piece)]))
        at += len(piece)
    return sums


def _alike(problem: Problem) -> tuple[int, str]:
    return problem.level, problem.kind


def _majority(solved: Solved, n: int) -> int | None:
    votes = Counter(answer for answer in solved.answers[:n] if answer is not None)
    return votes.most_common(1)[0][0] if votes else None


def _best(solved: Solved, n: int) -> int | None:
    best = max(range(n), key=lambda index: (solved.answers[index] is not None, solved.scores[index]))
    return solved.answers[best]


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _rounded(inner) for key, inner in value.items()}
    return round(value, 4) if isinstance(value, float) else value
