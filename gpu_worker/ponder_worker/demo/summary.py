"""The summary that the demo prints at its end: the table of strategies, one search tree, and what to do next."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from ponder.cli import exit_code
from ponder.cli.commands.show import print_tree
from ponder.cli.console import out
from ponder.client import Client
from ponder.domain.money import dollars
from ponder.wire import Json
from ponder_worker.demo.comparison_table import cells, strategy_table
from ponder_worker.demo.demo_run import STRATEGIES, DemoRun

_MOST_CANDIDATES = 8
_MOST_NODES = 30


def print_summary(client: Client, run: DemoRun, batches: Mapping[str, Json]) -> int:
    """Print the summary and return the exit code."""
    results = run.write_results(client, dict(batches))
    rows = client.cost_report(["strategy", "level"], list(run.batches.values()))["data"]
    job = _instructive_job(client, run)
    console = out()
    _print_table(console, rows)
    if job is not None:
        _print_tree(console, job)
    _print_next(console, results, job)
    num_failed = sum(batch["request_counts"]["failed"] for batch in batches.values())
    if num_failed:
        console.print(f"\n{num_failed} jobs failed; the results file says why", style="red")
    return exit_code.SOME_JOBS_FAILED if num_failed else exit_code.SETTLED


def _print_table(console: Console, rows: list[Json]) -> None:
    made = cells(rows)
    console.print()
    console.print(strategy_table(made, list(STRATEGIES)))
    direct = sum(row["direct_nanodollars"] for row in rows)
    loaded = sum(row["loaded_nanodollars"] for row in rows)
    num_tasks = sum(row["settled"] for row in rows)
    console.print(
        f"\nThe bill: {dollars(loaded)} for {num_tasks:,} tasks. {dollars(direct)} of it is engine time that they "
        "caused; the rest, loading and idling, is spread over them above."
    )


def _instructive_job(client: Client, run: DemoRun) -> Json | None:
    """A beam search that solved what one sample had missed, on the highest level possible; or else any beam search."""
    missed = {_problem(row) for row in client.jobs(run.batches["direct"]) if row["verdict"] == "failed"}
    found = [row for row in client.jobs(run.batches["beam_search"]) if row["state"] == "completed"]
    if not found:
        return None

    def interest(row: Json) -> tuple[bool, bool, str]:
        return row["verdict"] == "passed", _problem(row) in missed, str(row["level"])

    most = max(map(interest, found))
    candidates = [row["id"] for row in found if interest(row) == most][:_MOST_CANDIDATES]
    return max(map(client.job, candidates), key=_num_turns)


def _num_turns(job: Json) -> int:
    """The number of distinct steps that the search took back; 0 for a tree that would fill the screen."""
    nodes = (job.get("tree") or {}).get("nodes") or []
    turned_back = {(node["parent"], node.get("text")) for node in nodes if node.get("state") == "pruned"}
    kept = {(node["parent"], node.get("text")) for node in nodes if node.get("state") != "pruned"}
    return len(turned_back - kept) if len(turned_back | kept) <= _MOST_NODES else 0


def _problem(row: Json) -> str:
    """The custom_id without its strategy."""
    return str(row["custom_id"]).partition("/")[2]


def _print_tree(console: Console, job: Json) -> None:
    verdict = "right" if job["verdict"] == "passed" else "wrong"
    console.print(f"\nHow one of them was searched: {job['id']}, {job['strategy']}, level {job['level']}", style="bold")
    print_tree(job)
    console.print(
        f"The answer {job['answer']} is {verdict}; the search cost {dollars(job['cost']['direct_nanodollars'])}."
    )


def _print_next(console: Console, results: Path, job: Json | None) -> None:
    ponder = _command()
    console.print(f"\nResults, one line a job: {results}")
    console.print("\nNext:", style="bold")
    steps = [
        ("up", "start it again, batches included; then"),
        (f"show {job['id']}" if job else "batches", "any job: its attempts, tree and cost"),
        ("report cost --by strategy,level", "the bill, also as --format json or csv"),
        ("run FILE --model demo --prompt FIELD --answer FIELD", "your own problems"),
    ]
    width = max(len(step) for step, _ in steps[:-1])
    for step, why in steps:
        console.print(f"  {ponder} {step:<{width}}  {why}")


def _command() -> str:
    """The command to type for `ponder` in this shell."""
    if shutil.which("ponder"):
        return "ponder"
    program = os.path.relpath(sys.argv[0])
    return program if not program.startswith("..") else sys.argv[0]
