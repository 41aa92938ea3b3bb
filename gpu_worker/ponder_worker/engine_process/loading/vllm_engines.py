"""Loading models into vLLM, where the options ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ponder.processor import Precision, automatic_precision, bfloat16_instructions
from ponder_worker.engine.engine_error import InvalidSetting
from ponder_worker.engine.inference_engine import InferenceEngine
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.models.checkpoint.folder import GGUF_WEIGHTS, read_json
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.model_error import UnsupportedModel
from ponder_worker.models.readout import Readout
from ponder_worker.vllm_engine import vllm_library

_CPU_KV_BYTES = 1 << 30
_DTYPES = ("float32", "bfloat16", "float16")
_OF_THE_GENERATOR = {"hf_overrides", "load_format", "max_model_len", "quantization", "quantization_config"} | {
    "speculative_config"
}
"""The engine arguments that say something about the generator's checkpoint, and nothing about a reward model's."""


@dataclass(frozen=True, slots=True)
class VllmLoader:
    """Starts vLLM for the models of one worker.

    num_models: how many models share the memory, on whichever engine. args: vLLM's engine arguments, read and checked.
    """

    options: EngineOptions
    num_models: int
    is_cpu: bool
    args: Mapping[str, Any]

    @classmethod
    def prepared(cls, options: EngineOptions, num_models: int) -> VllmLoader:
        """Checks all that can be checked before anything is loaded. Raises InvalidSetting or UnsupportedModel."""
        if options.engine == "vllm" and (Path(options.model) / GGUF_WEIGHTS).is_symlink():
            raise UnsupportedModel(f"{options.model}: only our own engine reads GGUF files: take --engine own")
        found = vllm_library.prepare(options.device)
        if options.dtype == "int8":
            raise InvalidSetting("--dtype int8: with --engine vllm, quantisation is --engine-arg quantization=…")
        args = vllm_library.parse_args(options.engine_args)
        vllm_library.check_together(args)
        return cls(options, num_models, found.is_cpu_build, args)

    def precision(self, folder: str) -> Precision:
        """Returns the dtype that a model is computed in."""
        if (given := self.args.get("dtype", self.options.dtype)) != "auto":
            return Precision(given, "--dtype says so")
        config = read_json(Path(folder), "config.json")
        text = config.get("text_config") or {}
        checkpoint = str(config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or "float32")
        if self.is_cpu:
            return automatic_precision(checkpoint, bfloat16_instructions())
        return Precision(checkpoint if checkpoint in _DTYPES else "auto", "the checkpoint's own")

    def load(
        self, folder: str, tokenizer: Tokenizer, *, is_reward: bool, readout: Readout | None = None
    ) -> InferenceEngine:
        """Raises InvalidSetting where vLLM cannot run the model."""
        from ponder_worker.vllm_engine.loading import VllmSettings, load

        options = self.options
        kv_bytes = options.kv_bytes or (_CPU_KV_BYTES if self.is_cpu else None)
        share = self.share(is_reward=is_reward)
        settings = VllmSettings(
            folder,
            readout,
            is_cpu=self.is_cpu,
            dtype=self.precision(folder).dtype,
            kv_dtype=options.kv_dtype,
            max_sequences=options.max_sequences,
            max_step_tokens=options.max_step_tokens,
            kv_bytes=None if kv_bytes is None else int(kv_bytes * share),
            memory_share=share,
            args=self._args(is_reward=is_reward),
        )
        return load(settings, tokenizer)

    def share(self, *, is_reward: bool) -> float:
        """Returns a model's share of the memory: the generator's is `kv_split`, or a half."""
        if self.num_models == 1:
            return 1.0
        split = self.options.kv_split or 0.5
        return 1 - split if is_reward else split

    def fingerprints(self) -> list[str]:
        """Returns what makes its numbers others than those of our own engine."""
        return ["vllm", *(f"{name}={self.args[name]}" for name in vllm_library.DTYPE_ARGS if name in self.args)]

    def _args(self, *, is_reward: bool) -> Mapping[str, Any]:
        left_out = _OF_THE_GENERATOR if is_reward else ()
        return {name: value for name, value in self.args.items() if name not in left_out}
