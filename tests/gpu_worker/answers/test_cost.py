"""Reading takes time in proportion to the text, whatever a model wrote, because the engine's process does it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator

import pytest

from ponder_worker.answers.equality import canonical, identity
from ponder_worker.answers.extraction import extract
from ponder_worker.answers.mark import of_reference
from ponder_worker.answers.numeral import read_european, read_lone_number, read_numeral
from ponder_worker.answers.reading import letter, program, spoken, unfenced

LENGTH = 25_000
MOST_GROWTH = 2.5
TOO_SHORT_S = 0.01
"""Below this the time depends more on the clock and the machine than on the text."""

REPEATED = [
    " ", "\n", "9", "9,", "1.2", "1e1", "1/", "a", "é", "५", "½", "²", "√", "\\", "$", "$5 ", "*", "#", "(", "[(", "{",
    "|", "\\boxed{", "\\boxed{1}", "\\boxed{1} and ", "\\boxed ", "\\\\boxed{1}", "\\frac", "\\text{", "\\text{a}",
    "\\(", "\\) \\(", "answer ", "answer is ", "answer: ", "answer to the ", "Answer:\n", "Answer: \n\n", "1;", "A: ",
    "Final Answer\n", "| Answer | ", "#### x\n", "#### Step\n", "(A) ", "( ", "option ", "<think>", "</think>", "x=",
    "1 and ", "%", "it is ", ", because", " - ", " (", '"', "cm ", "\\pm ", "(1,2)\\cup ", "x'", "0.\\overline{3}",
    "1.234,", "```", "```\n", "\\begin{",
]  # fmt: skip
AROUND = {
    "alone": "%s",
    "behind a label": "Answer: %s",
    "behind an option": "Answer: option%sz",
    "behind a fence": "```%sx",
    "behind a number": "Answer: 5%s",
    "before a power": "%se999",
    "in a cut-off thought": "<think>%s",
}


READERS: list[Callable[[str], object]] = [extract, of_reference, letter, program]
BOUNDED: list[Callable[[str], object]] = [canonical, read_numeral, read_european, read_lone_number, spoken, unfenced]


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Stops garbage collection, whose time depends on every object of the process."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def seconds(read: Callable[[str], object], text: str) -> float:
    start = time.process_time()
    read(text)
    return time.process_time() - start


def check_growth(read: Callable[[str], object], around: str) -> None:
    for piece in REPEATED:
        text, twice = (around % (piece * (length // len(piece))) for length in (LENGTH, 2 * LENGTH))
        if (once := seconds(read, text)) >= TOO_SHORT_S:
            ratios = (seconds(read, twice) / max(once, seconds(read, text)) for _ in range(3))
            assert any(ratio <= MOST_GROWTH for ratio in ratios), f"{piece!r} takes too long when it is doubled"


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND.keys())
@pytest.mark.parametrize("read", READERS)
def test_twice_the_text_takes_twice_the_time(read: Callable[[str], object], around: str) -> None:
    check_growth(read, around)


@pytest.mark.parametrize("read", BOUNDED)
def test_what_reads_short_texts_only_takes_no_time_for_long_ones(read: Callable[[str], object]) -> None:
    check_growth(read, "%s")


def test_what_is_just_short_enough_to_be_normalised_is_read_in_one_pass() -> None:
    for piece in REPEATED:
        for read in (canonical, identity, read_numeral):
            for length in (950, 1_450, 19_990):
                assert seconds(read, piece * (length // len(piece))) < 0.5, piece
