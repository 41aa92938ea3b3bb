"""The engine on a GPU: parity with transformers, decode and prefill compared with the GPU's limits, best-of-64, beams.

    PYTHONPATH=gpu_worker:kernels python benchmarks/gpu/engine.py --out benchmarks/results/engine_gpu.json

It needs torch, triton, numpy, safetensors, tokenizers and transformers, and no installed ponder. Weights are random and
never on a disk. Without a GPU, or with `--quick`, it takes a small model on the CPU, which shows that the file runs.
The limit of a decode is the time to read the weights and all keys and values at the bandwidth of a copy, or the time of
the products at the matrix rate, whichever is longer. No new part begins after `--seconds`. The last line of standard
output is one JSON object.
"""

import argparse
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "--quick" in sys.argv:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))

import torch
from clock import DEVICE, ON_GPU, measured
from pattern import Case, play
from transformers import GenerationConfig
from twin import LLAMA_1B, QWEN_7B, SMALL, Fields, Twin, replays

from ponder_worker.engine import Engine, SamplingParams

LONG_S = 45.0
BFLOAT = torch.bfloat16
SHAPES: dict[str, Fields] = {"Llama-3.2-1B": LLAMA_1B, "Qwen2.5-7B": QWEN_7B} if ON_GPU else {"small": SMALL}
STEPS = 64 if ON_GPU else 4
VARIANTS = [(False, False), (True, False), (True, True)] if ON_GPU else [(False, False), (False, True)]
"""Steps captured, float8 keys and values."""
DECODES = [(1, 2048), (64, 2048), (256, 2048)] if ON_GPU else [(1, 40), (8, 40)]
PATTERNS = (
    [Case("4 x best of 64, prompt 2048", 4, 64, 2048, 256), Case("16 x 16 beams, 8 rounds of 64", 16, 16, 512, 64, 8)]
    if ON_GPU
    else [Case("2 x best of 4", 2, 4, 40, 8), Case("2 x 4 beams, 2 rounds of 8", 2, 4, 40, 8, 2)]
)


def parity(_: dict[str, float]) -> list[dict[str, Any]]:
    """Log-probabilities of a prefill and greedy tokens of a decode, compared with those of transformers in float32."""
    out = []
    for dtype in (torch.float32, BFLOAT):
        torch.manual_seed(time.time_ns() & 0xFFFFFFFF)
        twin = Twin.of(SMALL, dtype)
        tokens = torch.randint(0, SMALL["vocab_size"], (200,)).tolist()
        engine = twin.engine(1000)
        found, rounded = (scored(each, tokens) for each in (engine, twin.engine(1000, float8=True)))
        with torch.inference_mode():
            prompt = torch.tensor([tokens], device=DEVICE)
            greedy = twin.library.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=100, do_sample=False, eos_token_id=None,
                pad_token_id=0,
            )[0, 200:].tolist()  # fmt: skip
            rows = twin.library.float()(prompt).logits[0, :-1].log_softmax(-1).cpu()
        expected = rows.gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
        sampling = SamplingParams(100, temperature=0.0, stop_at_end=False)
        sequence = engine.generate(tokens, prompt_length=200, sampling=sampling)
        drain(engine)
        same = sum(one == other for one, other in zip(sequence.generated, greedy, strict=True))
        if ON_GPU:
            replaying = twin.engine(1000, graphs=True)
            again = replaying.generate(tokens, prompt_length=200, sampling=sampling)
            drain(replaying)
            alike = again.generated == sequence.generated if replays(replaying) else None
            out.append({"dtype": str(dtype), "replayed_tokens_are_the_same": alike})
        row = {"dtype": str(dtype), "logprob_error": worst(found, expected), "same_greedy_tokens": same}
        out.append(row | {"of": len(greedy), "logprob_error_of_float8_kv": worst(rounded, expected)})
    return out


def scored(engine: Engine, tokens: list[int]) -> torch.Tensor:
    sequence = engine.score(tokens, start=1)
    drain(engine)
    return torch.tensor(sequence.logprobs)


def worst(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max())


def drain(engine: Engine) -> list[Any]:
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    return outputs


def waited(engine: Engine) -> float:
    """Seconds of one step, until its tokens are on the host."""
    begin = time.perf_counter()
    engine.step()
    return time.perf_counter() - begin


def speed(limit: dict[str, float]) -> list[dict[str, Any]]:
    """Speed of prefill and decode of different prompts, by shape and number of sequences."""
    out: list[dict[str, Any]] = []
    for name, fields in SHAPES.items():
        twin = Twin.of(fields, BFLOAT)
        del twin.library  # its weights are held no longer than the engine needs them
        for count, context in DECODES:
            room = count * (context + 2 * STEPS + 16)
            for graphs, float8 in VARIANTS:
                row = {"shape": name, "sequences": count, "context": context, "float8_kv": float8}
                try:
                    row |= run(twin.engine(room, graphs=graphs, float8=float8), twin, count, context, limit)
                except RuntimeError as error:  # the other parts are still worth having
                    row["failed"] = repr(error)[:300]
                out.append(row)
                if ON_GPU:
                    torch.cuda.empty_cache()
        del twin
    return out


