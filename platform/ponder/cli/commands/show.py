"""The commands `ponder show` and `ponder open`: a batch or a job in the terminal, and in a browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ponder.cli.api import connect
from ponder.cli.console import Column, format_option, moment, out, print_json, table
from ponder.client import Client
from ponder.domain.money import dollars
from ponder.errors import NotFound
from ponder.wire import Json


@click.command()
@click.argument("job", metavar="JOB")
@format_option("table", "json")
def show(job: str, form: str) -> None:
    """Show one job: its search tree with scores, its answer, its attempts and its cost.

    JOB is a job's id (job_123), that of its trace, or BATCH/CUSTOM_ID. Of a BATCH it shows how far it is, what it costs
    and why it waits.
    """
    with connect() as client:
        if job.startswith("batch_") and "/" not in job:
            print_batch(client.batch(job), form, client.console_url(f"/batches/{job}"))
            return
        document = client.job(_job_id(client, job))
        address = client.console_url(f"/jobs/{document['id']}")
    if form == "json":
        print_json(document)
    else:
        print_job(document)
        out().print(f"\n{address}", style="dim", markup=False)


@click.command("open")
@click.argument("what", metavar="[BATCH|JOB]", default="")
@click.option("--print", "is_printed", is_flag=True, help="Print the address instead of opening it.")
def open_console(what: str, *, is_printed: bool) -> None:
    """Open the web console in a browser, at a batch or a job if one is named, signed in with your key.

    JOB is a job's id (job_123), that of its trace, or BATCH/CUSTOM_ID. The address signs in once, within ten minutes.
    """
    with connect() as client:
        if what.startswith("batch_") and "/" not in what:
            path = f"/batches/{client.batch(what)['id']}"
        else:
            path = f"/jobs/{client.job(_job_id(client, what))['id']}" if what else "/"
        address = client.console_link(path)
    if is_printed:
        click.echo(address)
    else:
        open_in_browser(address)


def open_in_browser(address: str) -> None:
    """Opens an address, or prints it where there is no browser."""
    import webbrowser

    if webbrowser.open(address):
        click.echo("opened in your browser", err=True)
    else:
        click.echo(f"there is no browser here; open {address}", err=True)


def _job_id(client: Client, job: str) -> str:
    """Returns the id of a job, which may be named by its batch and its custom_id. Raises NotFound."""
    if "/" not in job:
        return job
    batch_id, _, custom_id = job.partition("/")
    found = next((row["id"] for row in client.jobs(batch_id, custom_id=custom_id)), None)
    if found is None:
        raise NotFound(f"{batch_id} has no job with the custom_id {custom_id!r}")
    return str(found)


def print_batch(batch: Json, form: str, address: str) -> None:
    if form == "json":
        print_json(batch)
        return
    from ponder.cli.progress import outlook

    counts, own = batch["request_counts"], batch["ponder"]
    facts = [
        ("status", batch["status"].replace("_", " ")),
        ("jobs", f"{counts['completed']:,} completed and {counts['failed']:,} failed of {counts['total']:,}"),
        ("spent", dollars(own["direct_nanodollars"])),
        ("projected", outlook(own["projection"])),
        ("pilot", f"{own['pilot']['settled']:,} of {own['pilot']['jobs']:,} jobs, {own['pilot']['state']}"
         if own["pilot"] else ""),
        ("waiting", (own["waiting"] or {}).get("message", "")),
        ("trace", own.get("trace_id") or ""),
    ]  # fmt: skip
    console = out()
    console.print(batch["id"], style="bold", markup=False)
    for title, value in facts:
        if value:
            console.print(f"  {title:<9} {value}", markup=False)
    console.print(f"\n{address}", style="dim", markup=False)


def print_job(job: Json) -> None:
    console = out()
    console.print(
        f"{job['id']}  {job['custom_id']}, line {job['line']} of {job['batch_id']}", style="bold", markup=False
    )
    for title, value in _facts(job):
        console.print(f"  {title:<9} {value}", markup=False)
    if job.get("tree"):
        from ponder.cli.tree import print_tree

        print_tree(job)
    if job.get("attempts"):
        console.print()
        console.print(table(job["attempts"], _ATTEMPT))


def _facts(job: Json) -> list[tuple[str, str]]:
    facts = [("state", job["state"] + (f", verdict {_verdict(job)}" if job.get("verdict") else ""))]
    if job.get("answer") is not None:
        reference = (job.get("request") or {}).get("reference")
        facts.append(("answer", f"{job['answer']}" + (f", expected {_shortened(reference)}" if reference else "")))
    if job.get("oracle"):
        facts.append(("oracle", "the search may have consulted the reference"))
    if job.get("error"):
        facts.append(("error", f"{job['error'].get('code')}: {job['error'].get('message')}"))
    if job.get("waiting"):
        facts.append(("waiting", str(job["waiting"].get("message") or job["waiting"].get("reason"))))
    if job.get("pruned_at"):
        facts.append(("deleted", f"prompt, answer and tree, on {moment(job['pruned_at'])}"))
    for stage in job.get("stages") or [job]:
        title = _TASKS[stage["task"]].format(stage["stage"]) if job.get("stages") else "model"
        facts.append((title, f"{stage['model']} ({str(stage.get('fingerprint') or '')[:12]}){_stage(stage)}"))
    facts.append(("strategy", job["strategy"] + (f", level {job['level']}" if job.get("level") else "")))
    if any((job.get("usage") or {}).values()):
        facts.append(("tokens", ", ".join(_usage(job["usage"]))))
    if job.get("trace_id"):
        facts.append(("trace", job["trace_id"]))
    cost = job.get("cost") or {}
    kinds = ", ".join(f"{kind} {dollars(amount)}" for kind, amount in (cost.get("by_kind") or {}).items())
    facts.append(("cost", dollars(cost.get("direct_nanodollars") or 0) + (f" ({kinds})" if kinds else "")))
    return facts


def _verdict(job: Json) -> str:
    """Returns the verdict, and whose it is if it is a model's; and what the reference says, if it was compared."""
    checked = f"; compared with the reference: {job['checked']}" if job.get("checked") else ""
    return f"{job['verdict']} by a judge{checked}" if job.get("judged") else str(job["verdict"])


