"""Measures how much of a GPU's memory is left for keys and values beside the largest step."""

from collections.abc import Sequence as Series

import torch

from ponder_kernels import sample
from ponder_worker.models.transformer import Transformer

_HEADROOM = 1.1  # the allocator's blocks do not fit together without gaps


def room_for_kv(models: Series[Transformer], *, step_tokens: int, num_sequences: int, page_size: int) -> int:
    """Returns the bytes that are free once the weights are loaded, less what the largest step of any model takes."""
    device = models[0].device
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    for model in models:
        largest_step(model, step_tokens=step_tokens, num_sequences=num_sequences, page_size=page_size)
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    torch.cuda.empty_cache()
    return max(0, torch.cuda.mem_get_info(device)[0] - int(_HEADROOM * peak))


@torch.inference_mode()
def largest_step(
    model: Transformer, *, step_tokens: int, num_sequences: int, page_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes a prefill of step_tokens, and samples num_sequences rows. Returns ids and log-probabilities.

    It writes no keys or values, and reads those of one page of zeros.
    """
    step_tokens = min(step_tokens, model.config.context_tokens)
    pages = model.new_pages(1, page_size)
    length = torch.tensor([step_tokens])
    table = torch.zeros((1, -(-step_tokens // page_size)), dtype=torch.int64)
    layouts = model.layouts(length, length, table, pages)
    positions = torch.arange(step_tokens, device=model.device)
    hidden = model.forward(torch.zeros_like(positions), positions, torch.full_like(positions, -1), layouts, pages)
    logits = model.logits(hidden[torch.arange(num_sequences, device=model.device) % step_tokens])
    zero = torch.zeros(num_sequences, device=model.device)
    integer_zero = zero.long()
    return sample.op(
        logits,
        sample.SamplingTensors(zero, integer_zero, zero + 1, zero, integer_zero, integer_zero, zero, zero),
    )
