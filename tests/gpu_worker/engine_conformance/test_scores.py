"""What every engine promises of the sequences that it scores or reads."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ponder_worker.engine import InvalidRequest
from ponder_worker.engine.inference_engine import InferenceEngine
from ponder_worker.models.readout import Readout

from .conftest import HEAD_DIM, Load
from .test_generation import PROMPT, finish

TEXT = [*PROMPT, *range(100, 190)]


@pytest.fixture
def logits(llama_folder: Callable[..., Path]) -> torch.Tensor:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(llama_folder(head_dim=HEAD_DIM), dtype=torch.float32)
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([TEXT])).logits[0]
    return found


@pytest.mark.parametrize("start", [1, 40, 70, len(TEXT) - 1])
def test_a_continuation_is_scored_by_the_models_logprobs(
    llm: InferenceEngine, logits: torch.Tensor, start: int
) -> None:
    for _ in range(2):  # the second time the tokens are in the prefix cache
        sequence = llm.score(TEXT, start=start)
        outputs = finish(llm)
        wanted = logits[start - 1 : -1].log_softmax(-1).gather(1, torch.tensor(TEXT[start:])[:, None])[:, 0]
        assert sequence.logprobs == pytest.approx(wanted.tolist(), abs=1e-3)
        assert [output.finish_reason for output in outputs if output.finish_reason] == ["scored"]


def test_a_longer_version_of_what_was_scored_costs_its_new_tokens_and_a_few(llm: InferenceEngine) -> None:
    llm.score(TEXT[:70], start=40, salt=b"longer")
    finish(llm)
    before = llm.counters.computed_tokens
    llm.score(TEXT[:100], start=70, salt=b"longer")
    finish(llm)
    assert llm.counters.computed_tokens - before <= 30 + 32


def test_the_whole_context_can_be_scored(llm: InferenceEngine) -> None:
    sequence = llm.score([3 + number % 290 for number in range(llm.longest)], start=llm.longest - 5)
    finish(llm)
    assert len(sequence.logprobs) == 5


def test_scores_wait_for_their_turn_and_can_be_cancelled(llm: InferenceEngine) -> None:
    scored, dropped = (llm.score(TEXT, start=60) for _ in range(2))
    llm.cancel(dropped)
    finish(llm)
    assert len(scored.logprobs) == len(TEXT) - 60
    assert dropped.logprobs == []


def test_a_start_without_a_token_before_it_is_refused(llm: InferenceEngine) -> None:
    with pytest.raises(InvalidRequest):
        llm.score(TEXT, start=0)


def test_two_tokens_are_read_at_the_marks(llm: InferenceEngine, logits: torch.Tensor) -> None:
    readout = Readout("token", 60, 61)
    marks = [50, 90, len(TEXT) - 1]
    for _ in range(2):
        sequence = llm.read(TEXT, marks, readout)
        finish(llm)
        wanted = logits[marks][:, [60, 61]].softmax(-1)[:, 0].tolist()
        assert sequence.readings == pytest.approx(wanted, abs=1e-3)
        assert sequence.finish_reason == "scored"


@pytest.mark.parametrize(("kind", "outputs"), [("classes", 2), ("value", 1)])
def test_a_head_is_read_at_the_marks(load: Load, llama_folder: Callable[..., Path], kind: str, outputs: int) -> None:
    import transformers

    folder = llama_folder(head="ForSequenceClassification", head_dim=HEAD_DIM, num_labels=outputs, pad_token_id=0)
    readout = Readout(kind)  # type: ignore[arg-type]
    engine = load(folder, readout)
    marks = [50, len(TEXT) - 1]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        head = model.score(model.model(torch.tensor([TEXT])).last_hidden_state[0, marks])
    wanted = head.softmax(-1)[:, 1] if kind == "classes" else head[:, 0].sigmoid()
    for _ in range(2):
        sequence = engine.read(TEXT, marks, readout)
        outputs_of = finish(engine)
        assert sequence.readings == pytest.approx(wanted.tolist(), abs=1e-3)
        assert sum(output.finish_reason is not None for output in outputs_of) == 1
    engine.check()
