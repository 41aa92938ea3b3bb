"""The tables. Postgres is the only source of truth about a job. Times are Postgres's, money is in nano-dollars."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def _timestamp(name: str, *, nullable: bool = True) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _created_at() -> Column[object]:
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())


def _tenant(*, primary_key: bool = False) -> Column[object]:
    return Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False, primary_key=primary_key)


tenants = Table(
    "tenants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("quota_tokens", BigInteger, comment="estimated tokens in flight at a time; null: no limit"),
    Column(
        "output_expires_after_s",
        Integer,
        comment="how long results of new batches are kept by default; null: for ever",
    ),
    _created_at(),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("sha256", LargeBinary, nullable=False, unique=True, comment="of the key, which is shown once"),
    Column("hint", Text, nullable=False, comment="the key's first characters, to tell keys apart in a list"),
    Column("role", Text, nullable=False, server_default="submit", comment="operator | submit | read"),
    _created_at(),
    _timestamp("revoked_at"),
    CheckConstraint("role IN ('operator', 'submit', 'read')", name="role"),
)

console_sessions = Table(
    "console_sessions",
    metadata,
    Column("sha256", LargeBinary, primary_key=True, comment="of the cookie's token"),
    Column("key_id", Text, ForeignKey("api_keys.id"), nullable=False, comment="the session ends with this key"),
    Column("viewed_tenant_id", Text, ForeignKey("tenants.id"), comment="that an operator chose; null: the key's own"),
    _created_at(),
    _timestamp("expires_at", nullable=False),
    Index("ix_console_sessions_expires_at", "expires_at"),
)

sign_in_links = Table(
    "sign_in_links",
    metadata,
    Column("sha256", LargeBinary, primary_key=True, comment="of the link's token, which signs in once"),
    Column("key_id", Text, ForeignKey("api_keys.id"), nullable=False),
    _timestamp("expires_at", nullable=False),
    Index("ix_sign_in_links_expires_at", "expires_at"),
)

files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),
    _tenant(),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False, comment="batch | batch_output"),
    Column("kind", Text, nullable=False, comment="input | output | errors; the latter two are streamed from results"),
    Column("bytes", BigInteger, nullable=False),
    Column("batch_id", Text, comment="the batch whose results an output or error file streams"),
    _created_at(),
    _timestamp("deleted_at"),
    Column(
        "is_erasing",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="deleted, and its chunks follow",
    ),
    Index("ix_files_erasing", "id", postgresql_where=text("is_erasing")),
    Index(
        "ix_files_stored",
        "tenant_id",
        postgresql_include=["bytes"],
        postgresql_where=text("kind = 'input' AND deleted_at IS NULL"),
    ),
)

file_chunks = Table(
    "file_chunks",
    metadata,
    Column("file_id", Text, ForeignKey("files.id", ondelete="CASCADE"), primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Text, primary_key=True),
    _tenant(),
    Column("input_file_id", Text, ForeignKey("files.id"), nullable=False),
    Column("output_file_id", Text, ForeignKey("files.id")),
    Column("error_file_id", Text, ForeignKey("files.id")),
    Column("endpoint", Text, nullable=False),
    Column("completion_window", Text, nullable=False, comment="as the user wrote it, e.g. 24h"),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    Column("options", JSONB, nullable=False, server_default=text("'{}'"), comment="the ponder object of the batch"),
    Column("lane", Text, nullable=False, server_default="batch"),
    Column("state", Text, nullable=False, server_default="validating"),
    Column("num_lines", Integer, nullable=False, server_default="0", comment="jobs and rejected lines"),
    Column("errors", JSONB, comment="why the whole batch failed: [{code, line, message, param}]"),
    Column("idempotency_key", Text),
    Column("request_sha256", LargeBinary, comment="tells a repeated submission from a different one with the same key"),
    Column("retry_of", Text, ForeignKey("batches.id")),
    Column("key_id", Text, ForeignKey("api_keys.id"), comment="the key that submitted it; null: before this was kept"),
    Column("traceparent", Text, comment="the span of its submission, as W3C writes it; null: not traced"),
    _created_at(),
    _timestamp("expires_at", nullable=False),
    _timestamp("in_progress_at"),
    _timestamp("finalizing_at"),
    _timestamp("completed_at"),
    _timestamp("failed_at"),
    _timestamp("expired_at"),
    _timestamp("cancelling_at"),
    _timestamp("cancelled_at"),
    Column(
        "followed_line",
        Integer,
        comment="of a batch that was cancelled or has expired: the pending jobs up to here have ended; null: all have",
    ),
    Column("limit_tokens", BigInteger, comment="of the batch's budget, over all its jobs"),
    Column("limit_nanodollars", BigInteger, comment="of the batch's budget, over all its jobs"),
    _timestamp("paused_at"),
    Column(
        "exhausted_at", DateTime(timezone=True), comment="since when a budget admits none of its jobs, and none runs"
    ),
    Column("output_expires_after_s", Integer, comment="results are kept so long from its end on; null: for ever"),
    Column("pruned_at", DateTime(timezone=True), comment="since when its results are deleted"),
    Column("pruned_line", Integer, comment="of a pruned batch: the rows up to here are deleted; null: all are"),
    UniqueConstraint("tenant_id", "idempotency_key"),
    Index("ix_batches_followed", "followed_line", postgresql_where=text("followed_line IS NOT NULL")),
    Index("ix_batches_tenant_created", "tenant_id", "created_at", "id"),
    Index("ix_batches_interactive", "created_at", postgresql_where=text("lane = 'interactive'")),
    Index("ix_batches_input_file_id", "input_file_id"),
    Index("ix_batches_kept", "id", postgresql_where=text("output_expires_after_s IS NOT NULL AND pruned_at IS NULL")),
    Index("ix_batches_pruned", "pruned_line", postgresql_where=text("pruned_line IS NOT NULL")),
    Index(
        "ix_batches_open",
        "state",
        postgresql_where=text("state IN ('validating','in_progress','cancelling')"),
    ),
)

rejected_lines = Table(
    "rejected_lines",
    metadata,
    Column("batch_id", Text, ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    Column("line", Integer, primary_key=True, comment="counts from 1"),
    Column("custom_id", Text),
    Column("code", Text, nullable=False),
    Column("param", Text),
    Column("message", Text, nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("fingerprint", Text, primary_key=True),
    Column("context_length", Integer, nullable=False),
    Column("has_reward_model", Boolean, nullable=False),
    _created_at(),
    Column("last_seen_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _tenant(),
    Column("batch_id", Text, ForeignKey("batches.id"), nullable=False),
    Column("line", Integer, nullable=False, comment="counts from 1"),
    # By bytes, so that an index finds the texts that begin with another, whatever the database's locale.
    Column("custom_id", Text(collation="C"), nullable=False),
    Column("model", Text, nullable=False),
    Column("fingerprint", Text, nullable=False, comment="the weights this job is pinned to"),
    Column("request", JSONB, nullable=False, comment="messages, sampling, strategy, budget, verifier, reference"),
    Column("strategy", Text, nullable=False),
    Column("level", Text, comment="body.metadata.level, for reports"),
    Column(
        "oracle",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="the search may have been told what the reference says",
    ),
    Column("judged", Boolean, nullable=False, server_default=text("false"), comment="the verdict is a model's"),
    Column("estimated_tokens", Integer, nullable=False),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("verdict", Text),
    Column("checked", Text, comment="of a judged job with a reference: the verdict of comparing with it"),
    _created_at(),
    _timestamp("settled_at"),
    UniqueConstraint("batch_id", "line"),
    UniqueConstraint("batch_id", "custom_id"),
    Index("ix_jobs_batch_state", "batch_id", "state", "line"),
    Index("ix_jobs_batch_verdict", "batch_id", "verdict", "line", postgresql_where=text("verdict IS NOT NULL")),
    Index("ix_jobs_batch_level", "batch_id", "level", "line", postgresql_where=text("level IS NOT NULL")),
)

portions = Table(
    "portions",
    metadata,
    Column("batch_id", Text, ForeignKey("batches.id"), primary_key=True),
    Column("model", Text, primary_key=True),
    Column("fingerprint", Text, primary_key=True, comment="a portion: the jobs of a batch that need the same weights"),
    _tenant(),
    Column(
        "cut_until", Integer, nullable=False, server_default="0", comment="its lines up to here are cut into shards"
    ),
    Column("last_line", Integer, nullable=False),
    Column(
        "uncut_tokens",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="estimated, of the jobs that are in no shard yet",
    ),
    Column("least_tokens", BigInteger, comment="that a budget must have left for one of its jobs; null: unknown"),
    Index("ix_portions_uncut", "batch_id", postgresql_where=text("cut_until < last_line")),
)

shards = Table(
    "shards",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _tenant(),
    Column("batch_id", Text, ForeignKey("batches.id"), nullable=False),
    Column("model", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("job_ids", ARRAY(BigInteger), nullable=False),
    Column("estimated_tokens", BigInteger, nullable=False),
    Column("state", Text, nullable=False, server_default="queued"),
    Column("holder", Text, ForeignKey("incarnations.id")),
    _created_at(),
    Column(
        "runs_alone",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="its job was lost twice: whoever holds it holds nothing else",
    ),
    Column("least_tokens", BigInteger, comment="that a budget must have left for one of its jobs; null: unknown"),
    _timestamp("published_at"),
    _timestamp("held_at"),
    _timestamp("finished_at"),
    Index("ix_shards_open", "state", "model", "lane", postgresql_where=text("state <> 'finished'")),
    Index("ix_shards_open_batch", "batch_id", postgresql_where=text("state <> 'finished'")),
    Index("ix_shards_holder", "holder", postgresql_where=text("state = 'held'")),
    CheckConstraint("(state = 'queued') = (holder IS NULL) OR state = 'finished'", name="holder"),
)

incarnations = Table(
    "incarnations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("worker", Text, nullable=False, comment="a name that outlives the process, for people"),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("fingerprint", Text),
    Column("machine", Text, nullable=False),
    Column("market", Text, nullable=False, comment="on_demand | spot"),
    Column("nanodollars_per_hour", BigInteger, nullable=False),
    Column("state", Text, nullable=False, server_default="loading"),
    Column("room_tokens", BigInteger, nullable=False, server_default="0"),
    Column("num_ticks", BigInteger, nullable=False, server_default="0", comment="tells a repeated tick from a new one"),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    _timestamp("lease_until", nullable=False),
    _timestamp("billed_until", nullable=False),
    _timestamp("ended_at"),
    Column("end_reason", Text),
    Column(
        "drain_until",
        DateTime(timezone=True),
        comment="it was asked to leave: claims no more, is gone by then",
    ),
    Index("ix_incarnations_alive", "lease_until", postgresql_where=text("state <> 'ended'")),
    Index("ix_incarnations_fingerprint", "fingerprint", "started_at"),
    Index("ix_incarnations_worker", "worker", "started_at"),
    Index("ix_incarnations_spot_ended", "ended_at", postgresql_where=text("market = 'spot'")),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _tenant(),
    Column("job_id", BigInteger, ForeignKey("jobs.id"), nullable=False),
    Column("shard_id", BigInteger, ForeignKey("shards.id"), nullable=False),
    Column("incarnation_id", Text, ForeignKey("incarnations.id"), nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    _timestamp("ended_at"),
    Column("outcome", Text, comment="settled | preempted | handed_on | lost | cancelled"),
    Column("deadline_at", DateTime(timezone=True), comment="of the job's budget"),
    Column("limit_nanodollars", BigInteger, comment="of the job's budget, over all its attempts"),
    Column("reserved_tokens", BigInteger, comment="of each budget, less what was drawn; null: no such limit"),
    Column("reserved_nanodollars", BigInteger, comment="likewise"),
    Index("ix_attempts_job", "job_id"),
    Index("ix_attempts_incarnation", "incarnation_id", "started_at"),
    Index("ix_attempts_open", "incarnation_id", postgresql_where=text("ended_at IS NULL")),
    Index("ix_attempts_open_job", "job_id", unique=True, postgresql_where=text("ended_at IS NULL")),
)

tree_deltas = Table(
    "tree_deltas",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _tenant(),
    Column("batch_id", Text, ForeignKey("batches.id"), nullable=False),
    Column("job_id", BigInteger, ForeignKey("jobs.id"), nullable=False),
    Column("incarnation_id", Text, ForeignKey("incarnations.id"), nullable=False),
    Column("delta", JSON, nullable=False),
    Column("num_tokens", BigInteger, nullable=False, comment="that sampling added"),
    _created_at(),
    Index("ix_tree_deltas_job", "job_id", "id"),
    Index("ix_tree_deltas_batch", "batch_id"),
)

search_trees = Table(
    "search_trees",
    metadata,
    Column("job_id", BigInteger, ForeignKey("jobs.id"), primary_key=True),
    _tenant(),
    # Written once and read whole: as JSONB, every token id would be a numeric.
    Column("tree", JSON, nullable=False),
)

learnings = Table(
    "learnings",
    metadata,
    Column("batch_id", Text, ForeignKey("batches.id"), primary_key=True),
    Column("sums", JSONB, nullable=False, comment="{name: number}, each the sum over settled jobs"),
)

lessons = Table(
    "lessons",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("batch_id", Text, ForeignKey("batches.id"), nullable=False, index=True),
    Column("sums", JSONB, nullable=False, comment="{name: number}, of some settled jobs"),
)

tenant_learnings = Table(
    "tenant_learnings",
    metadata,
    Column("tenant_id", Text, ForeignKey("tenants.id"), primary_key=True),
    Column("scope", Text, primary_key=True, comment="names the weights and the strategy of the jobs"),
    Column("sums", JSONB, nullable=False, comment="{name: number}, as of learnt_at"),
    Column("learnt_at", DateTime(timezone=True), nullable=False, comment="they halve with every week since"),
)


_SUMS = """
    num_completed num_failed num_expired num_cancelled num_rejected num_oracle
    num_by_judge num_passed num_passed_by_judge num_judged_wrong num_unverified
    prompt_tokens cached_tokens completion_tokens thinking_tokens direct_nanodollars
    judge_tokens generated_tokens settled_nanodollars
