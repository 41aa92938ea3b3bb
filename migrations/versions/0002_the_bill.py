"""the bill: prices of machines, and the views that reports read

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_LIST = "the-full-stack/website cloud GPU list, March 2025"
_NO_SPOT = "assumed: 40 % of on demand; that list has no spot price"
_UNLISTED = "assumed: 1.25 x h100; that list has no H200"

# machine, market, $/h of one GPU, source
_PRICES = [
    ("cpu", "on_demand", "0.10", "assumed: a cloud machine with two cores"),
    ("cpu", "spot", "0.04", "assumed: a cloud machine with two cores"),
    ("t4", "on_demand", "0.53", f"{_LIST}: AWS g4dn.xlarge"),
    ("t4", "spot", "0.16", f"{_LIST}: AWS g4dn.xlarge"),
    ("a10g", "on_demand", "1.01", f"{_LIST}: AWS g5.xlarge"),
    ("a10g", "spot", "0.30", f"{_LIST}: AWS g5.xlarge"),
    ("v100", "on_demand", "3.06", f"{_LIST}: AWS p3.2xlarge"),
    ("v100", "spot", "0.92", f"{_LIST}: AWS p3.2xlarge"),
    ("l4", "on_demand", "1.00", f"{_LIST}: OVHcloud l4-90"),
    ("l4", "spot", "0.40", _NO_SPOT),
    ("a100-40", "on_demand", "3.67", f"{_LIST}: GCP a2-highgpu-1g"),
    ("a100-40", "spot", "1.10", f"{_LIST}: GCP a2-highgpu-1g"),
    ("a100", "on_demand", "3.67", f"{_LIST}: Azure NC24ads A100 v4"),
    ("a100", "spot", "1.47", f"{_LIST}: Azure NC24ads A100 v4"),
    ("h100", "on_demand", "2.99", f"{_LIST}: OVHcloud h100-380"),
    ("h100", "spot", "1.20", _NO_SPOT),
    ("h200", "on_demand", "3.74", _UNLISTED),
    ("h200", "spot", "1.50", f"{_UNLISTED}, and 40 % of on demand"),
]

# Overhead is spread over the jobs that the same worker served in the same hour.
_WORKER_HOURS = """
CREATE VIEW worker_hours AS
SELECT incarnations.worker,
       date_trunc('hour', ledger_entries.until_at, 'UTC') AS hour,
       coalesce(sum(nanodollars) FILTER (WHERE job_id IS NOT NULL), 0) AS direct_nanodollars,
       coalesce(sum(nanodollars) FILTER (WHERE job_id IS NULL), 0) AS overhead_nanodollars
FROM ledger_entries
JOIN incarnations ON incarnations.id = ledger_entries.incarnation_id
GROUP BY 1, 2
"""

_JOB_COSTS = """
CREATE VIEW job_costs AS
SELECT ledger_entries.job_id,
       incarnations.market,
       incarnations.machine,
       sum(nanodollars) AS direct_nanodollars,
       sum(nanodollars * (1 + overhead_nanodollars / nullif(direct_nanodollars, 0))) AS loaded_nanodollars
FROM ledger_entries
JOIN incarnations ON incarnations.id = ledger_entries.incarnation_id
JOIN worker_hours
  ON worker_hours.worker = incarnations.worker
 AND worker_hours.hour = date_trunc('hour', ledger_entries.until_at, 'UTC')
WHERE ledger_entries.job_id IS NOT NULL
GROUP BY 1, 2, 3
"""

_COST_PER_SUCCESSFUL_TASK = """
CREATE VIEW cost_per_successful_task AS
SELECT jobs.tenant_id,
       jobs.model,
       jobs.strategy,
       jobs.level,
       count(*) AS num_jobs,
       count(*) FILTER (WHERE jobs.state <> 'pending') AS num_settled,
       count(*) FILTER (WHERE jobs.verdict = 'passed') AS num_passed,
       coalesce(sum(costs.direct_nanodollars), 0) AS direct_nanodollars,
       coalesce(sum(costs.loaded_nanodollars), 0) AS loaded_nanodollars,
       sum(costs.loaded_nanodollars) / nullif(count(*) FILTER (WHERE jobs.verdict = 'passed'), 0)
           AS cost_per_successful_task
FROM jobs
LEFT JOIN (
    SELECT job_id,
           sum(direct_nanodollars) AS direct_nanodollars,
           sum(loaded_nanodollars) AS loaded_nanodollars
    FROM job_costs
    GROUP BY job_id
) AS costs ON costs.job_id = jobs.id
GROUP BY 1, 2, 3, 4
"""


def upgrade() -> None:
    op.execute(_WORKER_HOURS)
    op.execute(_JOB_COSTS)
    op.execute(_COST_PER_SUCCESSFUL_TASK)
    price_book = sa.table(
        "price_book",
        sa.column("machine", sa.Text),
        sa.column("market", sa.Text),
        sa.column("valid_from", sa.DateTime(timezone=True)),
        sa.column("nanodollars_per_hour", sa.BigInteger),
        sa.column("source", sa.Text),
    )
    op.bulk_insert(
        price_book,
        [
            {
                "machine": machine,
                "market": market,
                "valid_from": datetime(2025, 3, 1, tzinfo=timezone.utc),
                "nanodollars_per_hour": int(Decimal(dollars) * 1_000_000_000),
                "source": source,
            }
            for machine, market, dollars, source in _PRICES
        ],
    )


def downgrade() -> None:
    op.execute("DROP VIEW cost_per_successful_task")
    op.execute("DROP VIEW job_costs")
    op.execute("DROP VIEW worker_hours")
    op.execute("DELETE FROM price_book")
