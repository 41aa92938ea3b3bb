"""Loading models into our own engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from ponder.processor import Precision, automatic_precision, bfloat16_instructions
from ponder_worker.engine import Engine, Memory
from ponder_worker.engine.step.graph import captured
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.engine_process.loading.memory_sizes import sizes
from ponder_worker.models.checkpoint.config import ModelConfig
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.model_error import UnsupportedModel
from ponder_worker.models.transformer import Transformer
from ponder_worker.vllm_engine.vllm_library import INSTALL

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}
_KV_DTYPES = {"auto": None, "fp8": torch.float8_e4m3fn}


def precision_of(folder: str, asked: str, device: torch.device) -> Precision:
    """Returns the precision of a model. Raises UnsupportedModel for one that our engine does not run."""
    with _naming_vllm():
        ModelConfig.read(folder)  # also where --dtype says it: what cannot be run is refused before anything is loaded
        return _precision(folder, asked, device)


def read_model(folder: str, precision: Precision, device: torch.device, options: EngineOptions) -> Transformer:
    with _naming_vllm():
        return Transformer.load(
            folder, dtype=_DTYPES[precision.dtype], device=device, kv_dtype=_KV_DTYPES[options.kv_dtype]
        )


def engines_of(tokenizers: list[Tokenizer], models: list[Transformer], options: EngineOptions) -> list[Engine]:
    """Makes an engine of each model; they trade one memory unless the options split it."""
    found = sizes(models, options)
    memory = None if found.shared_bytes is None else Memory(found.shared_bytes, models, options.page_size)
    return [
        Engine(
            model,
            tokenizer,
            num_pages=pages,
            page_size=options.page_size,
            max_step_tokens=options.max_step_tokens,
            max_sequences=options.max_sequences,
            memory=memory,
            prefix_caching=options.prefix_caching,
            num_offload_pages=offload_pages,
            capture=captured if model.device.type == "cuda" else None,
        )
        for tokenizer, model, pages, offload_pages in zip(
            tokenizers, models, found.num_pages, found.num_offload_pages, strict=True
        )
    ]


def _precision(folder: str, asked: str, device: torch.device) -> Precision:
    if asked != "auto":
        return Precision(asked, "--dtype says so")
    checkpoint = ModelConfig.read(folder).dtype
    if device.type == "cpu":
        return automatic_precision(checkpoint, bfloat16_instructions())
    if checkpoint in _DTYPES:
        return Precision(checkpoint, "the checkpoint's own")
    return Precision("float32", f"the checkpoint's {checkpoint} is not supported")


@contextlib.contextmanager
def _naming_vllm() -> Iterator[None]:
    """Adds to the refusal of a checkpoint which engine may run it."""
    try:
        yield
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{error}. --engine vllm runs many more: {INSTALL}") from error
