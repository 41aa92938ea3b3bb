"""This engine as a peer: run_ponder.py MODEL VOCABULARY KV_BYTES THREADS [DTYPE] DESCRIPTOR"""

import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from serve import serve

from ponder.processor import automatic_precision, bfloat16_instructions
from ponder_worker.engine import Engine, SamplingParams
from ponder_worker.models.checkpoint.config import ModelConfig
from ponder_worker.models.checkpoint.gguf.gguf_folder import model_folder


def main() -> None:
    folder, vocabulary, kv_bytes, threads = sys.argv[1], *map(int, sys.argv[2:5])
    torch.set_num_threads(threads)
    with model_folder(folder) as read:
        config = ModelConfig.read(read)
    name = "".join(sys.argv[5:-1]) or "bfloat16"
    if name == "auto":
        name = automatic_precision(config.dtype, bfloat16_instructions()).dtype
    kv_dtype = torch.float32 if name == "float32" else torch.bfloat16
    page_bytes = 16 * 2 * config.num_layers * config.num_kv_heads * config.head_dim * kv_dtype.itemsize
    engine = Engine.load(folder, dtype=getattr(torch, name), num_pages=kv_bytes // page_bytes)
    seeds = iter(range(1 << 40))

    def generate(prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        sequences = [
            engine.generate(
                prompt,
                prompt_length=len(prompt),
                sampling=SamplingParams(new_tokens, seed=next(seeds), stop_at_end=False),
            )
            for prompt in prompts
        ]
        while engine.has_work:
            engine.step()
        return [sequence.generated for sequence in sequences]

    serve(generate, vocabulary, {"torch": torch.__version__, "dtype": name})


if __name__ == "__main__":
    main()
