"""A small fleet without engines, in a database of its own."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine, text

from ponder.domain.batch.stages import Pin
from ponder.domain.budget import RenewingBudget, most_tokens
from ponder.domain.money import NANODOLLARS
from ponder.domain.state import IncarnationState, JobState, Lane, Verdict
from ponder.jobs.batch.cancel import cancel
from ponder.jobs.budgets.change_budget import change_budget
from ponder.jobs.claim import Claim, claim
from ponder.jobs.dispatching.dispatch import LaneShares, dispatch
from ponder.jobs.dispatching.finish import finish, follow
from ponder.jobs.incarnation import ready, register
from ponder.jobs.piloting.conclusions import Conclusions
from ponder.jobs.release import release
from ponder.jobs.shard import add_portions
from ponder.jobs.tally import Totals, settled_after, tally, totals
from ponder.jobs.tick import Settlement, TickReply, TickReport, Usage, Work, tick
from ponder.ledger.book import check
from ponder.ledger.cost_totals import fold_costs
from ponder.queue.celery_app import Message, queue_name

CONTEXT_LENGTH = 1_024


class World:
    """A small fleet. Each method is one transaction, as a worker, a dispatcher or a user would make it."""

    shard_tokens = 1_000
    shares = LaneShares()

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._numbers = itertools.count(1)
        self.num_ticks: dict[str, int] = {}
        self.undelivered: list[Message] = []

    def sql(self, statement: str, **values: Any) -> Sequence[Any]:
        with self.engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return result.all() if result.returns_rows else ()

    def tenant(self) -> str:
        tenant_id = f"tenant_{next(self._numbers):016x}"
        self.sql("INSERT INTO tenants (id, name) VALUES (:id, :id)", id=tenant_id)
        return tenant_id

    def key(self, tenant: str) -> str:
        key_id = f"key_{next(self._numbers):016x}"
        self.sql(
            "INSERT INTO api_keys (id, tenant_id, name, sha256, hint)"
            " VALUES (:id, :tenant, 'test', convert_to(:id, 'UTF8'), 'pk-')",
            id=key_id,
            tenant=tenant,
        )
        return key_id

    def limit(self, tenant: str, key: str | None, period: str, *, tokens: int | None, nanodollars: int | None) -> None:
        """Sets a budget of a tenant or key."""
        wanted = RenewingBudget.model_validate(
            {
                f"tokens_per_{period}": tokens,
                f"dollars_per_{period}": None if nanodollars is None else nanodollars / NANODOLLARS,
            }
        )
        with self.engine.begin() as connection:
            change_budget(connection, tenant, key, wanted)

    def pass_days(self, num_days: int) -> None:
        """Lets what was spent until now lie so many days back."""
        for table in ("tallies", "day_totals"):
            for shift in (-10_000 - num_days, 10_000):  # in two steps, because days are unique
                self.sql(f"UPDATE {table} SET day = day + CAST(:shift AS int)", shift=shift)

    def batch(
        self,
        num_jobs: int = 1,
        *,
        tenant: str | None = None,
        key: str | None = None,
        models: Sequence[str] = ("demo",),
        fingerprint: str = "f1",
        lane: str = "batch",
        strategy: str = "direct",
        level: str | None = None,
        budget: Mapping[str, Any] | None = None,
        tokens: int = 100,
        expires_in_s: float = 86_400,
        num_oracle: int = 0,
        num_by_judge: int = 0,
        stages: Sequence[str] = (),
    ) -> str:
        """Makes a batch in progress, whose lines ask for `models` in turn and whose first ones may see references.

        stages: the models of a cascade, of which each job is one. num_by_judge: the first ones are judged by a model.
        """
        tenant = tenant or self.tenant()
        batch_id = f"batch_{next(self._numbers):024x}"
        request = {
            "messages": [{"role": "user", "content": "1 + 1?"}],
            "sampling": {},
            "strategy": {"name": strategy},
            "budget": dict(budget or {}),
        }
        if stages:
            models, strategy = stages[:1], "cascade"
            request |= {
                "strategy": {"name": "cascade", "stages": [{"strategy": {"name": "direct"}} for _ in stages]},
                "stages": [Pin(model, fingerprint, CONTEXT_LENGTH).document() for model in stages],
            }
        self.sql(
            """
            WITH file AS (
                INSERT INTO files (id, tenant_id, filename, purpose, kind, bytes)
                VALUES (:file, :tenant, 'in.jsonl', 'batch', 'input', 0)
            ), batch AS (
                INSERT INTO batches (id, tenant_id, input_file_id, endpoint, completion_window, lane, state, num_lines,
                                     key_id, in_progress_at, expires_at)
                VALUES (:id, :tenant, :file, '/v1/chat/completions', '24h', :lane, 'in_progress', :num_jobs,
                        CAST(:key AS text), clock_timestamp(), clock_timestamp() + :expires_in_s * interval '1 second')
            )
            INSERT INTO jobs (tenant_id, batch_id, line, custom_id, model, fingerprint, request, strategy, level,
                              estimated_tokens, oracle, judged)
            SELECT :tenant, :id, line, 'line-' || line,
                   (CAST(:models AS text[]))[1 + mod(line - 1, cardinality(CAST(:models AS text[])))],
                   :fingerprint, CAST(:request AS jsonb), :strategy, :level, :tokens, line <= :num_oracle,
                   line <= :num_by_judge
            FROM generate_series(1, CAST(:num_jobs AS int)) AS line
            """,
            id=batch_id,
            file=f"file-{next(self._numbers):024x}",
            tenant=tenant,
            num_jobs=num_jobs,
            key=key,
            models=list(models),
            fingerprint=fingerprint,
            lane=lane,
            strategy=strategy,
            level=level,
            request=json.dumps(request),
            tokens=tokens,
            expires_in_s=expires_in_s,
            num_oracle=num_oracle,
            num_by_judge=num_by_judge,
        )
        with self.engine.begin() as connection:
            least = most_tokens(request, CONTEXT_LENGTH)
            add_portions(connection, batch_id, dict.fromkeys(models, least))
        return batch_id

    def jobs(self, batch_id: str) -> list[int]:
        rows = self.sql("SELECT id FROM jobs WHERE batch_id = :id ORDER BY line", id=batch_id)
        return [row.id for row in rows]

    def states(self, batch_id: str) -> list[str]:
        rows = self.sql("SELECT state FROM jobs WHERE batch_id = :id ORDER BY line", id=batch_id)
        return [row.state for row in rows]

    def state(self, batch_id: str) -> str:
        return self.sql("SELECT state FROM batches WHERE id = :id", id=batch_id)[0].state

    def loading_worker(
        self, *, model: str = "demo", machine: str = "h200", market: str = "spot", worker: str | None = None
    ) -> str:
        incarnation_id = f"inc_{next(self._numbers):024x}"
        with self.engine.begin() as connection:
            register(
                connection,
                id=incarnation_id,
                worker=worker or f"worker of {incarnation_id}",
                host="host",
                pid=1,
                model=model,
                machine=machine,
                market=market,
                lease_s=3600,
            )
        self.num_ticks[incarnation_id] = 0
        return incarnation_id

    def worker(self, *, fingerprint: str = "f1", room_tokens: int = 0, **machine: Any) -> str:
        incarnation_id = self.loading_worker(**machine)
        self.ready(incarnation_id, fingerprint=fingerprint, room_tokens=room_tokens)
        return incarnation_id

    def ready(self, incarnation_id: str, *, fingerprint: str = "f1", room_tokens: int = 0) -> None:
        with self.engine.begin() as connection:
            ready(
                connection,
                incarnation_id,
                fingerprint=fingerprint,
                context_length=CONTEXT_LENGTH,
                has_reward_model=True,
                room_tokens=room_tokens,
            )

    def dispatch(self) -> list[int]:
        """Returns the shards whose messages would be published now."""
        return [message.shard_id for message in self.messages()]

    def messages(self) -> list[Message]:
        with self.engine.begin() as connection:
            return dispatch(connection, shard_tokens=self.shard_tokens, shares=self.shares)

    def claim(self, shard_id: int, incarnation_id: str) -> Claim | None:
        with self.engine.begin() as connection:
            return claim(connection, shard_id, incarnation_id)

    def claim_all(self, incarnation_id: str) -> list[int]:
        """Dispatches and claims everything in the worker's queues until nothing is left. Returns the jobs."""
        (own,) = self.sql("SELECT model, fingerprint FROM incarnations WHERE id = :id", id=incarnation_id)
        queues = {queue_name(own.model, own.fingerprint, lane) for lane in Lane}
        jobs: list[int] = []
        while True:
            waiting = self.undelivered + self.messages()
            own_messages = [message for message in waiting if message.queue in queues]
            self.undelivered = [message for message in waiting if message.queue not in queues]
            if not own_messages:
                return jobs
            for message in own_messages:
                claimed = self.claim(message.shard_id, incarnation_id)
                jobs += [job.job_id for job in claimed.jobs] if claimed else []

    def report(self, incarnation_id: str, **said: Any) -> TickReport:
        said = {"lease_s": 3600, "progressed": True, "state": IncarnationState.READY} | said
        return TickReport(incarnation_id, self.num_ticks[incarnation_id] + 1, **said)

    def tick(self, incarnation_id: str, **said: Any) -> TickReply:
        reply = self.send(self.report(incarnation_id, **said))
        self.num_ticks[incarnation_id] += 1
        return reply

    def send(self, report: TickReport) -> TickReply:
        with self.engine.begin() as connection:
            return tick(connection, report)

    def release(self, incarnation_id: str, reason: str = "preempted") -> int:
        with self.engine.begin() as connection:
            return release(connection, incarnation_id, reason=reason, shard_tokens=self.shard_tokens)

    def finish(self) -> int:
        with self.engine.begin() as connection:
            num_ended = finish(connection)
        with self.engine.begin() as connection:
            follow(connection)
        return num_ended

    def conclude(self) -> None:
        """Concludes pilots as the dispatcher does."""
        Conclusions(self.engine).turn(time.monotonic())

    def cancel(self, batch_id: str) -> None:
        tenant_id = self.sql("SELECT tenant_id FROM batches WHERE id = :id", id=batch_id)[0].tenant_id
        with self.engine.begin() as connection:
            cancel(connection, tenant_id, batch_id)

    def lapse(self, incarnation_id: str) -> None:
        """Ends a lease now."""
        self.sql(
            "UPDATE incarnations SET lease_until = greatest(clock_timestamp(), billed_until) WHERE id = :id",
            id=incarnation_id,
        )

    def num_lost(self, job_id: int) -> int:
        rows = self.sql("SELECT 1 FROM attempts WHERE job_id = :id AND outcome = 'lost'", id=job_id)
        return len(rows)

    def billed(self, incarnation_id: str) -> int:
        """Returns what the ledger booked for an incarnation, after checking that it is its bill."""
        with self.engine.begin() as connection:
            return check(connection, incarnation_id)

    def kinds(self, incarnation_id: str) -> dict[str, int]:
        rows = self.sql(
            """
            SELECT kind, CAST(sum(nanodollars) AS bigint) AS nanodollars FROM ledger_entries
            WHERE incarnation_id = :id GROUP BY kind ORDER BY kind
            """,
            id=incarnation_id,
        )
        return {row.kind: row.nanodollars for row in rows}

    def tally(self) -> None:
        """Folds and numbers as the dispatcher does."""
        with self.engine.begin() as connection:
            tally(connection)

    def rewrite_ledger(self, statement: str, **values: Any) -> None:
        """Changes entries, which nobody ever does, and the sums by hour with them."""
        self.sql(statement, **values)
        self.sql("DELETE FROM hour_totals")
        self.sql("DELETE FROM hour_tallies")
        self.sql(
            """
            INSERT INTO hour_tallies (worker, hour, direct_nanodollars, overhead_nanodollars)
            SELECT worker, date_trunc('hour', until_at, 'UTC'), coalesce(sum(nanodollars) FILTER (WHERE job_id > 0), 0),
                   coalesce(sum(nanodollars) FILTER (WHERE job_id IS NULL), 0)
            FROM ledger_entries JOIN incarnations ON incarnations.id = incarnation_id GROUP BY 1, 2
            """
        )

    def fold_costs(self) -> None:
        """Folds as the dispatcher does, until nothing is left that can be."""
        is_left = True
        while is_left:
            with self.engine.begin() as connection:
                is_left = fold_costs(connection)

    def totals(self, batch_id: str) -> Totals:
        with self.engine.begin() as connection:
            return totals(connection, [batch_id]).get(batch_id, Totals())

    def counted(self, batch_id: str) -> Totals:
        """Returns what the totals of a batch should be, by counting its jobs."""
        (row,) = self.sql(
            """
            SELECT count(*) FILTER (WHERE state = 'completed') AS num_completed,
                   count(*) FILTER (WHERE state = 'failed') AS num_failed,
                   count(*) FILTER (WHERE state = 'expired') AS num_expired,
                   count(*) FILTER (WHERE state = 'cancelled') AS num_cancelled,
                   (SELECT count(*) FROM rejected_lines WHERE batch_id = :id) AS num_rejected,
                   count(*) FILTER (WHERE oracle) AS num_oracle,
                   count(*) FILTER (WHERE judged) AS num_by_judge,
                   count(*) FILTER (WHERE judged AND verdict = 'passed') AS num_passed_by_judge,
                   count(*) FILTER (WHERE verdict = 'passed') AS num_passed,
                   count(*) FILTER (WHERE verdict = 'failed') AS num_judged_wrong,
                   count(*) FILTER (WHERE verdict = 'unverified') AS num_unverified,
                   CAST(coalesce(sum(prompt_tokens), 0) AS bigint) AS prompt_tokens,
                   CAST(coalesce(sum(cached_tokens), 0) AS bigint) AS cached_tokens,
                   CAST(coalesce(sum(completion_tokens), 0) AS bigint) AS completion_tokens,
                   CAST(coalesce(sum(thinking_tokens), 0) AS bigint) AS thinking_tokens,
                   CAST(coalesce(sum(judge_tokens), 0) AS bigint) AS judge_tokens,
                   (SELECT CAST(coalesce(sum(nanodollars), 0) AS bigint) FROM ledger_entries WHERE batch_id = :id)
                       AS direct_nanodollars,
                   coalesce(sum(completion_tokens), 0) + coalesce((SELECT sum(num_tokens) FROM tree_deltas
                                                                   WHERE batch_id = :id), 0) AS generated_tokens,
                   (SELECT coalesce(sum(nanodollars), 0) FROM ledger_entries JOIN jobs AS settled
                        ON settled.id = job_id AND settled.state IN ('completed', 'failed')
                    WHERE ledger_entries.batch_id = :id AND kind <> 'duplicate') AS settled_nanodollars
            FROM jobs LEFT JOIN usage ON usage.job_id = jobs.id WHERE batch_id = :id
            """,
            id=batch_id,
        )
        return Totals(**row._mapping)

    def numbered(self, batch_id: str) -> list[int]:
        """Returns the numbered jobs of a batch in order, after checking that their numbers have no gaps."""
        with self.engine.begin() as connection:
            tenant = text("SELECT tenant_id FROM batches WHERE id = :id")
            tenant_id = connection.execute(tenant, {"id": batch_id}).scalar_one()
            jobs = settled_after(connection, tenant_id, batch_id, 0, 100_000)
        assert list(jobs) == list(range(1, len(jobs) + 1))
        return list(jobs.values())

    @staticmethod
    def passed(job_id: int) -> Settlement:
        return Settlement(
            job_id,
            JobState.COMPLETED,
            verdict=Verdict.PASSED,
            answer="2",
            finish_reason="stop",
            choices=({"text": "2", "finish_reason": "stop"},),
            usage=Usage(prompt_tokens=5, completion_tokens=7),
            tree={"nodes": []},
        )

    @staticmethod
    def work(*job_ids: int) -> list[Work]:
        return [Work(job_id, 1.0) for job_id in job_ids]