def run(engine: Engine, twin: Twin, count: int, context: int, limit: dict[str, float]) -> dict[str, Any]:
    model = engine.model
    chance = random.Random(time.time_ns())
    for seed in range(count):
        prompt = [chance.randrange(model.config.vocabulary_size) for _ in range(context)]
        sampling = SamplingParams(2 * STEPS, temperature=1.0, seed=seed, stop_at_end=False)
        last = engine.generate(prompt, prompt_length=context, sampling=sampling)
    begin = time.perf_counter()
    while not last.generated:
        engine.step()
    prefill_s = time.perf_counter() - begin
    times = sorted(waited(engine) for _ in range(STEPS))
    decode_s = times[len(times) // 2]
    kv_bytes = count * (context + STEPS) * model.kv_bytes_per_token
    bound_s = max(
        (twin.weight_bytes + kv_bytes) / limit["copy_bytes_s"], count * model.flops_per_token / limit["matrix_flops"]
    )
    drain(engine)
    return {
        "graphs": replays(engine),
        "decode_tokens_s": count / decode_s, "of_limit": bound_s / decode_s,
        "limit_tokens_s": count / bound_s, "prefill_tokens_s": count * context / prefill_s,
        "prefill_of_matrix_rate": count * context * model.flops_per_token / prefill_s / limit["matrix_flops"],
    }  # fmt: skip


def patterns(_: dict[str, float]) -> list[dict[str, Any]]:
    """Times of the patterns on the first shape, in turn with the continuous batching of transformers."""
    name, fields = next(iter(SHAPES.items()))
    twin = Twin.of(fields, BFLOAT)
    out = []
    for case in PATTERNS:
        room = case.problems * case.siblings * (case.prompt + case.new * case.rounds)
        engine = twin.engine(room, graphs=ON_GPU)
        row: dict[str, Any] = {"shape": name, "case": case.name, "tokens": case.num_tokens}
        for turn in range(2):  # the first of each is a warm-up, unless it is long
            begin = time.perf_counter()
            play(case, lambda prompts, new, engine=engine: generated(engine, prompts, new), fields["vocab_size"], turn)
            row["engine_s"] = time.perf_counter() - begin
            begin = time.perf_counter()
            if row.get("transformers_s", 0.0) > LONG_S:
                continue
            try:
                play(
                    case,
                    lambda prompts, new, room=room: continuous(twin, prompts, new, room),
                    fields["vocab_size"],
                    turn,
                )
            except Exception as error:  # the engine's own figure is valid without it
                row["transformers_failed"] = repr(error)[:300]
                continue
            row["transformers_s"] = time.perf_counter() - begin
        row["graphs"] = replays(engine)
        row["attention_of_transformers"] = twin.library.config._attn_implementation
        row["ratio"] = row["transformers_s"] / row["engine_s"] if "transformers_s" in row else None
        row["engine_tokens_s"] = case.num_tokens / row["engine_s"]
        out.append(row)
    return out


def generated(engine: Engine, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
    sequences = [
        engine.generate(
            prompt,
            prompt_length=len(prompt),
            sampling=SamplingParams(new_tokens, temperature=1.0, seed=seed, stop_at_end=False),
        )
        for seed, prompt in enumerate(prompts)
    ]
    drain(engine)
    return [sequence.generated for sequence in sequences]


def continuous(twin: Twin, prompts: list[list[int]], new_tokens: int, room: int) -> list[list[int]]:
    from transformers.generation.configuration_utils import ContinuousBatchingConfig  # not every version has it

    page = 256 if ON_GPU else 32
    found = twin.library.generate_batch(
        prompts,
        generation_config=GenerationConfig(
            max_new_tokens=new_tokens, min_new_tokens=0, do_sample=True, top_k=0, eos_token_id=-1, pad_token_id=0
        ),
        continuous_batching_config=ContinuousBatchingConfig(
            page_size=page, num_blocks=-(-room // page) + len(prompts), max_batch_tokens=8192
        ),
        warmup=False,
        persistent_manager=True,
    )
    order = sorted(found, key=lambda name: int(name.rsplit("_", 1)[-1]))
    return [list(found[name].generated_tokens) for name in order]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the engine on this machine's GPU.")
    parser.add_argument("--out", type=Path, help="Also write the JSON here.")
    parser.add_argument("--seconds", type=float, default=240.0, help="Seconds after which no new part begins.")
    parser.add_argument("--quick", action="store_true", help="A small model on the CPU.")
    options = parser.parse_args()
    measured("the engine of ponder", [parity, speed, patterns], options.seconds, options.out)


if __name__ == "__main__":
    main()
