"""Loading generator and reward model from their folders, each into its engine."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ponder.processor import Precision
from ponder_worker.engine.engine_error import InvalidSetting
from ponder_worker.engine.inference_engine import InferenceEngine
from ponder_worker.engine_process.loading import own_engines
from ponder_worker.engine_process.loading.engine_options import EngineName, EngineOptions
from ponder_worker.engine_process.loading.generation_defaults import SamplingDefaults, read_thought
from ponder_worker.engine_process.loading.vllm_engines import VllmLoader
from ponder_worker.models import reward
from ponder_worker.models.checkpoint.folder import fingerprint
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.model_error import MissingFile
from ponder_worker.models.readout import Readout
from ponder_worker.models.reward import Likelihood, Mark
from ponder_worker.search.thought import Thought

_log = logging.getLogger(__name__)
_QUANTISED = ("int8", "fp8")


@dataclass(frozen=True, slots=True)
class Engines:
    """Generator and reward model, and what searches need to know about them.

    readout: how a reward model is read at marks, if it is. same_tokens: generator and reward model read the same ids,
    with no marks among them. longest, longest_scored: the most tokens of one sequence.
    """

    generator: InferenceEngine
    reward: InferenceEngine | None
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
    folders = [options.model] + ([options.reward_model] if options.reward_model else [])
    on = _engine_names(options)
    kinds = [reward.read(folder) for folder in folders[1:]]  # before any weights, so that it fails at once
    vllm = VllmLoader.prepared(options, len(folders)) if "vllm" in on else None
    device = _device(options.device)
    precisions = [
        vllm.precision(folder) if vllm and name == "vllm" else own_engines.precision_of(folder, options.dtype, device)
        for folder, name in zip(folders, on, strict=True)
    ]
    on_placed(Placement(device, tuple(precisions)))
    tokenizers = [Tokenizer(folder) for folder in folders]
    if not tokenizers[0].has_template:
        raise MissingFile(
            f"{folders[0]}: no chat template (chat_template.jinja, or `chat_template` in tokenizer_config.json; in a "
            "GGUF file, `tokenizer.chat_template`): jobs are conversations; take an instruct model, or put one there"
        )
    readout = kinds[0].readout(tokenizers[1]) if kinds and isinstance(kinds[0], Mark) else None
    engines: list[InferenceEngine] = []
    if vllm is None:
        models = [
            own_engines.read_model(folder, precision, device, options)
            for folder, precision in zip(folders, precisions, strict=True)
        ]
        if readout is not None:
            readout.check(models[1], f"{folders[1]}/reward.json")
        engines += own_engines.engines_of(tokenizers, models, options)
    else:
        parts = [_Part(*part) for part in zip(folders, tokenizers, precisions, on, strict=True)]
        engines += _mixed(parts, device, options, vllm, readout)
    _warn_of_end(tokenizers[0], options.model)
    return Engines(
        generator=engines[0],
        reward=engines[1] if kinds else None,
        reward_kind=kinds[0] if kinds else None,
        readout=readout,
        thought=read_thought(folders[0], tokenizers[0]),
        same_tokens=bool(kinds)
        and isinstance(kinds[0], Likelihood)
        and _tokenizer_bytes(folders[0]) == _tokenizer_bytes(folders[1]),
        longest=engines[0].longest,
        longest_scored=engines[1].longest if kinds else 0,
        defaults=SamplingDefaults.read(options.model),
        fingerprint=_fingerprint(folders, options, vllm),
        flops_per_byte=5.0 if device.type == "cpu" else 200.0,
    )


def _engine_names(options: EngineOptions) -> list[EngineName]:
    """Returns the engine of the generator and, if there is one, that of the reward model. Raises InvalidSetting."""
    names = [options.engine]
    if options.reward_model:
        names.append(options.reward_engine or options.engine)
    if options.engine_args and "vllm" not in names:
        raise InvalidSetting(f"--engine-arg {options.engine_args[0]}: our own engine takes none; say --engine vllm too")
    if "own" not in names and not (options.prefix_caching and options.speculation):
        switch = "speculation" if options.prefix_caching else "prefix-caching"
        raise InvalidSetting(f"--no-{switch} is for our own engine: vLLM has switches of its own, see --engine-arg")
    return names


@dataclass(frozen=True, slots=True)
class _Part:
    """One model, and the engine that it goes into."""

    folder: str
    tokenizer: Tokenizer
    precision: Precision
    engine: EngineName


def _mixed(
    parts: Sequence[_Part], device: torch.device, options: EngineOptions, vllm: VllmLoader, readout: Readout | None
) -> list[InferenceEngine]:
    """Loads each model into its engine. vLLM comes first: it measures what memory is free, and ours takes the rest.

    readout: of the second model, if it is read.
    """
    engines: dict[int, InferenceEngine] = {}
    for index, part in sorted(enumerate(parts), key=lambda numbered: numbered[1].engine == "own"):
        is_reward = index == 1
        readout_here = readout if is_reward else None
        if part.engine == "vllm":
            engines[index] = vllm.load(part.folder, part.tokenizer, is_reward=is_reward, readout=readout_here)
            continue
        model = own_engines.read_model(part.folder, part.precision, device, options)
        if readout_here is not None:
            readout_here.check(model, f"{part.folder}/reward.json")
        room = options.kv_bytes and int(options.kv_bytes * vllm.share(is_reward=is_reward))
        (engines[index],) = own_engines.engines_of(
            [part.tokenizer], [model], replace(options, kv_bytes=room, kv_split=None)
        )
    return [engines[index] for index in range(len(parts))]


def _fingerprint(folders: list[str], options: EngineOptions, vllm: VllmLoader | None = None) -> str:
    """Fingerprints generator and reward model together: with other scores, a resumed search would decide otherwise.

    The same goes for quantised numbers, and for another engine, whose sampling noise is another. Floats of any width
    share a fingerprint, because they round the same weights, and work is handed on between them.
    """
    quantised = [name for name in (options.dtype, options.kv_dtype) if name in _QUANTISED]
    prints = [fingerprint(folder) for folder in folders] + quantised
    if vllm is not None:
        prints += [*_engine_names(options), *vllm.fingerprints()]
    return prints[0] if len(prints) == 1 else hashlib.sha256("+".join(prints).encode()).hexdigest()[:16]


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
