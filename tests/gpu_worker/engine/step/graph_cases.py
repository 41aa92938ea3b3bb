"""Decode steps that are captured and replayed, with the Triton kernels in their interpreter; run by test_graph.py.

A graph's place takes a computation that is done again into the memory where its results stood at first.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ponder_kernels.attention import paged_attention
from ponder_worker.engine import Engine, SamplingParams, Sequence
from ponder_worker.engine.step.graph import Sampled
from ponder_worker.models.kv_pages import FP8


class Recorder:
    """Replays as a graph does: the same tensors in, the same tensors out."""

    def __init__(self) -> None:
        self.num_captured = self.num_replayed = 0

    def __call__(self, compute: Callable[[], Sampled]) -> tuple[Callable[[], object], Sampled]:
        self.num_captured += 1
        found = tuple(part.clone() for part in compute())

        def replay() -> None:
            self.num_replayed += 1
            for part, new in zip(found, compute(), strict=True):
                part.copy_(new)

        return replay, found


@pytest.fixture(autouse=True)
def _kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends a layout that was made for the kernels to the kernels."""

    def op(
        q: torch.Tensor,
        pages: torch.Tensor,
        where: paged_attention.Layout,
        scale: float,
        *,
        soft_cap: float,
        scales: torch.Tensor | None,
    ) -> torch.Tensor:
        run = paged_attention.op_reference if where.plan is None else paged_attention.op_triton
        return run(q, pages, where, scale, soft_cap=soft_cap, scales=scales)

    monkeypatch.setattr(paged_attention, "op", op)


def crowd(engine: Engine) -> list[Sequence]:
    """Siblings, a loner, greedy and warm, of different lengths; one is penalised, so that some steps go without."""
    prompt = [3 + token % 250 for token in range(70)]
    samplings = [
        SamplingParams(9, seed=1, stop_at_end=False),
        SamplingParams(14, seed=2, top_k=9, stop_at_end=False),
        SamplingParams(5, temperature=0.0, stop_at_end=False),
        SamplingParams(3, seed=4, presence_penalty=0.5, stop_at_end=False),
        SamplingParams(12, seed=5, temperature=0.7, top_p=0.9, stop_at_end=False),
    ]
    sequences = [engine.generate(prompt, prompt_length=70, sampling=sampling) for sampling in samplings[:4]]
    return [*sequences, engine.generate(prompt[5:40], prompt_length=35, sampling=samplings[4])]


def answers(engine: Engine) -> list[list[int]]:
    """Returns the tokens that the engine generates for the crowd."""
    sequences = crowd(engine)
    while engine.has_work:
        engine.step()
    engine.check()
    return [sequence.generated for sequence in sequences]


@pytest.mark.parametrize(("overlap", "kv_dtype"), [(False, None), (True, None), (False, FP8)])
def test_replayed_steps_draw_the_same_tokens(tiny_llama: Path, overlap: bool, kv_dtype: torch.dtype | None) -> None:
    plain = Engine.load(tiny_llama, num_pages=64, kv_dtype=kv_dtype)
    recorder = Recorder()
    replaying = Engine(plain.model, plain.tokenizer, num_pages=64, capture=recorder, overlap=overlap)
    assert answers(replaying) == answers(plain)
    assert recorder.num_captured <= 5
    assert recorder.num_replayed >= 9


GEMMA_2 = {"family": "Gemma2", "head_dim": 16, "sliding_window": 20, "attn_logit_softcapping": 3.0}


@pytest.mark.parametrize(
    ("fields", "gives_back"),
    [({"family": "Mistral", "sliding_window": 20}, True), (GEMMA_2, True), ({"family": "Mixtral"}, False)],
    ids=lambda value: value["family"] if isinstance(value, dict) else "",
)
def test_replayed_steps_of_windows_caps_and_experts_draw_the_same_tokens(
    llama_folder: Callable[..., Path], fields: dict[str, Any], gives_back: bool
) -> None:
    """Siblings of different lengths have given back different pages, whose numbers stay in their tables."""
    plain = Engine.load(llama_folder(**fields), num_pages=64)
    recorder = Recorder()
    replaying = Engine(plain.model, plain.tokenizer, num_pages=64, capture=recorder, overlap=True)
    sequences = crowd(replaying)
    num_dropped = set()
    while replaying.has_work:
        replaying.step()
        replaying.check()
        num_dropped |= {sequence.table.num_dropped for sequence in sequences}
    assert [sequence.generated for sequence in sequences] == answers(plain)
    assert recorder.num_replayed >= 9
    assert (max(num_dropped) > 2) == gives_back


def test_where_a_step_cannot_be_captured_all_go_on_without(tiny_llama: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = Engine.load(tiny_llama, num_pages=64)
    asked = []

    def fail(compute: Callable[[], Sampled]) -> tuple[Callable[[], object], Sampled]:
        asked.append(compute)
        raise RuntimeError("the stream is capturing")

    uncaptured = Engine(plain.model, plain.tokenizer, num_pages=64, capture=fail)
    assert answers(uncaptured) == answers(plain)
    assert len(asked) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "decode steps are not captured, and cost the host more: RuntimeError: the stream is capturing"
    ]
