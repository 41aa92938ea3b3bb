import math
from collections.abc import Sequence as Series

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder_worker.engine import InvalidSampling, SamplingParams
from ponder_worker.engine.sampling.penalty_state import PenaltyState
from ponder_worker.engine.sampling.sampler import Sampler, filtered, spread
from ponder_worker.engine.sampling.sampling_metadata import LogitEdits, SamplingMetadata

CPU = torch.device("cpu")


def frequencies(logits: list[float], sampling: dict[str, float], num_draws: int = 20_000) -> list[float]:
    sampler = Sampler(len(logits), CPU)
    metadata = SamplingMetadata([SamplingParams(1, seed=11, **sampling)] * num_draws)  # type: ignore[arg-type]
    rows = torch.tensor([logits]).expand(num_draws, -1).clone()
    tokens = sampler.sample(rows, metadata, np.arange(num_draws), {})
    return [share / num_draws for share in torch.bincount(tokens, minlength=len(logits)).tolist()]


def penalties(
    sampling: SamplingParams, vocabulary_size: int, generated: list[int], prompt: Series[int] = ()
) -> PenaltyState:
    found = PenaltyState(sampling, prompt, vocabulary_size, CPU)
    found.count(generated)
    return found


def test_tokens_are_drawn_as_often_as_the_softmax_says() -> None:
    logits = [2.0, 1.0, 0.0, -1.0, -3.0]
    expected = (torch.tensor(logits) / 0.8).softmax(0).tolist()
    assert frequencies(logits, {"temperature": 0.8}) == pytest.approx(expected, abs=0.015)


def test_noise_has_the_moments_of_a_standard_gumbel_and_is_finite() -> None:
    noise = Sampler(1000, CPU).noise(list(range(100)), list(range(100)))
    assert bool(noise.isfinite().all())
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.02)
    assert float(noise.var()) == pytest.approx(math.pi**2 / 6, abs=0.05)


def test_noise_of_neighbouring_seeds_and_positions_is_uncorrelated() -> None:
    noise = Sampler(2000, CPU).noise([1, 1, 2, 1 << 63], [5, 6, 5, 5])
    assert float((torch.corrcoef(noise) - torch.eye(4)).abs().max()) < 0.1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 100_000)), min_size=1, max_size=8))
def test_noise_depends_on_seed_position_and_token_and_on_nothing_else(keys: list[tuple[int, int]]) -> None:
    sampler = Sampler(50, CPU)
    together = sampler.noise([seed for seed, _ in keys], [position for _, position in keys])
    for row, (seed, position) in zip(together, keys, strict=True):
        assert torch.equal(row, sampler.noise([seed], [position])[0])
        assert torch.equal(row[:20], Sampler(20, CPU).noise([seed], [position])[0])


def test_bits_are_spread_in_the_order_of_the_tokens() -> None:
    bits = np.random.default_rng(0).integers(0, 256, (5, 12), dtype=np.uint8)
    expected = torch.from_numpy(np.unpackbits(bits, axis=1, bitorder="little"))
    assert torch.equal(spread(torch.from_numpy(bits)), expected)


def test_temperature_zero_takes_the_best_token_beside_others_that_are_drawn() -> None:
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    metadata = SamplingMetadata([SamplingParams(1, temperature=temperature) for temperature in (0.0, 1.0, 0.0)])
    tokens = Sampler(40, CPU).sample(logits, metadata, np.full(3, 4), {})
    assert tokens[[0, 2]].tolist() == logits[[0, 2]].argmax(-1).tolist()


