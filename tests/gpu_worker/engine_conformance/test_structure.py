"""The promises of every engine about the sequences that are held to a structure."""

import re

import pytest
from llguidance import LLMatcher

from ponder_worker.engine import SamplingParams, Sequence
from ponder_worker.engine.inference_engine import InferenceEngine
from ponder_worker.engine.sampling.grammars import Grammars
from ponder_worker.engine.sampling.structure_matcher import Structure

from .test_generation import PROMPT, finish, generate, sampled, text_of

PATTERN = "[ab]{3,9}=[0-9]{2}"
HELD = Structure(LLMatcher.grammar_from_regex(PATTERN))


def held(seed: int = 0, **fields: object) -> SamplingParams:
    return sampled(30, seed, structure=HELD, **fields)


@pytest.mark.parametrize("seed", range(4))
def test_a_text_fits_its_structure_and_ends_where_nothing_can_follow(llm: InferenceEngine, seed: int) -> None:
    sequence = generate(llm, held(seed))
    assert re.fullmatch(PATTERN, text_of(llm, sequence.generated))
    assert sequence.finish_reason == "stop"


@pytest.mark.parametrize("cut", [1, 3])
def test_a_text_goes_on_inside_its_structure_after_a_seam(llm: InferenceEngine, cut: int) -> None:
    whole = generate(llm, held(5))
    resumed = generate(llm, held(6), *whole.generated[:cut])
    assert resumed.generated[:cut] == whole.generated[:cut]
    assert re.fullmatch(PATTERN, text_of(llm, resumed.generated))


def test_a_grammar_that_was_prepared_is_not_compiled_in_a_step(
    llm: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = "[cd]{2}-[0-9]"
    structure = Structure(LLMatcher.grammar_from_regex(pattern))
    prepared = llm.compile(structure.grammar)
    monkeypatch.setattr(Grammars, "_compiled", lambda self, grammar: pytest.fail("it is compiled again"))
    sequence = generate(llm, sampled(30, 0, structure=structure))
    assert re.fullmatch(pattern, text_of(llm, sequence.generated))
    assert llm.compile(structure.grammar) is prepared


def test_a_step_goes_on_inside_the_structure_of_its_text(llm: InferenceEngine) -> None:
    whole = generate(llm, held(7))
    border = len(PROMPT) + 2
    step = llm.generate(whole.tokens[:border], prompt_length=border, turn_start=len(PROMPT), sampling=held(8))
    finish(llm)
    assert re.fullmatch(PATTERN, text_of(llm, step.tokens[len(PROMPT) :]))


def test_penalties_choose_among_what_the_structure_allows_and_neighbours_are_free(llm: InferenceEngine) -> None:
    plain = generate(llm, sampled(12, 3))
    samplings = [held(1, presence_penalty=2.0, logit_bias=((40, 90.0),)), sampled(12, 3), held(2, top_k=2)]
    sequences: list[Sequence] = [
        llm.generate(PROMPT, prompt_length=len(PROMPT), sampling=sampling) for sampling in samplings
    ]
    finish(llm)
    assert sequences[1].tokens == plain.tokens
    for sequence in (sequences[0], sequences[2]):
        assert re.fullmatch(PATTERN, text_of(llm, sequence.generated))
