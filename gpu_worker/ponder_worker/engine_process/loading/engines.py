"""Loading models from their folders into engines."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ponder.processor import Precision, automatic_precision, bfloat16_instructions
from ponder_worker.engine import Engine, Memory
from ponder_worker.engine.engine_error import InvalidSetting
from ponder_worker.engine.step.graph import captured
from ponder_worker.engine_process.loading import thinking
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.engine_process.loading.memory_sizes import sizes
from ponder_worker.models import reward
from ponder_worker.models.checkpoint.config import ModelConfig
from ponder_worker.models.checkpoint.folder import fingerprint, read_json
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.model_error import MissingFile
from ponder_worker.models.readout import Readout
from ponder_worker.models.reward import Likelihood, Mark
from ponder_worker.models.transformer import Transformer
from ponder_worker.search.thought import Thought

_log = logging.getLogger(__name__)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}
_KV_DTYPES = {"auto": None, "fp8": torch.float8_e4m3fn}
_QUANTISED = ("int8", "fp8")


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """The defaults of generation_config.json, and OpenAI's where it says nothing."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int | None = None

    @classmethod
    def read(cls, folder: str) -> SamplingDefaults:
        fields = read_json(Path(folder), "generation_config.json", required=False)
        return cls(
            temperature=float(_given(fields, "temperature", 1.0)),
            top_p=float(_given(fields, "top_p", 1.0)),
            top_k=int(_given(fields, "top_k", 0)),
            max_tokens=int(_given(fields, "max_new_tokens", 0)) or None,
        )


@dataclass(frozen=True, slots=True)
class Engines:
    """Generator and reward model, and what searches need to know about them.

    readout: how a reward model is read at marks, if it is. same_tokens: generator and reward model read the same ids,
    with no marks among them. longest, longest_scored: the most tokens of one sequence.
    """

    generator: Engine
    reward: Engine | None
    reward_kind: Likelihood | Mark | None
    readout: Readout | None
    thought: Thought | None
    same_tokens: bool
    longest: int
    longest_scored: int
    defaults: SamplingDefaults
    fingerprint: str
    flops_per_byte: float
    """The machine constant that turns bytes of memory traffic into operations, so that both make one weight."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The device of the models, and the precision of the generator and, if there is one, of the reward model."""

    device: torch.device
    precisions: tuple[Precision, ...]


def load(options: EngineOptions, on_placed: Callable[[Placement], None] = lambda placement: None) -> Engines:
    """Raises a ModelError that says what is wrong with which file. on_placed is called before any weights are read."""
    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
    device = _device(options.device)
    folders = [options.model] + ([options.reward_model] if options.reward_model else [])
    kinds = [reward.read(folder) for folder in folders[1:]]  # before any weights, so that it fails at once
    placement = Placement(device, tuple(_precision(folder, options.dtype, device) for folder in folders))
    on_placed(placement)
    tokenizers = [Tokenizer(folder) for folder in folders]
    if not tokenizers[0].has_template:
        raise MissingFile(
            f"{folders[0]}: no chat template (chat_template.jinja, or `chat_template` in tokenizer_config.json): "
            "jobs are conversations; take an instruct model, or put a template there"
        )
    models = [
        Transformer.load(folder, dtype=_DTYPES[precision.dtype], device=device, kv_dtype=_KV_DTYPES[options.kv_dtype])
        for folder, precision in zip(folders, placement.precisions, strict=True)
    ]
    engines = _engines(tokenizers, models, options)
    _warn_of_end(engines[0].tokenizer, options.model)
    readout = None
    if kinds and isinstance(kinds[0], Mark):
        readout = kinds[0].readout(engines[1].tokenizer)
        readout.check(engines[1].model, f"{folders[1]}/reward.json")
    return Engines(
        generator=engines[0],
        reward=engines[1] if kinds else None,
        reward_kind=kinds[0] if kinds else None,
        readout=readout,
        thought=thinking.read(folders[0], engines[0].tokenizer),
        same_tokens=bool(kinds)
        and isinstance(kinds[0], Likelihood)
        and _tokenizer_bytes(folders[0]) == _tokenizer_bytes(folders[1]),
        longest=engines[0].longest,
        longest_scored=engines[1].longest if kinds else 0,
        defaults=SamplingDefaults.read(options.model),
        fingerprint=_fingerprint(folders, options),
        flops_per_byte=5.0 if device.type == "cpu" else 200.0,
    )


def _fingerprint(folders: list[str], options: EngineOptions) -> str:
    """Fingerprints generator and reward model together: with other scores, a resumed search would decide otherwise.

    The same goes for quantised numbers. Floats of any width share a fingerprint, because they round the same weights,
    and work is handed on between them.
    """
    quantised = [name for name in (options.dtype, options.kv_dtype) if name in _QUANTISED]
    prints = [fingerprint(folder) for folder in folders] + quantised
    return prints[0] if len(prints) == 1 else hashlib.sha256("+".join(prints).encode()).hexdigest()[:16]


def _given(fields: dict[str, object], name: str, default: float) -> float:
    value = fields.get(name)
    return value if isinstance(value, int | float) else default


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        number = torch.cuda.device_count() or "no"
        raise InvalidSetting(
            f"--device {name}: torch {torch.__version__} finds {number} GPU{'s'[: number != 1]} here: "
            "take --device cpu, or auto"
        )
    return device


def _precision(folder: str, asked: str, device: torch.device) -> Precision:
    if asked != "auto":
        return Precision(asked, "--dtype says so")
    checkpoint = ModelConfig.read(folder).dtype
    if device.type == "cpu":
        return automatic_precision(checkpoint, bfloat16_instructions())
    if checkpoint in _DTYPES:
        return Precision(checkpoint, "the checkpoint's own")
    return Precision("float32", f"the checkpoint's {checkpoint} is not supported")


def _engines(tokenizers: list[Tokenizer], models: list[Transformer], options: EngineOptions) -> list[Engine]:
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
            num_offload_pages=parked,
            capture=captured if model.device.type == "cuda" else None,
        )
        for tokenizer, model, pages, parked in zip(tokenizers, models, found.num_pages, found.num_parked, strict=True)
    ]


def _warn_of_end(tokenizer: Tokenizer, folder: str) -> None:
    token = tokenizer.forgotten_end_of_turn()
    if token is not None:
        _log.warning(
            "%s: the chat template ends a turn with %s, and generation_config.json does not name its id as an "
            "eos_token_id: answers may run on past their end. Add it there",
            *(folder, token),
        )


def _tokenizer_bytes(folder: str) -> bytes:
    return (Path(folder) / "tokenizer.json").read_bytes()
