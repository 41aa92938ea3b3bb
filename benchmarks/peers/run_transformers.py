"""transformers as a peer: run_transformers.py FOLDER VOCABULARY KV_BYTES THREADS generate|generate_batch DESCRIPTOR"""

import sys

import torch
import transformers
from pattern import Generate
from serve import serve
from transformers import GenerationConfig


def main() -> None:
    folder, vocabulary, kv_bytes, threads = sys.argv[1], *map(int, sys.argv[2:5])
    torch.set_num_threads(threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    make = batched if sys.argv[5] == "generate" else continuous
    serve(make(model, kv_bytes), vocabulary, {"transformers": transformers.__version__, "torch": torch.__version__})


def settings(new_tokens: int) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=new_tokens, min_new_tokens=0, do_sample=True, top_k=0, eos_token_id=-1, pad_token_id=0
    )


def batched(model: transformers.PreTrainedModel, kv_bytes: int) -> Generate:
    """One call for all prompts, which have the same length. Its memory has no limit."""

    def generate(prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        tokens = torch.tensor(prompts)
        with torch.inference_mode():
            found = model.generate(
                tokens, attention_mask=torch.ones_like(tokens), generation_config=settings(new_tokens)
            )
        return [row[len(prompts[0]) :] for row in found.tolist()]

    return generate


def continuous(model: transformers.PreTrainedModel, kv_bytes: int) -> Generate:
    """Continuous batching over pages of its own."""
    config = transformers.generation.configuration_utils.ContinuousBatchingConfig(
        page_size=32, num_blocks=kv_bytes // (32 * kv_bytes_per_token(model)), max_batch_tokens=2048
    )

    def generate(prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        found = model.generate_batch(
            prompts,
            generation_config=settings(new_tokens),
            continuous_batching_config=config,
            warmup=False,
            persistent_manager=True,
        )
        order = sorted(found, key=lambda name: int(name.rsplit("_", 1)[-1]))
        return [list(found[name].generated_tokens) for name in order]

    return generate


def kv_bytes_per_token(model: transformers.PreTrainedModel) -> int:
    config = model.config
    head_dim = config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * config.num_key_value_heads * head_dim * 2)


if __name__ == "__main__":
    main()
