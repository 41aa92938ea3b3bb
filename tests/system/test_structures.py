"""Answers that are held to a JSON schema, by workers that vanish in the middle of them."""

from __future__ import annotations

import json
import os
import signal

import pytest
from fleet import Fleet, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(280)]

NUM_ROWS = 200
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 300, "maxLength": 400, "pattern": "^[a-z]*$"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 2, "maxItems": 4},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
SPACES = {"197": -100, "198": -100, "201": -100, "220": -100}
"""Biases against the model's spaces, of which it would put very many between the parts of a JSON text."""


def test_every_answer_of_a_batch_fits_its_schema_although_a_worker_dies_in_the_middle(fleet: Fleet) -> None:
    fleet.start_dispatcher()
    first, _ = fleet.start_workers(2, "--max-sequences", "16")
    form = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": SCHEMA}}
    body = {"response_format": form, "logit_bias": SPACES}
    unjudged = {"verifier": None, "reference": None}
    batch = fleet.submit(NUM_ROWS, max_tokens=600, strategy={"name": "direct"}, body=body, **unjudged)
    saved_by = (
        "SELECT count(*) FROM tree_deltas JOIN attempts USING (job_id)"
        " JOIN incarnations ON incarnations.id = attempts.incarnation_id WHERE attempts.ended_at IS NULL AND pid = :pid"
    )
    until(lambda: 0 < fleet.scalar("SELECT count(*) FROM results") < NUM_ROWS // 2, 100)
    until(lambda: fleet.scalar(saved_by, pid=first.pid), 30)
    saved = fleet.saved_ids()
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: fleet.scalar("SELECT state FROM batches WHERE id = :id", id=batch) == "completed", 200)
    fleet.check_settled_once(NUM_ROWS)
    assert "lost" in fleet.outcomes()
    settled = fleet.settled_ids()
    assert {node: settled[node][: len(ids)] for node, ids in saved.items()} == saved, "no answer began anew"
    verdicts = fleet.rows("SELECT verdict, count(*) AS num FROM jobs GROUP BY verdict")
    assert [(row.verdict, row.num) for row in verdicts] == [("passed", NUM_ROWS)]
    answers = [json.loads(row.answer) for row in fleet.rows("SELECT answer FROM results")]
    assert all(set(answer) == {"name", "age", "tags"} for answer in answers)
    fleet.check_ledgers()
