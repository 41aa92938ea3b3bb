import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder_kernels import sample
from ponder_worker.engine import SamplingParams
from ponder_worker.engine.sampling.sampler import Sampler
from ponder_worker.engine.sampling.sampling_metadata import SamplingMetadata

CPU = torch.device("cpu")
SAMPLINGS = st.builds(
    SamplingParams,
    max_tokens=st.just(1),
    seed=st.integers(0, 2**64 - 1),
    temperature=st.sampled_from([0.0, 0.7, 1.0, 1.3]),
    top_k=st.sampled_from([0, 1, 5, 9]),
    top_p=st.sampled_from([1.0, 0.8, 0.5]),
    min_p=st.sampled_from([0.0, 0.02, 0.1]),
)


@settings(deadline=None)
@given(st.lists(SAMPLINGS, min_size=1, max_size=8), st.integers(0, 1000))
def test_the_kernel_chooses_the_tokens_that_the_sampler_chooses(samplings: list[SamplingParams], first: int) -> None:
    sampler, metadata = Sampler(300, CPU), SamplingMetadata(samplings)
    positions = np.arange(first, first + len(samplings))
    logits = torch.randn(len(samplings), 300, generator=torch.Generator().manual_seed(first)) * 3
    assert (
        sampler.by_kernel(logits, metadata, positions).tolist()
        == sampler.sample(logits, metadata, positions, {}).tolist()
    )


def test_the_noise_of_the_kernel_is_that_of_the_sampler() -> None:
    seeds = [(row * 0x9E3779B97F4A7C15) % 2**64 for row in range(40)]
    signed = torch.from_numpy(np.array(seeds, dtype=np.uint64).view(np.int64))
    found = sample.noise(signed, torch.arange(40), 300)
    torch.testing.assert_close(found, Sampler(300, CPU).noise(seeds, list(range(40))))
