"""Settles jobs, each exactly once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Connection, text

from ponder.domain.storable import JsonObject
from ponder.domain.tree.partial_tree import with_makers
from ponder.failure import brief
from ponder.jobs.tick_report import Settlement, Usage
from ponder.store.document import dumps

_log = structlog.get_logger(__name__)

# One statement for everything that a settled job leaves behind. The jobs are locked and pending. A tree comes as text,
# so that Postgres reads its thousands of numbers once, and not for each document that it is in.
_SETTLE = text("""
    WITH settlement AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:settlements AS json)) AS settlement(
            job_id bigint, state text, verdict text, checked text, answer text, finish_reason text, choices jsonb,
            error jsonb, tree text,
            prompt_tokens bigint, completion_tokens bigint, thinking_tokens bigint, reward_tokens bigint,
            judge_tokens bigint, cached_tokens bigint, recomputed_tokens bigint, first_token_ms bigint,
            first_visible_token_ms bigint, ended_ms bigint, num_rounds int, chosen_tokens bigint, pruned_tokens bigint,
            other_round_tokens bigint, judged_tokens bigint)
    ), job AS (
        UPDATE jobs SET state = settlement.state, verdict = settlement.verdict, checked = settlement.checked,
                        settled_at = CAST(:now AS timestamptz)
        FROM settlement WHERE jobs.id = settlement.job_id
        RETURNING jobs.id AS job_id, jobs.tenant_id, jobs.batch_id, jobs.judged
    ), result AS (
        INSERT INTO results (job_id, tenant_id, answer, finish_reason, choices, error)
        SELECT job_id, tenant_id, answer, finish_reason, choices, error FROM settlement JOIN job USING (job_id)
    ), used AS (
        INSERT INTO usage (job_id, tenant_id, prompt_tokens, completion_tokens, thinking_tokens, reward_tokens,
                           judge_tokens, cached_tokens, recomputed_tokens, first_token_at, first_visible_token_at,
                           ended_at, num_rounds, chosen_tokens, pruned_tokens, other_round_tokens, judged_tokens)
        SELECT job_id, tenant_id, prompt_tokens, completion_tokens, thinking_tokens, reward_tokens,
               judge_tokens, cached_tokens, recomputed_tokens,
               CASE WHEN first_token_ms IS NOT NULL
                    THEN least(to_timestamp(first_token_ms / 1000.0), CAST(:now AS timestamptz)) END,
               CASE WHEN first_visible_token_ms IS NOT NULL
                    THEN least(to_timestamp(first_visible_token_ms / 1000.0), CAST(:now AS timestamptz)) END,
               CASE WHEN ended_ms IS NOT NULL
                    THEN least(to_timestamp(ended_ms / 1000.0), CAST(:now AS timestamptz)) END,
               num_rounds,
               chosen_tokens, pruned_tokens, other_round_tokens, judged_tokens
        FROM settlement JOIN job USING (job_id)
    ), folded AS (
        DELETE FROM tree_deltas USING job WHERE tree_deltas.job_id = job.job_id
        RETURNING tree_deltas.job_id, num_tokens
    ), saved AS (
        SELECT job_id, sum(num_tokens) AS tokens FROM folded GROUP BY job_id
    ), tallied AS (
        INSERT INTO tallies (batch_id, job_ids, num_completed, num_failed, num_expired, num_cancelled, num_passed,
                             num_passed_by_judge, num_judged_wrong, num_unverified, prompt_tokens, cached_tokens,
                             completion_tokens, thinking_tokens, judge_tokens, generated_tokens, settled_nanodollars)
        SELECT batch_id, array_agg(job_id ORDER BY job_id), count(*) FILTER (WHERE state = 'completed'),
               count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'expired'),
               count(*) FILTER (WHERE state = 'cancelled'), count(*) FILTER (WHERE verdict = 'passed'),
               count(*) FILTER (WHERE verdict = 'passed' AND judged), count(*) FILTER (WHERE verdict = 'failed'),
               count(*) FILTER (WHERE verdict = 'unverified'),
               sum(prompt_tokens), sum(cached_tokens), sum(completion_tokens), sum(thinking_tokens), sum(judge_tokens),
               sum(greatest(completion_tokens - coalesce(saved.tokens, 0), 0)), sum(booked.nanodollars)
        FROM settlement JOIN job USING (job_id) LEFT JOIN saved USING (job_id)
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(nanodollars), 0) AS nanodollars FROM ledger_entries WHERE job_id = job.job_id
        ) AS booked
        GROUP BY batch_id
    ), grown AS (
        INSERT INTO search_trees (job_id, tenant_id, tree)
        SELECT job_id, tenant_id, CAST(tree AS json) FROM settlement JOIN job USING (job_id) WHERE tree IS NOT NULL
    ), attempt AS (
        UPDATE attempts SET outcome = 'settled', ended_at = CAST(:now AS timestamptz)
        FROM job WHERE attempts.job_id = job.job_id AND attempts.ended_at IS NULL
    )
    SELECT coalesce(json_agg(job_id), '[]') FROM job
""")


_SAVED = text("""
    SELECT job_id, incarnation_id, delta FROM tree_deltas WHERE job_id = ANY(CAST(:ids AS bigint[])) ORDER BY job_id, id
