"""An endless stream of training batches, drawn from a seed."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ponder_worker.demo.problems import KINDS, LEVELS, Problem, training_problem
from ponder_worker.demo.training.bpe import END, PAD, token_id

LENGTHS = (24, 32, 40, 48, 64, 80, 96, 112, 128, 144, 160, 192, 224, 256, 320)
"""Lengths, in tokens, to which sequences are padded."""
SYSTEM_LINES = ("You are a helpful assistant.", "Solve the problem step by step.", "Think step by step.")
_POOL = 3000
_KIND_WEIGHTS = (0.5, 0.2, 0.3)

Row = tuple[list[int], list[bool]]
"""The ids of a sequence, and for each of them whether it is taught."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences of nearly the same length.

    ids: `[batch, tokens + 1]` int64, padded on the right. taught: `[batch, tokens]` bool, true where the next token
    counts in the loss. num_tokens: the number of ids that are not padding.
    """

    ids: Tensor
    taught: Tensor
    num_tokens: int


def tokenizer_corpus(seed: int, count: int = 20_000) -> Iterator[str]:
    """Texts from which the tokenizer is learnt."""
    rng = Random(f"tokenizer/{seed}")  # noqa: S311
    for _ in range(count):
        problem = training_problem(rng, rng.randint(1, len(LEVELS)), rng.choice(KINDS))
        yield f"{problem.prompt}\n{problem.solution}"


class Corpus:
    """Training problems in batches of nearly the same length, of about `batch_tokens` tokens each."""

    def __init__(self, tokenizer: Tokenizer, seed: int | str, batch_tokens: int) -> None:
        self.tokenizer, self.batch_tokens = tokenizer, batch_tokens
        self.rng = Random(f"corpus/{seed}")  # noqa: S311
        self.end, self.pad = token_id(tokenizer, END), token_id(tokenizer, PAD)

    def batches(self, level_weights: tuple[float, ...]) -> list[Batch]:
        """One pool of problems, shuffled within their lengths and cut into batches in a random order."""
        buckets: dict[int, list[Row]] = defaultdict(list)
        for ids, taught in self._rows(level_weights):
            length = next((length for length in LENGTHS if len(ids) <= length + 1), None)
            if length is not None:
                buckets[length].append((ids, taught))
        batches = []
        for length, rows in buckets.items():
            size = max(1, self.batch_tokens // length)
            batches += [self._batch(rows[at : at + size], length) for at in range(0, len(rows) - size + 1, size)]
        self.rng.shuffle(batches)
        return batches

    def _rows(self, level_weights: tuple[float, ...]) -> Iterator[Row]:
        levels = self.rng.choices(range(1, len(LEVELS) + 1), level_weights, k=_POOL)
        kinds = self.rng.choices(KINDS, _KIND_WEIGHTS, k=_POOL)
        problems = [training_problem(self.rng, level, kind) for level, kind in zip(levels, kinds, strict=True)]
        prompts = self.tokenizer.encode_batch([self._prompt(problem) for problem in problems])
        solutions = self.tokenizer.encode_batch([problem.solution for problem in problems])
        before: Row = ([], [])
        for problem, prompt, solution in zip(problems, prompts, solutions, strict=True):
            taught = [False] * len(prompt.ids) + [True] * (len(solution.ids) + 1)
            row = before[0] + prompt.ids + solution.ids + [self.end], before[1] + taught
            # Now and then a second problem follows an easy one in the same sequence, like turns of a conversation.
            before = row if problem.level <= 3 and not before[0] and self.rng.random() < 0.1 else ([], [])
            if not before[0]:
                yield row

    def _prompt(self, problem: Problem) -> str:
        system = f"{self.rng.choice(SYSTEM_LINES)}\n" if self.rng.random() < 0.03 else ""
        return f"{system}{problem.prompt}\n"

    def _batch(self, rows: list[Row], length: int) -> Batch:
        width = length + 1
        ids = torch.tensor([ids + [self.pad] * (width - len(ids)) for ids, _ in rows])
        taught = torch.tensor([(taught + [False] * (width - len(taught)))[1:] for _, taught in rows])
        return Batch(ids, taught, sum(len(ids) for ids, _ in rows))
