# ruff: noqa: N803, PLR0915, PLR0917 -- constexpr names and argument lists of kernels are Triton's way
"""Sampling of the next token of each row, without sorting the vocabulary and without waiting for the host.

A filter is a threshold: the least value such that the tokens above it are fewer, or less probable, than a limit. It is
found by bisection over float32 numbers in the order of their bits. The noise is a hash of (seed, position, token id)
and of nothing else. The kernel is bound by the L2 cache: it reads a row twice, and 32 times more for each of top_k and
top_p that is in use.
"""

from dataclasses import dataclass

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["SamplingTensors", "noise", "op", "op_reference", "op_triton"]


BLOCK = 4096


@dataclass(frozen=True, slots=True)
class SamplingTensors:
    """The sampling parameters of each row, all `[num_rows]` on the device of the logits.

    temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 are off. seeds: int64, used as bits. positions: int64.
    top_k: int32. The others are float32, except counts: int32 `[num_rows, vocabulary]`, how often each token was
    generated, or None if there are no penalties.
    """

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor
    seeds: torch.Tensor
    positions: torch.Tensor
    presence_penalty: torch.Tensor
    frequency_penalty: torch.Tensor
    counts: torch.Tensor | None = None


def op(logits: torch.Tensor, params: SamplingTensors) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples one token a row from float32 logits `[num_rows, vocabulary]`.

    Returns token ids, int64 `[num_rows]`, and their log-probabilities before penalties, temperature and filters,
    float32 `[num_rows]`. The order is temperature, top_k, top_p, min_p. Ties at a threshold stay in.
    """
    run = op_triton if logits.is_cuda and triton is not None else op_reference
    return run(logits, params)


def op_reference(logits: torch.Tensor, params: SamplingTensors) -> tuple[torch.Tensor, torch.Tensor]:
    scores, greedy = logits, params.temperature == 0
    if params.counts is not None:
        count = params.counts.float()
        scores = scores - count * params.frequency_penalty[:, None] - (count > 0) * params.presence_penalty[:, None]
    scores = scores / torch.where(greedy, 1.0, params.temperature)[:, None]
    vocabulary = scores.shape[1]
    best = scores.sort(dim=-1, descending=True).values
    top_k = torch.where((params.top_k > 0) & ~greedy, params.top_k.clamp(max=vocabulary), vocabulary)[:, None]
    inside = torch.arange(vocabulary, device=logits.device) < top_k
    share = best.masked_fill(~inside, float("-inf")).softmax(-1)
    top_p = torch.where(greedy, 1.0, params.top_p)[:, None]
    inside &= (top_p >= 1) | (share.cumsum(-1) - share < top_p)
    threshold = best.masked_fill(~inside, float("inf")).amin(-1)
    threshold = torch.maximum(threshold, best[:, 0] + torch.where(greedy, 0.0, params.min_p).log())
    scores = scores.masked_fill(scores < threshold[:, None], float("-inf"))
    scores = scores + noise(params.seeds, params.positions, vocabulary) * ~greedy[:, None]
    tokens = scores.argmax(-1)
    return tokens, logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)


def noise(seeds: torch.Tensor, positions: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Standard Gumbel noise, always finite: float32 `[num_rows, vocabulary]`."""
    key = _mix(seeds ^ _mix(positions))
    token = torch.arange(vocabulary, dtype=torch.int64, device=seeds.device) * 0x9E3779B9
    bits = _scramble((token + (key & 0xFFFFFFFF)[:, None]) & 0xFFFFFFFF)
    bits = _scramble(bits ^ ((key >> 32) & 0xFFFFFFFF)[:, None])
    # 31 bits, plus half a unit: the small values of the exponential, which decide the race, keep all their bits.
    uniform = (((bits & 0x7FFFFFFF).float() + 0.5) * 2.0**-31).clamp(max=1 - 2.0**-24)
    return -(-torch.log1p(-uniform)).log()