_TASKS = {"solve": "stage {}", "select": "chosen by", "accept": "judged by", "verify": "verified by"}
"""The words for what a step does."""


def _stage(stage: Json) -> str:
    """Returns how far a stage of a cascade is, and what was decided about it."""
    from ponder.domain.tree.tree_shape import decision

    words = {"open": "has its turn", "ahead": "comes later", "not_needed": "was not needed"}
    told = [words.get(stage.get("state", ""), ""), decision(stage.get("decisions") or {})]
    told.append("gave the answer" if stage.get("has_answered") else "")
    return "".join(f", {said}" for said in told if said)


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"… {text[-60:]}"


def _usage(usage: Json) -> list[str]:
    words = {
        "prompt_tokens": "prompt",
        "completion_tokens": "generated",
        "thinking_tokens": "of them thinking",
        "judge_tokens": "of them by judges",
        "reward_tokens": "scored by the reward model",
        "cached_tokens": "from the cache",
        "recomputed_tokens": "recomputed",
    }
    return [f"{usage[name]:,} {word}" for name, word in words.items() if usage.get(name)]


def _outcome(attempt: Mapping[str, Any]) -> str:
    """Returns how an attempt ended, and why its worker left or was given up if that ended it."""
    outcome, reason = attempt["outcome"] or "running", attempt.get("reason")
    if reason is None:
        return outcome
    return f"{outcome} by {reason}" if outcome == "preempted" else f"{outcome}: {reason}"


_ATTEMPT = [
    Column("attempt on", lambda row: f"{row['machine']} ({row['market']})"),
    Column("started", lambda row: moment(row["started_at"])),
    Column("ended", lambda row: moment(row["ended_at"])),
    Column("outcome", _outcome),
    Column("worker", lambda row: row["incarnation_id"]),
]