@pytest.mark.parametrize(
    ("sampling", "allowed"),
    [
        ({"top_k": 2}, 2),
        ({"top_p": 0.6}, 1),
        ({"top_p": 0.7}, 2),
        ({"top_p": 0.9}, 3),
        ({"min_p": 0.3}, 2),
        ({"min_p": 0.05}, 3),
        ({"top_k": 3, "top_p": 0.93, "min_p": 0.3}, 2),
        ({"top_k": 1}, 1),
    ],
)
def test_filters_leave_the_most_probable_tokens_and_their_proportions(sampling: dict[str, float], allowed: int) -> None:
    shares = [0.64, 0.2352, 0.0865, 0.0318, 0.0065]
    found = frequencies([math.log(share) for share in shares], sampling)
    expected = [share / sum(shares[:allowed]) if index < allowed else 0.0 for index, share in enumerate(shares)]
    assert found == pytest.approx(expected, abs=0.015)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0.05, 0.999), st.integers(0, 500))
def test_top_p_over_a_flat_vocabulary_keeps_the_smallest_set_that_holds_the_mass(
    seed: int, top_p: float, top_k: int
) -> None:
    logits = torch.randn(1, 700, generator=torch.Generator().manual_seed(seed))
    kept = filtered(logits, [SamplingParams(1, top_p=top_p, top_k=top_k)]).isfinite().sum()
    ordered = logits.sort(descending=True).values[:, : top_k or 700].double().softmax(-1)
    mass = ordered.cumsum(-1)
    assert abs(int((mass - ordered < top_p).sum()) - int(kept)) <= 1  # float32 against float64 at the border


def test_penalties_lower_what_was_generated_by_count_and_by_presence() -> None:
    logits = torch.zeros(2, 5)
    sampler = Sampler(5, CPU)
    generated = [0, 0, 0, 1, 2, 3]
    penalised = SamplingParams(1, temperature=0.0, presence_penalty=0.5, frequency_penalty=1.0)
    metadata = SamplingMetadata([penalised, SamplingParams(1, temperature=0.0)])
    edits = {0: LogitEdits(penalties(penalised, 5, generated))}
    assert metadata.edited == [0]
    assert sampler._edited(logits, metadata, edits).tolist() == [[-3.5, -1.5, -1.5, -1.5, 0.0], [0.0] * 5]
    assert sampler.sample(logits, metadata, np.full(2, 6), edits).tolist() == [4, 0]
    assert not logits.any()


def test_repetition_bias_and_the_ban_of_early_stops_are_those_of_transformers() -> None:
    from transformers import LogitsProcessorList, MinNewTokensLengthLogitsProcessor, RepetitionPenaltyLogitsProcessor
    from transformers import SequenceBiasLogitsProcessor as Bias

    logits = torch.randn(1, 30, generator=torch.Generator().manual_seed(3))
    prompt, generated, biases = [4, 4, 9], [1, 2, 2], ((7, 1.5), (9, -0.5))
    sampling = SamplingParams(9, temperature=0.0, repetition_penalty=1.4, logit_bias=biases, min_tokens=4)
    counted = penalties(sampling, 30, generated, prompt)
    ours = Sampler(30, CPU)._edited(logits, SamplingMetadata([sampling]), {0: LogitEdits(counted, (0, 5))})
    processors = LogitsProcessorList(
        [
            Bias({(token,): bias for token, bias in biases}),
            RepetitionPenaltyLogitsProcessor(1.4),
            MinNewTokensLengthLogitsProcessor(3, 4, [0, 5], device="cpu"),
        ]
    )
    torch.testing.assert_close(ours, processors(torch.tensor([prompt + generated]), logits.clone()))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("top_p", 0.0),
        ("min_p", 1.5),
        ("top_k", -1),
        ("seed", 1 << 64),
        ("seed", -1),
        ("presence_penalty", 3.0),
        ("stop_strings", ("",)),
        ("separator", ""),
        ("repetition_penalty", 0.0),
        ("min_tokens", 2),
        ("logit_bias", ((-1, 1.0),)),
        ("logit_bias", ((1, math.inf),)),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidSampling, match=f"^{field} is "):
        SamplingParams(**{"max_tokens": 1, field: value})  # type: ignore[arg-type]
