"""Sampling in C against torch's operators."""

import numpy as np
import pytest
import torch

from ponder_worker.engine.sampling.sampler import Sampler
from ponder_worker.engine.sampling.sampling_metadata import SamplingMetadata
from ponder_worker.engine.sampling.sampling_params import SamplingParams

CPU = torch.device("cpu")


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_and_their_logprobs_are_those_of_torch(dtype: torch.dtype) -> None:
    logits = (torch.randn(500, 203, generator=torch.Generator().manual_seed(0)) * 3).to(dtype).float()
    samplings = [
        SamplingParams(1, seed=seed, temperature=(0.0, 0.7, 1.0)[seed % 3], top_k=seed % 5) for seed in range(500)
    ]
    metadata, positions = SamplingMetadata(samplings), np.arange(500)
    sampler, plain = Sampler(203, CPU), Sampler(203, CPU)
    plain._choice = None
    found, expected = (one.sample(logits, metadata, positions, {}) for one in (sampler, plain))
    assert int((found != expected).sum()) <= 1  # logarithms differ in the last place
    torch.testing.assert_close(
        sampler.logprobs(logits, expected), plain.logprobs(logits, expected), atol=1e-5, rtol=1e-5
    )
