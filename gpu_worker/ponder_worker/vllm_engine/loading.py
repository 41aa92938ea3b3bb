"""Starting vLLM on a model folder, and computing once what it compiles at its first use."""

import multiprocessing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

from ponder_worker.engine.engine_error import InvalidSetting
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.models.checkpoint.folder import read_json
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.readout import Readout
from ponder_worker.parent_death import die_with_parent
from ponder_worker.vllm_engine.vllm_engine import VllmEngine

_CPU_BLOCK_SIZE = 32
"""Less than vLLM's own default on a CPU, 128, at which short prompts would share nothing."""
_GPU_MEMORY_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class VllmSettings:
    """How vLLM loads and runs one model.

    readout: None for a model that generates, or whose log-probabilities are asked for. dtype: "auto" is the
    checkpoint's own. kv_bytes: memory for keys and values; None takes `memory_share` of what a GPU gives.
    args: vLLM's own engine arguments, which come before all others.
    """

    folder: str
    readout: Readout | None = None
    is_cpu: bool = True
    dtype: str = "auto"
    kv_dtype: str = "auto"
    max_sequences: int = 256
    max_step_tokens: int = 2048
    kv_bytes: int | None = None
    memory_share: float = 1.0
    args: Mapping[str, Any] = field(default_factory=dict)


class OurExecutor:
    """A class to mix into vLLM's executors, for what vLLM's own lack.

    An executor that is a process dies with the engine process: vLLM's own watch over a pipe begins once the weights are
    loaded, and waits for the step that is being computed.
    """

    model_runner: Any
    """The model runner of the executor that this is mixed into."""

    def __new__(cls, *_: object, **__: object) -> Self:
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid is not None:
            die_with_parent(parent.pid)
        return super().__new__(cls)

    def rewind_generators(self) -> None:
        """Makes a chunk of a prompt that is not its last draw no noise from a seed's generator.

        vLLM moves generators back by an offset, which those of a CPU do not have, and fails. Before the first token of
        a request they can be seeded anew instead.
        """
        runner = self.model_runner
        finish_step = runner._bookkeeping_sync

        def rewound(*args: Any, **kwargs: Any) -> Any:
            batch = runner.input_batch
            generators = batch.generators
            for index in map(int, runner.discard_request_mask.np[: batch.num_reqs].nonzero()[0]):
                if index in generators and not batch.req_output_token_ids[index]:
                    generators[index].manual_seed(generators[index].initial_seed())
            batch.generators = {}
            try:
                return finish_step(*args, **kwargs)
            finally:
                batch.generators = generators

        runner._bookkeeping_sync = rewound


def load(settings: VllmSettings, tokenizer: Tokenizer) -> VllmEngine:
    """Raises InvalidSetting with vLLM's own words where it refuses the model or an argument.

    `vllm_library.prepare` must have been called.
    """
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    if settings.args.get("enforce_eager"):
        torch.compiler.set_stance("force_eager")  # what vLLM compiles beside the model too
    # Executors of a model that is spread are children of this process.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    try:
        llm = LLMEngine.from_engine_args(EngineArgs(**_arguments(settings)))
    except (ValueError, NotImplementedError, RuntimeError, OSError, ImportError, AssertionError) as error:
        raise InvalidSetting(f"{settings.folder}: vLLM cannot run it: {_first_words(error)}") from error
    if settings.is_cpu and settings.readout is None:
        llm.collective_rpc(OurExecutor.rewind_generators.__name__)
    engine = VllmEngine(llm, tokenizer, Path(settings.folder))
    if settings.readout is None:
        engine.share_grammars()
    try:
        _warm_up(engine, settings.readout)
    except Exception as error:  # vLLM learns at the first step that its build has no kernel for this processor
        raise InvalidSetting(f"{settings.folder}: vLLM cannot compute it here: {_first_words(error)}") from error
    return engine


def _arguments(settings: VllmSettings) -> Mapping[str, Any]:
    from ponder_worker.vllm_engine.node_logits import NodeLogits

    pooling = settings.readout is not None and settings.readout.kind != "token"
    arguments: dict[str, object] = {
        "model": settings.folder,
        "runner": "pooling" if pooling else "generate",
        "skip_tokenizer_init": True,
        "dtype": settings.dtype,
        "kv_cache_dtype": settings.kv_dtype,
        "max_model_len": -1,  # as much of the model's context as fits into the memory
        "max_num_seqs": settings.max_sequences,
        "max_num_batched_tokens": settings.max_step_tokens,
        "scheduling_policy": "priority",
        "enable_prefix_caching": True,
        "async_scheduling": False,  # a stop string is known only after its step
        "disable_log_stats": True,
        "worker_extension_cls": f"{__name__}.{OurExecutor.__name__}",
    }
    if pooling:
        arguments["pooler_config"] = {"tok_pooling_type": "ALL"}
    elif "speculative_config" not in settings.args:  # vLLM refuses both together
        arguments["logits_processors"] = [NodeLogits]
    if settings.kv_bytes is not None:
        arguments["kv_cache_memory_bytes"] = settings.kv_bytes
    elif not settings.is_cpu:
        arguments["gpu_memory_utilization"] = _GPU_MEMORY_SHARE * settings.memory_share
    if settings.is_cpu:
        arguments["block_size"] = _CPU_BLOCK_SIZE
        if "kv_lora_rank" in read_json(Path(settings.folder), "config.json"):
            # vLLM's kernel for the CPU rotates such models' interleaved pairs wrongly; its torch code does not.
            arguments["compilation_config"] = {"custom_ops": ["-rotary_embedding"]}
    return arguments | dict(settings.args)


def _first_words(error: BaseException) -> str:
    """Returns the first line that says something: vLLM's errors are long, and pydantic's begin with a count."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "validation error" not in line), type(error).__name__)


def _warm_up(engine: VllmEngine, readout: Readout | None) -> None:
    """Has everything compiled and measured that vLLM leaves to the first request: it may take a minute."""
    prompt = list(range(min(8, engine.longest // 2)))
    if readout is not None:
        engine.read(prompt, [len(prompt) - 1], readout)
    else:
        sampling = SamplingParams(
            max_tokens=2, temperature=1.0, top_p=0.9, top_k=8, presence_penalty=0.1, stop_at_end=False
        )
        for plain in (sampling, SamplingParams(max_tokens=2, temperature=0.0, stop_at_end=False)):
            engine.generate(prompt, prompt_length=len(prompt), sampling=plain)
        engine.score(prompt, start=1)
    while engine.has_work:
        engine.step()
    engine.forget_counts()
