"""The options of `ponder worker`, which `ponder up` passes on to its workers."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from ponder.embedded.worker import WorkerOptions

_DTYPES = ["auto", "float32", "bfloat16", "float16", "int8"]
_KV_DTYPES = ["auto", "fp8"]
_ENGINES = ["own", "vllm"]


def _device(context: click.Context, option: click.Parameter, given: str) -> str:
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", given) is None:
        raise click.BadParameter(f"{given!r} is not one of auto, cpu, cuda, cuda:1")
    return given


_OPTIONS = (
    click.option(
        "--device",
        callback=_device,
        default="auto",
        show_default=True,
        help="cpu, cuda, cuda:1; auto: a GPU if there is one.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(_DTYPES),
        default="auto",
        show_default=True,
        help="auto: the model's own, or float32 on a CPU where that is slow; int8: the layers' products only, on CPUs.",
    ),
    click.option(
        "--kv-dtype",
        type=click.Choice(_KV_DTYPES),
        default="auto",
        show_default=True,
        help="The dtype of keys and values; fp8: half of bfloat16's memory, less precise. auto: --dtype's.",
    ),
    click.option(
        "--engine",
        type=click.Choice(_ENGINES),
        default="own",
        show_default=True,
        help="own: shares families of sequences; vllm: any architecture, several GPUs; see docs/engines.md.",
    ),
    click.option("--reward-engine", type=click.Choice(_ENGINES), help="Of the reward model.  [default: --engine's]"),
    click.option(
        "--engine-arg",
        multiple=True,
        metavar="NAME=VALUE",
        help="One of vLLM's engine arguments, such as tensor_parallel_size=8; may be given again.",
    ),
    click.option(
        "--memory-split",
        type=click.FloatRange(0.05, 0.95),
        help="The generator's share of the memory for keys and values.  [default: traded; half where vLLM takes part]",
    ),
    click.option(
        "--max-sequences",
        type=click.IntRange(1, 4096),
        default=256,
        show_default=True,
        help="The most samples computed at a time.",
    ),
    click.option(
        "--step-tokens",
        type=click.IntRange(16, 1_048_576),
        default=2048,
        show_default=True,
        help="The most tokens of one step: longer prompts are computed in pieces.",
    ),
    click.option("--no-prefix-caching", is_flag=True, help="Compute every prompt anew, to measure what that saves."),
    click.option("--no-speculation", is_flag=True, help="Begin no step before it is asked for, likewise."),
    click.option(
        "--threads",
        type=click.IntRange(1, 1024),
        help="Threads that compute on the CPU.  [default: a core each; several workers of `ponder up` share]",
    ),
    click.option("--worker-name", help="A readable name that outlives the process.  [default: the host's name]"),
    click.option("--allow-code", is_flag=True, help="Let python_tests run what models write; also PONDER_ALLOW_CODE."),
    click.option("--metrics-port", type=click.IntRange(1, 65535), help="Serve Prometheus metrics here."),
)


def worker_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options to a command, which gets them as one argument, `options`."""

    @functools.wraps(command)
    def gathered(**given: Any) -> None:
        own = {field.name: given.pop(field.name) for field in fields(WorkerOptions)}
        command(options=WorkerOptions(**own), **given)

    for option in reversed(_OPTIONS):
        option(gathered)
    return gathered
