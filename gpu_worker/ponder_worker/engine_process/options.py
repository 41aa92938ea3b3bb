"""What the parent tells the child at its birth."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """model, reward_model: folders. device, dtype: "auto" is a GPU if there is one, and the model's own type there.

    dtype "int8": weights and activations of the layers' products, on a CPU that can; the rest is bfloat16 then.
    kv_dtype: of keys and values in pages; "auto" is dtype, "fp8" takes half of bfloat16's memory and is less precise.
    kv_bytes: memory for the keys and values of both models; unset is what the device has left, or a gigabyte on a CPU.
    kv_split: the generator's part of it, for good; unset, generator and reward model trade it as their loads change.
    shard_tokens: the estimated tokens of the largest shard, in which room is told.
    log_level, incarnation: of the parent, for the log.
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
    shard_tokens: int = 200_000
    log_level: str = "info"
    incarnation: str | None = None

    @classmethod
    def parse(cls, text: str) -> EngineOptions:
        """Unknown fields are an error: a typing error in an option should not be ignored."""
        given = json.loads(text)
        unknown = given.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown engine options: {', '.join(sorted(unknown))}")
        return cls(**given)
