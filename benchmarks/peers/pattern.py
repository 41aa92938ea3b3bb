"""The requests that every engine gets: lists of prompts of one length, and how many tokens each of them generates.

The module imports nothing of the project, because a peer runs in its own environment.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

Generate = Callable[[list[list[int]], int], list[list[int]]]
"""Prompts of one length, tokens to generate for each -> the generated tokens, in the order of the prompts."""


class Case(NamedTuple):
    """A number of prompts (`problems`) of `prompt` tokens, each for `siblings` sequences that generate `new` tokens.

    rounds: more than one round is a beam search with `new` tokens in each. After a round a quarter of the siblings of
    a problem stay, and each of them is continued four times.
    """

    name: str
    problems: int
    siblings: int
    prompt: int
    new: int
    rounds: int = 1

    @property
    def num_tokens(self) -> int:
        """Number of tokens that are generated."""
        return self.problems * self.siblings * self.new * self.rounds


def play(case: Case, generate: Generate, vocabulary: int, seed: int) -> None:
    """Play the case on an engine. Each seed has its own prompts, so that no earlier prefix is found."""
    chance = random.Random(seed)
    prompts = [
        prompt
        for prompt in [[chance.randrange(vocabulary) for _ in range(case.prompt)] for _ in range(case.problems)]
        for _ in range(case.siblings)
    ]
    for _ in range(case.rounds):
        found = generate(prompts, case.new)
        if [len(tokens) for tokens in found] != [case.new] * len(prompts):
            raise RuntimeError(f"{case.name}: a sequence got more or fewer than {case.new} tokens")
        grown = [prompt + tokens for prompt, tokens in zip(prompts, found, strict=True)]
        prompts = [grown[place] for place in _kept(chance, case)] if case.rounds > 1 else grown


def _kept(chance: random.Random, case: Case) -> list[int]:
    """The places of the sequences that continue, drawn at random, each of them four times."""
    kept: list[int] = []
    for first in range(0, case.problems * case.siblings, case.siblings):
        for place in sorted(chance.sample(range(first, first + case.siblings), case.siblings // 4)):
            kept += [place] * 4
    return kept
