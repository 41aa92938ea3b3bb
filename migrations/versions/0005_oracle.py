"""oracle: jobs whose search may have been told what the reference says, in every report

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_VIEW = """
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
           AS cost_per_successful_task{more}
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
    comment = "the search may have been told what the reference says"
    op.add_column(
        "jobs", sa.Column("oracle", sa.Boolean(), nullable=False, server_default=sa.text("false"), comment=comment)
    )
    op.execute("DROP VIEW cost_per_successful_task")
    op.execute(_VIEW.format(more=",\n       count(*) FILTER (WHERE jobs.oracle) AS num_oracle"))


def downgrade() -> None:
    op.execute("DROP VIEW cost_per_successful_task")
    op.drop_column("jobs", "oracle")
    op.execute(_VIEW.format(more=""))
