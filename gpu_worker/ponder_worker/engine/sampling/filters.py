"""Which tokens may be drawn at all: top-k, top-p, min-p."""

from collections.abc import Sequence as Series

import torch

from ponder_worker.engine.sampling.sampling_params import SamplingParams


def filtered(scores: torch.Tensor, samplings: Series[SamplingParams]) -> torch.Tensor:
    """-inf where a row's top_k, top_p or min_p leaves a token out; ties at the threshold stay in.

    Only as many candidates are sorted as the rows need, not the vocabulary.
    """
    vocabulary = scores.shape[1]
    device = scores.device
    top_k = torch.tensor([[s.top_k or vocabulary] for s in samplings], device=device).clamp_(max=vocabulary)
    top_p = torch.tensor([[s.top_p] for s in samplings], device=device)
    min_p = torch.tensor([[s.min_p] for s in samplings], device=device)
    num_candidates = min(vocabulary, max([64, *(s.top_k for s in samplings)]))
    while True:
        best = scores.topk(num_candidates, dim=-1).values
        inside = torch.arange(num_candidates, device=device) < top_k
        # top_p is taken of what top_k left; where that is everything, of the whole vocabulary.
        total = torch.where(
            top_k < vocabulary,
            best.masked_fill(~inside, float("-inf")).logsumexp(-1, keepdim=True),
            scores.logsumexp(-1, keepdim=True),
        )
        before = (best - total).exp().cumsum(-1) - (best - total).exp()
        inside &= before < top_p
        ended = ~inside[:, -1:] | (top_k <= num_candidates) | (top_p >= 1)
        if num_candidates == vocabulary or bool(ended.all()):
            break
        num_candidates = min(vocabulary, 8 * num_candidates)
    threshold = best.masked_fill(~inside, float("inf")).amin(-1, keepdim=True)
    threshold.masked_fill_((top_p >= 1) & (top_k >= vocabulary), float("-inf"))
    threshold = torch.maximum(threshold, best[:, :1] + min_p.log())
    return scores.masked_fill(scores < threshold, float("-inf"))
