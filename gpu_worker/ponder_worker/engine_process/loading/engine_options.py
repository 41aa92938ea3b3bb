"""The settings that the parent gives the engine process at its start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EngineName = Literal["own", "vllm"]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to load and run the models.

    model, reward_model: folders.
    device, dtype: "auto" is a GPU if there is one, and there the checkpoint's own dtype. dtype "int8" computes the
        products of the layers in int8 on a CPU that can, and the rest in bfloat16.
    kv_dtype: of keys and values in pages; "auto" is dtype, "fp8" takes half of bfloat16's memory and is less precise.
    kv_bytes: memory for the keys and values of both models; None takes what the device has left, or 1 GiB on a CPU.
    kv_split: the generator's fixed share of it; with None, generator and reward model trade it as their loads change.
    prefix_caching, speculation: of our own engine; without them, prefixes are computed again by each sequence, and
        nothing is begun before it is asked for.
    engine, reward_engine: "own" or "vllm", of the generator and of the reward model; None takes the generator's.
    engine_args: NAME=VALUE pairs, vLLM's engine arguments.
    shard_tokens: the estimated tokens of the largest shard, the unit in which room is reported.
    log_level, incarnation: the parent's, for the log.
    """

    model: str
    reward_model: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    kv_dtype: str = "auto"
    page_size: int = 16
    max_sequences: int = 256
    max_step_tokens: int = 2048
    kv_bytes: int | None = None
    kv_split: float | None = None
    num_threads: int | None = None
    prefix_caching: bool = True
    speculation: bool = True
    engine: EngineName = "own"
    reward_engine: EngineName | None = None
    engine_args: tuple[str, ...] = ()
    shard_tokens: int = 200_000
    log_level: str = "info"
    incarnation: str | None = None
