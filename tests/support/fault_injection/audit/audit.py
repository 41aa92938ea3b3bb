"""The whole audit: plain SQL and arithmetic, nothing of ponder's own code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from fault_injection.audit import answers, bills, lines
from fault_injection.audit.evidence import Evidence
from sqlalchemy import Connection, text

_OPEN_SHARDS = text("SELECT id, state FROM shards WHERE state <> 'finished' ORDER BY id")


@dataclass(frozen=True, slots=True)
class Findings:
    """A sentence for each thing that is not as it should be. A run in which nothing is wrong has none."""

    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    wrongly_failed: tuple[str, ...]
    wrong_bills: tuple[str, ...]
    wrong_verdicts: tuple[str, ...]
    walls_passed: tuple[str, ...]
    tree_gaps: tuple[str, ...]
    out_of_order: tuple[str, ...]
    suspects_not_alone: tuple[str, ...]
    open_shards: tuple[str, ...]
    processes_left: tuple[str, ...]

    def __iter__(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each kind by its name."""
        return ((field.name, getattr(self, field.name)) for field in fields(self))


def audit(connection: Connection, evidence: Evidence) -> Findings:
    """Changes nothing."""
    histories = lines.histories(connection)
    return Findings(
        lost=tuple(lines.lost(histories, evidence)),
        doubled=tuple(lines.doubled(connection, histories, evidence)),
        wrongly_failed=tuple(lines.wrongly_failed(histories, evidence)),
        wrong_bills=tuple(bills.wrong_bills(connection)),
        wrong_verdicts=tuple(answers.wrong_verdicts(histories, evidence)),
        walls_passed=tuple(answers.walls_passed(connection, histories, evidence)),
        tree_gaps=tuple(answers.gaps(connection, histories)),
        out_of_order=tuple(lines.out_of_order(histories, evidence)),
        suspects_not_alone=tuple(lines.not_alone(histories)),
        open_shards=tuple(f"shard {row.id} is {row.state}" for row in connection.execute(_OPEN_SHARDS)),
        processes_left=tuple(evidence.strays),
    )
