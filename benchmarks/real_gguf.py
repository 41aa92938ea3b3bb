"""A GGUF file on ponder's engine and on llama.cpp: how fast, and are tokens and logits the same?

    python benchmarks/real_gguf.py FILE --llama-python ~/llama/bin/python --out benchmarks/results/gguf.json

FILE is a model such as SmolLM2-135M-Instruct; ~/llama is an environment with `llama-cpp-python`, which pip builds in a
quarter of an hour. Prompts are random tokens of its vocabulary; prompt and answer have 64 tokens each, sampled at
temperature 1. Every engine runs in its own process (benchmarks/peers) and takes a turn in every round. ponder
dequantises the file when it is loaded; llama.cpp computes with its 4-bit numbers, once with a cache for every sequence,
its default, and once with one for all of them.

Before that, `--texts` of the documentation are cut into tokens by both, and the logits of both are compared at every
position of some of them, and for small random models of every architecture and quantisation. llama.cpp rounds the
inputs of quantised products to 8 bits, and ponder does not, so there the two differ by more than float32's rounding.
Without a FILE nothing is measured, and the report says so. int8 is left out on a machine without it. The last line of
standard output is one JSON object.
"""

import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
import torch
from circumstances import circumstances, publish
from engine import row
from gguf_parity import llama_cpp, real, small

from ponder_worker.models import int8
from ponder_worker.models.checkpoint.gguf.gguf_file import GgufFile

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from pattern import Case
from process import Peer

OURS = "ponder auto"
NAMES = (OURS, *(["ponder int8"] if int8.can_multiply() else []), "llama", "llama unified")
KV_BYTES = 1 << 30
DOCS = Path(__file__).resolve().parents[1] / "docs"


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--llama-python", required=True, help="The python of an environment that has llama-cpp-python.")
@click.option("--rounds", default=5, show_default=True, help="0 compares tokens and logits only.")
@click.option("--threads", default=2, show_default=True)
@click.option("--texts", "num_texts", default=400, show_default=True)
@click.option("--prompts", default=64, show_default=True, help="Of the case of different prompts.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(
    file: Path, llama_python: str, rounds: int, threads: int, num_texts: int, prompts: int, out: Path | None
) -> None:
    """Compare logits, then time the cases on every engine, in turn."""
    what = "a GGUF file on ponder and llama.cpp: logits, and tokens generated a second (prefill and decode, medians)"
    if not file.is_file():
        click.echo(f"skipped: there is no file {file}", err=True)
        publish({**circumstances(what), "skipped": "there is no such file"}, None)
        return
    torch.set_num_threads(threads)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch, llama_cpp(llama_python, threads, Path(scratch)) as peer:
        logits = {"file": real(file, _texts(num_texts), peer, 4, 64), "small models": small(peer, Path(scratch))}
    cases = [Case("best of 16", 1, 16, 64, 64), Case(f"{prompts} prompts", prompts, 1, 64, 64)]
    found, rows = measure(file, llama_python, cases, rounds, threads) if rounds else ({}, [])
    report = {
        **circumstances(what, threads=threads, versions=found),
        "load_average_before": round(load, 1),
        "rounds": rounds,
        "logits": logits,
        "results": rows,
    }
    publish(report, out)


def measure(
    file: Path, llama_python: str, cases: list[Case], rounds: int, threads: int
) -> tuple[dict[str, dict[str, str]], list[dict[str, Any]]]:
    """The versions that every engine reports, and one row per case."""
    vocabulary = len(GgufFile.open(file).metadata["tokenizer.ggml.tokens"])
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        peers = [
            stack.enter_context(Peer(name, file, vocabulary, KV_BYTES, threads, llama_python, logs)) for name in NAMES
        ]
        for peer in peers:
            peer.wait()
        return {peer.name: peer.versions for peer in peers}, [row(case, peers, rounds, OURS) for case in cases]


def _texts(number: int) -> list[str]:
    """Pieces of the documentation, in no order of length."""
    whole = "".join(path.read_text() for path in sorted(DOCS.glob("*.md")))
    step = max(1, len(whole) // number)
    return [whole[first : first + 600] for first in range(0, step * number, step)]


if __name__ == "__main__":
    main()