""")

_USAGE = tuple(field.name for field in fields(Usage))
_FATES = ("chosen_tokens", "pruned_tokens", "other_round_tokens", "judged_tokens")


def settle(
    connection: Connection,
    settlements: Sequence[Settlement],
    now: datetime,
    incarnation_id: str | None = None,
    shared: Collection[int] = (),
) -> set[int]:
    """Writes the state, result, usage and tree of jobs, and ends their attempts. Returns the ids of the jobs.

    The caller has locked the jobs and seen them pending. incarnation_id: the one that ended their trees, if any did.
    shared: those that other incarnations have had too.
    """
    trees = {} if incarnation_id is None else _made_by_several(connection, settlements, incarnation_id, shared)
    rows = [
        {
            "job_id": settlement.job_id,
            "state": settlement.state.value,
            "verdict": settlement.verdict and settlement.verdict.value,
            "checked": settlement.checked and settlement.checked.value,
            "answer": settlement.answer,
            "finish_reason": settlement.finish_reason,
            "choices": list(settlement.choices) or None,
            "error": settlement.error,
            "tree": dumps(trees.get(settlement.job_id, settlement.tree)) if settlement.tree else None,
            **_usage(settlement.usage),
            "first_token_ms": settlement.first_token_ms,
            "first_visible_token_ms": settlement.first_visible_token_ms,
            "ended_ms": settlement.ended_ms,
            "num_rounds": settlement.num_rounds,
            **_fates(settlement.tree, len(settlement.choices)),
        }
        for settlement in settlements
    ]
    if not rows:
        return set()
    return set(connection.execute(_SETTLE, {"settlements": dumps(rows), "now": now}).scalar_one())


def _made_by_several(
    connection: Connection, settlements: Sequence[Settlement], incarnation_id: str, shared: Collection[int]
) -> dict[int, JsonObject]:
    """Returns the shared trees with who made which part.

    Their deltas know it, and are deleted now.
    """
    trees = {one.job_id: one.tree for one in settlements if one.tree and one.job_id in shared}
    saved: dict[int, list[tuple[str, JsonObject]]] = {job_id: [] for job_id in trees}
    for row in connection.execute(_SAVED, {"ids": list(trees)}) if trees else ():
        saved[row.job_id].append((row.incarnation_id, row.delta))
    found = {}
    for job_id, deltas in saved.items():
        try:
            found[job_id] = with_makers(dict(trees[job_id]), deltas, incarnation_id)
        except Exception as error:  # they are only shown, and a tick that raises would be repeated for ever
            _log.warning("makers_unknown", job=job_id, error=brief(error))
    return found


def _fates(tree: Mapping[str, Any], num_choices: int) -> dict[str, int]:
    """Divides the generated tokens: on the paths of the returned answers, elsewhere in their rounds, in other rounds,
    and in the replies of judges, which are the nodes below a prompt of their own.

    A round owns the root's children from the ordinal with which it began, and all nodes below them. The stages of a
    cascade that did not answer count as other rounds.
    """
    if "stages" not in tree:
        return _fates_of_one(tree, num_choices)
    fates = dict.fromkeys(_FATES, 0)
    for number, stage in enumerate(tree["stages"]):
        answers = number == tree["answered_by"]
        for fate, num in _fates_of_one(stage, num_choices if answers else 0).items():
            fates[fate if answers or fate == "judged_tokens" else "other_round_tokens"] += num
    return fates


def _fates_of_one(tree: Mapping[str, Any], num_choices: int) -> dict[str, int]:
    nodes: Sequence[Mapping[str, Any]] = tree.get("nodes", ())
    starts: Sequence[int] = tree.get("rounds", ())
    chosen: set[int] = set()
    for candidate in tree.get("candidates", ())[:num_choices]:
        index = candidate["node"]
        while index > 0 and index not in chosen:
            chosen.add(index)
            index = nodes[index]["parent"]
    fates = dict.fromkeys(_FATES, 0)
    judged = _judged(nodes)
    if len(starts) < 2:  # as nearly always; and a tree may have thousands of nodes
        fates["chosen_tokens"] = sum(nodes[index].get("tokens", 0) for index in chosen)
        fates["judged_tokens"] = sum(nodes[index].get("tokens", 0) for index in judged)
        fates["pruned_tokens"] = sum(node.get("tokens", 0) for node in nodes[1:]) - sum(fates.values())
        return fates
    rounds = [0]
    for node in nodes[1:]:  # a parent comes before its children
        is_first = node["parent"] == 0
        rounds.append(bisect_right(starts, node["ordinal"]) if is_first else rounds[node["parent"]])
    answered = {rounds[index] for index in chosen}
    for index, node in enumerate(nodes[1:], start=1):
        is_near = rounds[index] in answered or not answered
        fate = "chosen_tokens" if index in chosen else "pruned_tokens" if is_near else "other_round_tokens"
        fates["judged_tokens" if index in judged else fate] += node.get("tokens", 0)
    return fates


def _judged(nodes: Sequence[Mapping[str, Any]]) -> set[int]:
    """Returns the nodes that are a judge's question or below one. A judge's reply is never part of an answer."""
    found: set[int] = set()
    for index, node in enumerate(nodes[1:], start=1):  # a parent comes before its children
        if node.get("prompt") or node["parent"] in found:
            found.add(index)
    return found


def _usage(usage: Usage) -> dict[str, int]:
    return {name: getattr(usage, name) for name in _USAGE}