def _mix(x: torch.Tensor) -> torch.Tensor:
    """One step of splitmix64 (https://prng.di.unimi.it/splitmix64.c) in int64, which wraps."""
    x = x + (0x9E3779B97F4A7C15 - (1 << 64))
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * (0xBF58476D1CE4E5B9 - (1 << 64))
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * (0x94D049BB133111EB - (1 << 64))
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def _scramble(x: torch.Tensor) -> torch.Tensor:
    """The hash lowbias32 (https://nullprogram.com/blog/2018/07/31/) of 32 bits held in int64."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def op_triton(logits: torch.Tensor, params: SamplingTensors) -> tuple[torch.Tensor, torch.Tensor]:
    rows, vocabulary = logits.shape
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    logprobs = torch.empty(rows, dtype=torch.float32, device=logits.device)
    counts = params.counts
    if rows:
        kernel[(rows,)](
            logits, tokens, logprobs, params.temperature, params.top_k, params.top_p, params.min_p, params.seeds,
            params.positions, params.presence_penalty, params.frequency_penalty, logits if counts is None else counts,
            logits.stride(0), vocabulary,
            COUNTS=counts is not None, BLOCK=min(BLOCK, triton.next_power_of_2(vocabulary)), num_warps=8,
        )  # fmt: skip
    return tokens, logprobs


if triton is not None:

    @triton.jit
    def mix(x):  # type: ignore[no-untyped-def]
        x = x + 0x9E3779B97F4A7C15
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB
        return x ^ (x >> 31)

    @triton.jit
    def scramble(x):  # type: ignore[no-untyped-def]
        x = (x ^ (x >> 16)) * tl.full([1], 0x7FEB352D, tl.uint32)
        x = (x ^ (x >> 15)) * tl.full([1], 0x846CA68B, tl.uint32)
        return x ^ (x >> 16)

    @triton.jit
    def gumbel(low, high, token):  # type: ignore[no-untyped-def]
        bits = scramble(token.to(tl.uint32) * tl.full([1], 0x9E3779B9, tl.uint32) + low)
        bits = scramble(bits ^ high)
        uniform = ((bits & 0x7FFFFFFF).to(tl.int32).to(tl.float32) + 0.5) * 4.656612873077393e-10
        uniform = tl.minimum(uniform, 1.0 - 5.9604644775390625e-08)
        # log1p(-u), corrected for the rounding of 1 - u
        rest = 1.0 - uniform
        log = tl.where(rest == 1.0, -uniform, tl.log(rest) * (uniform / tl.where(rest == 1.0, 1.0, 1.0 - rest)))
        return -tl.log(-log)

    @triton.jit  # type: ignore[untyped-decorator]
    def scores_of(  # type: ignore[no-untyped-def]
        logits, counts, token, inside, divisor, presence, frequency, COUNTS: tl.constexpr
    ):
        value = tl.load(logits + token, mask=inside, other=float("-inf"))
        if COUNTS:
            count = tl.load(counts + token, mask=inside, other=0).to(tl.float32)
            value = value - count * frequency - tl.where(count > 0, presence, 0.0)
        return value / divisor

    @triton.jit
    def value_of(order):  # type: ignore[no-untyped-def]
        """The float32 number at a place in the order of all of them. Place 0 is 0.0, place -1 is -0.0."""
        bits = tl.where(order >= 0, order, -1 - order + 0x80000000)
        return bits.to(tl.uint32).to(tl.float32, bitcast=True)

    @triton.jit  # type: ignore[untyped-decorator]
    def above(  # type: ignore[no-untyped-def]
        pivot, floor, peak, logits, counts, vocabulary, divisor, presence, frequency,
        WEIGH: tl.constexpr, COUNTS: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        """Number or total weight of the values above the pivot. Values below the floor do not count."""
        total = tl.zeros([BLOCK], tl.float32)
        for first in range(0, vocabulary, BLOCK):
            token = first + tl.arange(0, BLOCK)
            score = scores_of(logits, counts, token, token < vocabulary, divisor, presence, frequency, COUNTS)
            weight = tl.exp(score - peak) if WEIGH else 1.0
            total += tl.where((score > pivot) & (score >= floor), weight, 0.0)
        return tl.sum(total, 0)

    @triton.jit  # type: ignore[untyped-decorator]
    def least(  # type: ignore[no-untyped-def]
        limit, floor, peak, logits, counts, vocabulary, divisor, presence, frequency,
        WEIGH: tl.constexpr, COUNTS: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        """The least float32 number such that what is above it is less than the limit."""
        low = tl.full([], -0x7F800001, tl.int64)  # -inf
        high = tl.full([], 0x7F800000, tl.int64)  # inf
        for _ in range(32):
            middle = (low + high) >> 1
            found = above(
                value_of(middle), floor, peak, logits, counts, vocabulary, divisor, presence, frequency,
                WEIGH, COUNTS, BLOCK,
            )  # fmt: skip
            enough = found < limit
            high = tl.where(enough, middle, high)
            low = tl.where(enough, low, middle + 1)
        return value_of(high)

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        logits, tokens, logprobs, temperature, top_k, top_p, min_p, seeds, positions, presence_penalty,
        frequency_penalty, counts, stride, vocabulary, COUNTS: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        """Samples one row."""
        row = tl.program_id(0).to(tl.int64)
        logits += row * stride
        counts += row * vocabulary
        divisor = tl.load(temperature + row)
        greedy = divisor == 0.0
        divisor = tl.where(greedy, 1.0, divisor)
        presence = tl.load(presence_penalty + row)
        frequency = tl.load(frequency_penalty + row)
        peaks = tl.full([BLOCK], float("-inf"), tl.float32)
        raw_peaks = tl.full([BLOCK], float("-inf"), tl.float32)
        for first in range(0, vocabulary, BLOCK):
            token = first + tl.arange(0, BLOCK)
            inside = token < vocabulary
            score = scores_of(logits, counts, token, inside, divisor, presence, frequency, COUNTS)
            peaks = tl.maximum(peaks, score)
            raw_peaks = tl.maximum(raw_peaks, tl.load(logits + token, mask=inside, other=float("-inf")))
        peak = tl.max(peaks, 0)
        raw_peak = tl.max(raw_peaks, 0)
        threshold = tl.full([], float("-inf"), tl.float32)
        k = tl.load(top_k + row)
        filters = (k > 0) & (k < vocabulary) & (divisor > 0) & (greedy == 0)
        if filters:
            threshold = least(
                k.to(tl.float32), threshold, peak, logits, counts, vocabulary, divisor, presence, frequency,
                False, COUNTS, BLOCK,
            )  # fmt: skip
        p = tl.load(top_p + row)
        if (p < 1.0) & (greedy == 0):
            mass = above(
                threshold,
                threshold,
                peak,
                logits,
                counts,
                vocabulary,
                divisor,
                presence,
                frequency,
                True,
                COUNTS,
                BLOCK,
            )
            if filters:  # of the values that tie at the threshold, only the rest of k counts
                number = above(
                    threshold, threshold, peak, logits, counts, vocabulary, divisor, presence, frequency,
                    False, COUNTS, BLOCK,
                )  # fmt: skip
                mass += (k.to(tl.float32) - number) * tl.exp(threshold - peak)
            nucleus = least(
                p * mass, threshold, peak, logits, counts, vocabulary, divisor, presence, frequency, True, COUNTS, BLOCK
            )
            threshold = tl.maximum(threshold, nucleus)
        m = tl.load(min_p + row)
        if (m > 0.0) & (greedy == 0):
            threshold = tl.maximum(threshold, peak + tl.log(m))
        key = mix(
            tl.load(seeds + row).to(tl.uint64, bitcast=True) ^ mix(tl.load(positions + row).to(tl.uint64, bitcast=True))
        )
        low = (key & 0xFFFFFFFF).to(tl.uint32)
        high = (key >> 32).to(tl.uint32)
        best = tl.full([BLOCK], float("-inf"), tl.float32)
        chosen = tl.zeros([BLOCK], tl.int32)
        masses = tl.zeros([BLOCK], tl.float32)
        for first in range(0, vocabulary, BLOCK):
            token = first + tl.arange(0, BLOCK)
            inside = token < vocabulary
            score = scores_of(logits, counts, token, inside, divisor, presence, frequency, COUNTS)
            masses += tl.exp(tl.load(logits + token, mask=inside, other=float("-inf")) - raw_peak)
            score = tl.where(score < threshold, float("-inf"), score)
            score += tl.where(greedy, 0.0, gumbel(low, high, token))
            better = score > best
            best = tl.where(better, score, best)
            chosen = tl.where(better, token, chosen)
        top = tl.max(best, 0)
        token = tl.min(tl.where(best == top, chosen, vocabulary), 0)
        tl.store(tokens + row, token.to(tl.int64))
        tl.store(logprobs + row, tl.load(logits + token) - raw_peak - tl.log(tl.sum(masses, 0)))
