"""Add schedules of jobs

Services that need a job every night bring a scheduler of their own, which runs twice where two processes have it, and
not at all where its process is away at the time. Here whichever worker looks first enqueues what is due, in the
transaction that says when the next is due.

Locks: none on existing tables.
Data: none.
Deploy: expand (before the code that adds schedules, and the workers that look for them).
Downgrade: drops the schedules; jobs that they have enqueued stay.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261128120200"
down_revision = "20261128120100"
branch_labels = None
depends_on = None


def upgrade() -> None:
    now = sa.text("CURRENT_TIMESTAMP")
    op.create_table(
        "rag_job_schedules",
        sa.Column(
            "id",
            sa.Uuid(),
            server_default=sa.text("gen_random_uuid()"),
            nullable=False,
            comment="Names the schedule to the database; people use its name",
        ),
        sa.Column("name", sa.Text(), nullable=False, comment="Names the schedule"),
        sa.Column("job_type", sa.Text(), nullable=False, comment="Of the jobs: which workers they are for"),
        sa.Column("payload", postgresql.JSONB(), nullable=False, comment="Of the jobs: what to do"),
        sa.Column(
            "priority",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Of the jobs: smaller numbers first; 0 is usual",
        ),
        sa.Column(
            "max_attempts",
            sa.Integer(),
            server_default=sa.text("10"),
            nullable=False,
            comment="Of the jobs: how many attempts may count",
        ),
        sa.Column(
            "dedupe_key",
            sa.Text(),
            comment="Of the jobs: while one is unfinished, the next takes its place",
        ),
        sa.Column(
            "cron",
            sa.Text(),
            comment="When, as minute, hour, day of month, month and day of week; or every",
        ),
        sa.Column(
            "every",
            postgresql.INTERVAL(),
            comment="When, as the time from one to the next, a second at least; or cron",
        ),
        sa.Column(
            "timezone",
            sa.Text(),
            server_default="UTC",
            nullable=False,
            comment="Whose clock cron means, such as Europe/Vienna",
        ),
        sa.Column(
            "next_run_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When the next job is due; whoever looks first after that enqueues it",
        ),
        sa.Column(
            "paused",
            sa.Boolean(),
            server_default=sa.false(),
            nullable=False,
            comment="Whether nothing is enqueued",
        ),
        sa.Column("last_enqueued_at", sa.DateTime(timezone=True), comment="When the last job was enqueued"),
        sa.Column(
            "error_message",
            sa.Text(),
            comment="Why none was enqueued when one was due: cron or timezone cannot be read; tried again in an hour",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=now,
            nullable=False,
            comment="When the schedule was added",
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=now,
            nullable=False,
            comment="When anything of it last changed",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("rag_job_schedules_pkey")),
        sa.UniqueConstraint("name", name=op.f("rag_job_schedules_name_key")),
        sa.CheckConstraint(
            "num_nonnulls(cron, every) = 1 AND every >= '00:00:01'::interval AND isfinite(next_run_at)",
            name=op.f("rag_job_schedules_time_check"),
        ),
        sa.CheckConstraint(
            "max_attempts >= 1 AND octet_length(name) <= 2000 AND octet_length(job_type) <= 2000"
            " AND octet_length(dedupe_key) <= 2000",
            name=op.f("rag_job_schedules_job_check"),
        ),
    )
    op.create_index(
        "rag_job_schedules_next_run_at_idx",
        "rag_job_schedules",
        ["next_run_at"],
        postgresql_where=sa.text("NOT paused"),
    )


def downgrade() -> None:
    op.drop_table("rag_job_schedules")
