"""The largest difference of each kernel from a float64 computation, on fresh random inputs."""

from collections.abc import Callable
from typing import Any

import torch
from clock import DEVICE, DTYPE, ON_GPU
from family import rotary_table

from ponder_kernels import copy_pages, rms_norm, sample, swiglu, write_kv, write_qkv

ROWS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM = (512, 4096, 32, 8, 128) if ON_GPU else (5, 64, 4, 2, 16)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, device=DEVICE).to(DTYPE)


def errors(_: dict[str, float]) -> list[dict[str, Any]]:
    """Errors relative to the largest expected number. Those of attention are reported beside its times."""
    found: list[dict[str, Any]] = []
    for check in (norm, gated, written, sampled, copied):
        found.append({"kernel": check.__name__, **check()})
    return found


def greatest(found: torch.Tensor, expected: torch.Tensor) -> dict[str, float]:
    return {"error": float((found.double() - expected).abs().max() / expected.abs().max())}


def norm() -> dict[str, float]:
    x, residual, weight = random(ROWS, HIDDEN), random(ROWS, HIDDEN), random(HIDDEN)
    total = (x.float() + residual.float()).to(DTYPE).double()
    expected = total / (total.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()
    return greatest(rms_norm.op_triton(x, weight, 1e-5, residual), expected)


def gated() -> dict[str, float]:
    x = random(ROWS, 2 * HIDDEN)
    gate, up = x.double().chunk(2, -1)
    return greatest(swiglu.op_triton(x), gate / (1 + (-gate).exp()) * up)


def _rotated(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    first, second = heads.double().chunk(2, -1)
    cos, sin = cosine.double()[:, None], sine.double()[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def written() -> dict[str, float]:
    """Errors of keys and values as `write_qkv` stores them, in the model's dtype and as float8, and of `write_kv`."""
    out: dict[str, float] = {}
    tables = rotary_table(ROWS, HEAD_DIM, 10000.0)
    for name, dtype in (("", DTYPE), ("_fp8", torch.float8_e4m3fn)):
        heads, positions = random(ROWS, HEADS + 2 * KV_HEADS, HEAD_DIM), torch.arange(ROWS, device=DEVICE)
        shape = (-(-ROWS // 16), 2, KV_HEADS, 16, HEAD_DIM)
        pages = torch.zeros(shape, device=DEVICE).to(dtype)
        scales = torch.ones(shape[:-1], device=DEVICE) if name else None
        expected = _rotated(heads[:, HEADS : HEADS + KV_HEADS], *tables)
        values = heads[:, HEADS + KV_HEADS :].double()
        write_qkv.op_triton(heads, write_qkv.Rotation(positions, *tables), pages, positions, scales)
        kv = pages.double() * (1.0 if scales is None else scales[..., None])
        stored = kv.permute(0, 3, 1, 2, 4).reshape(-1, 2, KV_HEADS, HEAD_DIM)[:ROWS]
        out |= {f"keys{name}": greatest(stored[:, 0], expected)["error"]}
        out |= {f"values{name}": greatest(stored[:, 1], values)["error"]}
    plain = random(ROWS, 2, KV_HEADS, HEAD_DIM)
    pages = torch.zeros(shape, device=DEVICE, dtype=DTYPE)
    write_kv.op_triton(plain, pages, positions)
    stored = pages.permute(0, 3, 1, 2, 4).reshape(-1, 2, KV_HEADS, HEAD_DIM)[:ROWS]
    return out | {"write_kv": greatest(stored, plain.double())["error"]}


def sampled() -> dict[str, float]:
    """Log-probabilities compared with float64, and tokens with the reference."""
    vocabulary = 32000 if ON_GPU else 100
    logits = torch.randn(ROWS, vocabulary, device=DEVICE) * 3
    index, full = torch.arange(ROWS, device=DEVICE), torch.ones(ROWS, device=DEVICE)
    choice = sample.SamplingTensors(full, (full * 50).int(), full * 0.95, full * 0, index, index, full * 0, full * 0)
    tokens, logprobs = sample.op_triton(logits, choice)
    same = (tokens == sample.op_reference(logits, choice)[0]).float().mean()
    expected = logits.double().log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    return greatest(logprobs, expected) | {"same_tokens": float(same)}


def copied() -> dict[str, Any]:
    """Pages copied to pinned host memory and back."""
    pages = random(2, 8, 2, KV_HEADS, 16, HEAD_DIM)
    expected, one, two = pages.clone(), torch.tensor([1, 5], device=DEVICE), torch.tensor([6, 0], device=DEVICE)
    host = torch.empty(pages.shape, dtype=DTYPE, pin_memory=ON_GPU)
    away: Callable[..., None] = copy_pages.op_triton
    away(pages, host, one, two)
    pages[:, one] = 0
    away(host, pages, two, one)
    return {"same": torch.equal(pages, expected)}