"""


def _sums(names: str = _SUMS) -> list[Column[object]]:
    """Makes the columns that tallies and totals share. Each is a sum, so that rows of both can be added."""
    return [Column(name, BigInteger, nullable=False, server_default="0") for name in names.split()]


tallies = Table(
    "tallies",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("batch_id", Text, ForeignKey("batches.id"), nullable=False, index=True),
    Column("job_ids", ARRAY(BigInteger), nullable=False, server_default="{}", comment="settled, and not numbered yet"),
    *_sums(),
    Column(
        "day",
        Date,
        nullable=False,
        server_default=text("CAST(clock_timestamp() AT TIME ZONE 'UTC' AS date)"),
        comment="of the budgets that it counts toward, in UTC",
    ),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)

batch_history = Table(
    "batch_history",
    metadata,
    Column("batch_id", Text, ForeignKey("batches.id"), primary_key=True),
    Column(
        "begin_at",
        DateTime(timezone=True),
        primary_key=True,
        comment="of a stretch of time, which is longer the longer the batch has run",
    ),
    *_sums(
        "num_completed num_failed num_passed num_judged_wrong num_unverified prompt_tokens generated_tokens"
        " direct_nanodollars"
    ),
)

batch_totals = Table(
    "batch_totals",
    metadata,
    Column("batch_id", Text, ForeignKey("batches.id"), primary_key=True),
    *_sums(),
    Column(
        "num_costed",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="the settled jobs up to this number are in cost_totals",
    ),
    Index(
        "ix_batch_totals_uncosted",
        "batch_id",
        postgresql_where=text("num_costed < num_completed + num_failed + num_expired + num_cancelled"),
    ),
)

day_totals = Table(
    "day_totals",
    metadata,
    _tenant(),
    Column("key_id", Text, ForeignKey("api_keys.id"), comment="null: batches from before this was kept"),
    Column("day", Date, nullable=False, comment="in UTC"),
    *_sums("num_completed num_failed direct_nanodollars generated_tokens settled_nanodollars"),
    UniqueConstraint("tenant_id", "key_id", "day", postgresql_nulls_not_distinct=True),
)

budgets = Table(
    "budgets",
    metadata,
    _tenant(),
    Column("key_id", Text, ForeignKey("api_keys.id"), comment="null: of the tenant, over all its keys"),
    Column("period", Text, nullable=False, comment="day | month, in UTC"),
    Column("limit_tokens", BigInteger),
    Column("limit_nanodollars", BigInteger),
    UniqueConstraint("tenant_id", "key_id", "period", postgresql_nulls_not_distinct=True),
    CheckConstraint("period IN ('day', 'month')", name="period"),
    CheckConstraint("limit_tokens IS NOT NULL OR limit_nanodollars IS NOT NULL", name="limits"),
)

budget_warnings = Table(
    "budget_warnings",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _tenant(),
    Column("batch_id", Text, ForeignKey("batches.id"), comment="of a batch's own budget"),
    Column("key_id", Text, ForeignKey("api_keys.id"), comment="of a key's budget; both null: of the tenant's"),
    Column("budget", Text, nullable=False, comment="batch | key_day | key_month | tenant_day | tenant_month"),
    Column("renews_at", DateTime(timezone=True), comment="the end of the day or month; null: of a batch"),
    Column("measure", Text, nullable=False, comment="tokens | dollars"),
    Column("percent", Integer, nullable=False, comment="80 | 100"),
    Column("amount", BigInteger, nullable=False, comment="the limit, in tokens or nano-dollars"),
    Column("share", Double, nullable=False, comment="of the limit, as it was found"),
    Column("warned_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    UniqueConstraint(
        *("tenant_id", "batch_id", "key_id", "budget", "renews_at", "measure", "percent", "amount"),
        name="uq_budget_warnings_once",
        postgresql_nulls_not_distinct=True,
    ),
)

exhaustions = Table(
    "exhaustions",
    metadata,
    Column("batch_id", Text, ForeignKey("batches.id"), nullable=False),
    Column("budget", Text, nullable=False, comment="that kept the batch from going on"),
    Column("renews_at", DateTime(timezone=True), comment="the end of the day or month; null: of a batch"),
    Column("limit_tokens", BigInteger),
    Column("limit_nanodollars", BigInteger),
    UniqueConstraint(
        *("batch_id", "budget", "renews_at", "limit_tokens", "limit_nanodollars"),
        name="uq_exhaustions_once",
        postgresql_nulls_not_distinct=True,
    ),
)

webhooks = Table(
    "webhooks",
    metadata,
    _tenant(primary_key=True),
    Column("url", Text, comment="null: only batches that name one of their own have a webhook"),
    Column("salt", LargeBinary, nullable=False, comment="the secret is made from it and the operator's key"),
    Column("previous_salt", LargeBinary, comment="signs for a day after a new secret was made"),
    Column("key_check", LargeBinary, nullable=False, comment="tells whether the operator's key is still the same"),
    Column("secret_made_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    _timestamp("last_delivered_at"),
    Column("last_error", Text, comment="of an attempt; it may be over"),
    _timestamp("last_error_at"),
)

webhook_messages = Table(
    "webhook_messages",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column(
        "message_id",
        Text,
        nullable=False,
        unique=True,
        server_default=text("'msg_' || replace(CAST(gen_random_uuid() AS text), '-', '')"),
        comment="the same in all attempts",
    ),
    Column("tenant_id", Text, ForeignKey("webhooks.tenant_id"), nullable=False),
    Column("url", Text, comment="of the batch; null: the tenant's"),
    Column("body", Text, nullable=False, comment="as it is signed and sent"),
    Column("num_attempts", Integer, nullable=False, server_default="0"),
    Column("due_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp(), index=True),
    _created_at(),
)

result_runs = Table(
    "result_runs",
    metadata,
    Column("batch_id", Text, ForeignKey("batches.id"), primary_key=True),
    Column("last_number", BigInteger, primary_key=True, comment="of the run; the numbers of a batch have no gaps"),
    Column("job_ids", ARRAY(BigInteger), nullable=False, comment="settled jobs in the order of their numbers"),
    CheckConstraint("cardinality(job_ids) BETWEEN 1 AND 1000", name="length"),
)

surveys = Table(
    "surveys",
    metadata,
    Column("batch_id", Text, ForeignKey("batches.id"), primary_key=True),
    Column("document", JSONB, nullable=False, comment="the jobs of a batch, added up by cell"),
)

pilots = Table(
    "pilots",
    metadata,
    Column("batch_id", Text, ForeignKey("batches.id"), primary_key=True),
    Column("job_ids", ARRAY(BigInteger), nullable=False, comment="drawn at random; they run first"),
    Column("must_confirm", Boolean, nullable=False, comment="the batch waits for a yes after them"),
    Column("state", Text, nullable=False, server_default="running", comment="running | waiting | passed | stopped"),
    Column("reason", Text, comment="why it waits: confirm | over_budget | failed"),
    Column("estimate", JSONB, comment="of the whole batch, made when the last of them settled"),
    _timestamp("concluded_at"),
    Index("ix_pilots_open", "batch_id", postgresql_where=text("state IN ('running', 'waiting')")),
)

experience = Table(
    "experience",
    metadata,
    _tenant(primary_key=True),
    Column("fingerprint", Text, primary_key=True),
    Column("strategy", Text, primary_key=True, comment="in canonical form; empty: of too many cells"),
    Column("level", Text, primary_key=True, comment="empty: none, or of too many cells"),
    Column("sums", JSONB, nullable=False, comment="{name: number}, each the sum over completed jobs"),
)

batch_experience = Table(
    "batch_experience",
    metadata,
    Column("batch_id", Text, ForeignKey("batches.id"), primary_key=True),
    Column("fingerprint", Text, primary_key=True),
    Column("strategy", Text, primary_key=True, comment="as in experience"),
    Column("level", Text, primary_key=True, comment="as in experience"),
    Column("sums", JSONB, nullable=False, comment="{name: number}, each the sum over completed jobs of the batch"),
)

observations = Table(
    "observations",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _tenant(),
    Column("batch_id", Text, ForeignKey("batches.id"), comment="null: before this was kept"),
    Column("fingerprint", Text, nullable=False),
    Column("strategy", Text, nullable=False),
    Column("level", Text, nullable=False),
    Column("sums", JSONB, nullable=False, comment="{name: number}, of some completed jobs; folded into experience"),
    Index("ix_observations_cell", "tenant_id", "fingerprint"),
)

results = Table(
    "results",
    metadata,
    Column("job_id", BigInteger, ForeignKey("jobs.id"), primary_key=True),
    _tenant(),
    Column("answer", Text),
    Column("finish_reason", Text),
    Column("choices", JSONB, comment="[{text, finish_reason, score, logprobs}], best first"),
    Column("error", JSONB, comment="{code, message} of a failed job"),
)

usage = Table(
    "usage",
    metadata,
    Column("job_id", BigInteger, ForeignKey("jobs.id"), primary_key=True),
    _tenant(),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False, comment="all that was generated: what the budget counts"),
    Column("thinking_tokens", BigInteger, nullable=False),
    Column("reward_tokens", BigInteger, nullable=False),
    Column(
        "judge_tokens",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="of the generated ones, those that judges generated",
    ),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("recomputed_tokens", BigInteger, nullable=False),
    # These are null for jobs settled before they were there.
    Column("first_token_at", DateTime(timezone=True), comment="in the job's first attempt that made one"),
    Column("first_visible_token_at", DateTime(timezone=True), comment="the first one after a thought"),
    Column("ended_at", DateTime(timezone=True), comment="when the search ended, before the answer was verified"),
    Column("num_rounds", Integer, comment="1, and one more for each choice that a verifier refused"),
    Column("chosen_tokens", BigInteger, comment="on the paths of the answers that were returned"),
    Column("pruned_tokens", BigInteger, comment="in the answers' rounds, on other paths"),
    Column("other_round_tokens", BigInteger, comment="in rounds whose choice was refused"),
    Column(
        "judged_tokens",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="in the replies of judges, on no path to an answer",
    ),
)

price_book = Table(
    "price_book",
    metadata,
    Column("machine", Text, primary_key=True),
    Column("market", Text, primary_key=True),
    Column("valid_from", DateTime(timezone=True), primary_key=True),
    Column("nanodollars_per_hour", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("billed_by", Text, nullable=False, server_default="second", comment="second | minute | hour"),
    Column("minimum_s", Integer, nullable=False, server_default="0", comment="billed at least"),
    Column("region", Text, comment="where the machine stands"),
    Column("currency", Text, nullable=False, server_default="USD", comment="a label; nothing is converted"),
)

ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("incarnation_id", Text, ForeignKey("incarnations.id"), nullable=False),
    Column("tenant_id", Text, ForeignKey("tenants.id"), comment="null: overhead, borne by nobody directly"),
    Column("batch_id", Text, ForeignKey("batches.id")),
    Column("job_id", BigInteger, ForeignKey("jobs.id")),
    Column(
        "kind",
        Text,
        nullable=False,
        comment="work | recomputed | speculated | cancelled | duplicate | idle | loading | draining | lost",
    ),
    Column("nanodollars", BigInteger, nullable=False),
    _timestamp("from_at", nullable=False),
    _timestamp("until_at", nullable=False),
    Index("ix_ledger_entries_incarnation", "incarnation_id"),
    Index("ix_ledger_entries_loading", "incarnation_id", postgresql_where=text("kind = 'loading'")),
    Index("ix_ledger_entries_job", "job_id", postgresql_where=text("job_id IS NOT NULL")),
    Index("ix_ledger_entries_batch", "batch_id", postgresql_where=text("batch_id IS NOT NULL")),
    Index("ix_ledger_entries_until", "until_at"),
)


def _worker_hour(*, primary_key: bool = False) -> list[Column[object]]:
    return [
        Column("worker", Text, nullable=False, primary_key=primary_key),
        Column("hour", DateTime(timezone=True), nullable=False, primary_key=primary_key),
    ]


hour_tallies = Table(
    "hour_tallies",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    *_worker_hour(),
    Column("direct_nanodollars", BigInteger, nullable=False),
    Column("overhead_nanodollars", BigInteger, nullable=False),
)

hour_totals = Table(
    "hour_totals",
    metadata,
    *_worker_hour(primary_key=True),
    Column("direct_nanodollars", BigInteger, nullable=False),
    Column("overhead_nanodollars", BigInteger, nullable=False),
)

cost_totals = Table(
    "cost_totals",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("batch_id", Text, ForeignKey("batches.id"), nullable=False),
    Column("model", Text, nullable=False),
    Column("strategy", Text, nullable=False),
    Column("level", Text),
    *(
        Column(name, BigInteger, nullable=False, server_default="0")
        for name in [
            "num_jobs",
            "num_oracle",
            "num_by_judge",
            "num_settled",
            "num_passed",
            "num_passed_by_judge",
            "num_compared",
            "num_agreed",
            "num_verdicts",
            "num_failed",
            "completion_tokens",
        ]
    ),
    Index(
        "ix_cost_totals_cell",
        *("batch_id", "model", "strategy", "level"),
        unique=True,
        postgresql_nulls_not_distinct=True,
    ),
)

cost_hours = Table(
    "cost_hours",
    metadata,
    Column("cell_id", BigInteger, ForeignKey("cost_totals.id"), primary_key=True),
    *_worker_hour(primary_key=True),
    Column("nanodollars", BigInteger, nullable=False),
    Column("passed_nanodollars", BigInteger, nullable=False, comment="of jobs that passed"),
)

cost_products = Table(
    "cost_products",
    metadata,
    Column("cell_id", BigInteger, ForeignKey("cost_totals.id"), primary_key=True),
    *_worker_hour(primary_key=True),
    Column("other_worker", Text, primary_key=True),
    Column("other_hour", DateTime(timezone=True), primary_key=True),
    Column(
        "product",
        Numeric,
        nullable=False,
        comment="of a job's nano-dollars in both, twice if they differ; the sum over jobs",
    ),
)

late_costs = Table(
    "late_costs",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("job_id", BigInteger, ForeignKey("jobs.id"), nullable=False, index=True),
    *_worker_hour(),
    Column("nanodollars", BigInteger, nullable=False),
)

settled_jobs = Table(
    "settled_jobs",
    metadata,
    Column("batch_id", Text, ForeignKey("batches.id"), primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("job_id", BigInteger, ForeignKey("jobs.id"), nullable=False),
    # Those of the job, which is settled, so that a million jobs can be sorted and filtered without reading them.
    Column("state", Text, nullable=False),
    Column("verdict", Text),
    Column("level", Text),
    Column("tokens", BigInteger, nullable=False, comment="generated"),
    Column("nanodollars", BigInteger, nullable=False, comment="its direct cost"),
    Index("ix_settled_jobs_tokens", "batch_id", "tokens", "line"),
    Index("ix_settled_jobs_nanodollars", "batch_id", "nanodollars", "line"),
)

pulse = Table(
    "pulse",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default=text("true"), comment="true: there is one row"),
    Column("beat_at", DateTime(timezone=True), nullable=False, comment="when a dispatcher last wrote this"),
    Column("lease_s", Double, nullable=False, comment="of that dispatcher's settings"),
    Column("outage_from", DateTime(timezone=True), comment="the last outage: the beat before it"),
    Column("grace_until", DateTime(timezone=True), comment="a lease after the beat that ended it"),
    CheckConstraint("is_only", name="is_only"),
)

dispatcher = Table(
    "dispatcher",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default=text("true"), comment="true: there is one row"),
    _timestamp("seen_at", nullable=False),
    Column("error", Text, comment="the last one; it may be over"),
    _timestamp("error_at"),
    Column("failing_since", DateTime(timezone=True), comment="null: its last round was well"),
    CheckConstraint("is_only", name="is_only"),
)

bench_runs = Table(
    "bench_runs",
    metadata,
    Column("id", Text, primary_key=True),
    _tenant(),
    Column("name", Text, nullable=False, comment="of the suite"),
    Column("document", JSON, nullable=False, comment="settings, batches and figures; no prompt or answer"),
    _created_at(),
    Index("ix_bench_runs_tenant", "tenant_id", "created_at"),
)

worker_samples = Table(
    "worker_samples",
    metadata,
    Column("incarnation_id", Text, ForeignKey("incarnations.id"), primary_key=True),
    Column("at", DateTime(timezone=True), primary_key=True),
    Column("seconds", Double, nullable=False, comment="that its counts cover, up to `at`"),
    Column("kv_usage", Double, nullable=False, comment="share of the generator's pages that are held"),
    *(Column(name, Integer, nullable=False) for name in ("num_running", "num_waiting")),
    *(
        Column(name, BigInteger, nullable=False)
        for name in [
            "prompt_tokens",
            "generated_tokens",
            "computed_tokens",
            "num_steps",
            "num_preemptions",
            "prefix_queries",
            "prefix_hits",
        ]
    ),
    Column("memory_bytes", BigInteger, nullable=False, comment="of the engine process or on its GPU"),
    Index("ix_worker_samples_at", "at"),
)

fleet_workers = Table(
    "fleet_workers",
    metadata,
    Column("id", Text, primary_key=True),
    *(Column(name, Text, nullable=False) for name in ("model", "machine", "market")),
    Column("worker", Text, comment="the name under which it registers; null: not yet known"),
    Column("handle", Text, comment="the provider's own name of it"),
    Column("nanodollars_per_hour", BigInteger, nullable=False),
    Column("ordered_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("told_at", DateTime(timezone=True), comment="since when the provider knows of it"),
    Column("seen_at", DateTime(timezone=True), comment="when the provider first had it"),
    _timestamp("ready_at"),
    Column("leave_by", DateTime(timezone=True), comment="the end of its draining"),
    Column("stop_at", DateTime(timezone=True), comment="since when it is to be stopped"),
    Column("stopped_at", DateTime(timezone=True), comment="when the provider last said that it stops it"),
    Column("num_tries", Integer, nullable=False, server_default="0", comment="attempts to stop it that failed"),
    Column("retry_at", DateTime(timezone=True), comment="when the provider is asked again to stop it"),
    _timestamp("ended_at"),
    Column("has_failed", Boolean, nullable=False, server_default=text("false")),
    Index("ix_fleet_workers_open", "ordered_at", postgresql_where=text("ended_at IS NULL")),
    Index("ix_fleet_workers_ordered_at", "ordered_at"),
    Index("ix_fleet_workers_worker", "worker"),
)

fleet_decisions = Table(
    "fleet_decisions",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("action", Text, nullable=False, comment="start | ready | drain | stop | give up | ended | failed"),
    *(Column(name, Text, nullable=False) for name in ("model", "machine", "market")),
    Column("worker", Text, comment="of fleet_workers, or a name that nobody ordered; null: none yet"),
    Column("reason", Text, nullable=False, comment="in plain words"),
    Index("ix_fleet_decisions_at", "at"),
)

fleet_scope = Table(
    "fleet_scope",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default=text("true"), comment="true: there is one row"),
    Column("pid", Integer, nullable=False, comment="of the backend that holds the active autoscaler's lock"),
    Column("models", JSONB, nullable=False, comment="those that it looks after; empty: all that are known"),
    Column("min_workers", Integer, nullable=False),
    Column("max_workers", Integer),
    Column("max_nanodollars_per_hour", BigInteger),
    Column("named", JSONB, nullable=False, comment="pairs of machine and market: the operator's"),
    Column("offered", JSONB, nullable=False, comment="likewise: those that its provider can start"),
    CheckConstraint("is_only", name="is_only"),
)


def _counter(*, primary_key: bool = False) -> list[Column[object]]:
    return [
        Column("counter", Text, nullable=False, primary_key=primary_key, comment="spent | preempted"),
        Column("label", Text, nullable=False, primary_key=primary_key, comment="the kind of cost, the reason"),
        Column("amount", Numeric, nullable=False),
    ]


counter_tallies = Table(
    "counter_tallies", metadata, Column("id", BigInteger, Identity(), primary_key=True), *_counter()
)

counter_totals = Table("counter_totals", metadata, *_counter(primary_key=True))
