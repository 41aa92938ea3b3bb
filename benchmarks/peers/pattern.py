"""What is asked of every engine, in the same words: lists of prompts of one length, and how many tokens each gets.

Imports nothing, because a peer runs in an environment of its own.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

Generate = Callable[[list[list[int]], int], list[list[int]]]
"""Prompts of one length, tokens to generate for each -> the generated tokens, in the order of the prompts."""


class Case(NamedTuple):
    """problems prompts of `prompt` tokens, each for `siblings` sequences, which get `new` tokens each.

    rounds: above 1, a beam search: `new` tokens in each; behind it a quarter of a problem's siblings stay, and each of
    those is continued four times.
    """

    name: str
    problems: int
    siblings: int
    prompt: int
    new: int
    rounds: int = 1

    @property
    def num_tokens(self) -> int:
        """That are generated."""
        return self.problems * self.siblings * self.new * self.rounds


def play(case: Case, generate: Generate, vocabulary: int, seed: int) -> None:
    """Each seed has prompts of its own, so that no prefix of an earlier one is found."""
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
    """Places of those that go on, each four times; which, is drawn."""
    kept: list[int] = []
    for first in range(0, case.problems * case.siblings, case.siblings):
        for place in sorted(chance.sample(range(first, first + case.siblings), case.siblings // 4)):
            kept += [place] * 4
    return kept
