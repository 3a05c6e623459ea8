"""``rag jobs``: what an operator sees, retries, cancels and deletes."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from conftest import Command, DatabaseAt, connect
from ragschema import JobStatus, NewJob, jobs, migrations
from ragschema.cli.jobs import Status
from ragschema.database.settings import Database
from test_json import check

Rag = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def rag(run: Command, database: Database) -> Rag:
    """Run ``rag jobs ...`` on the test's database; it must exit with the code given."""

    def rag(command: str, *, code: int = 0) -> subprocess.CompletedProcess[str]:
        result = run("rag", "jobs", *shlex.split(command), DATABASE_URL=database.libpq_url())
        assert result.returncode == code, result.stderr
        assert "Traceback" not in result.stderr
        return result

    return rag


def document(rag: Rag, command: str, *, code: int = 0) -> Any:
    """Run a command with ``--json``; return its document, which is one of its schema."""
    return check(f"jobs {command.split()[0]}", rag(f"{command} --json", code=code).stdout)


def finish(session: Session, job_type: str, *, count: int, days_ago: int, error: str | None = None) -> None:
    """Make jobs that were completed, or failed with an error, some days ago."""
    jobs.enqueue_many(session, [NewJob(job_type=job_type, payload={}) for _ in range(count)])
    session.commit()
    claimed = jobs.claim(session, "worker", [job_type], limit=count)
    assert len(claimed) == count
    if error is None:
        jobs.complete_many(session, claimed)
    else:
        for job in claimed:
            jobs.fail(session, job, error, permanent=True)
    session.execute(
        sa.text(
            "UPDATE rag_jobs SET finished_at = now() - :days * interval '1 day', updated_at = :now"
            " WHERE id = ANY(:ids)"
        ),
        {"days": days_ago, "now": datetime.now(UTC), "ids": [job.id for job in claimed]},
    )
    session.commit()


def test_the_statuses_are_those_of_the_models() -> None:
    assert [status.value for status in Status] == [status.value for status in JobStatus]


def test_stats_count_each_type(rag: Rag, session: Session) -> None:
    assert rag("stats").stdout == ""
    assert document(rag, "stats") == {"types": []}
    finish(session, "embed", count=2, days_ago=0, error="no")
    jobs.enqueue_many(session, [NewJob(job_type="embed", payload={}) for _ in range(3)])
    jobs.enqueue(session, "index", {}, run_at=datetime.now(UTC) + timedelta(days=1))
    session.commit()
    jobs.claim(session, "worker", ["embed"])
    session.commit()
    first, second = rag("stats").stdout.splitlines()
    assert first.startswith("embed\t2\t2\t1\t0\t2\t0:00:")
    assert second == "index\t1\t0\t0\t0\t0"
    embed, index = document(rag, "stats")["types"]
    assert embed["oldest_age"] > 0
    assert index["oldest_age"] is None


def test_the_list_shows_the_newest_first_and_only_what_is_asked_for(rag: Rag, session: Session) -> None:
    finish(session, "embed", count=1, days_ago=0, error="Traceback\n  line 1\nValueError: no text")
    waiting = jobs.enqueue(session, "index", {}, dedupe_key="a")
    session.commit()
    jobs.enqueue(session, "embed", {}, priority=-1)
    session.commit()
    (late,) = jobs.claim(session, "worker 7", ["embed"])
    jobs.heartbeat(session, late, lease=timedelta(microseconds=1))
    session.commit()
    rows = [line.split("\t") for line in rag("list").stdout.splitlines()]
    assert [(row[1], row[2], row[3]) for row in rows] == [
        ("embed", "expired", "1"),
        ("index", "new", "0"),
        ("embed", "failed", "1"),
    ]
    assert rows[0][5] == "worker 7"
    assert rows[2][6] == "ValueError: no text"
    (listed,) = document(rag, "list --status new")["jobs"]
    assert (listed["id"], listed["dedupe_key"], listed["finished_at"]) == (str(waiting), "a", None)
    assert [job["status"] for job in document(rag, "list --type embed")["jobs"]] == ["processing", "failed"]
    assert [job["is_expired"] for job in document(rag, "list --limit 1")["jobs"]] == [True]
    assert "'done'" in rag("list --status done", code=2).stderr


def test_retry_lets_failed_jobs_wait_and_names_those_that_cannot(rag: Rag, session: Session) -> None:
    finish(session, "a", count=2, days_ago=0, error="no")
    finish(session, "b", count=1, days_ago=0)
    first, second = session.scalars(sa.text("SELECT id FROM rag_jobs WHERE job_type = 'a' ORDER BY id"))
    done = session.scalar(sa.text("SELECT id FROM rag_jobs WHERE job_type = 'b'"))
    session.commit()
    assert rag(f"retry {first}").stdout == f"retried {first}\n"
    refused = rag(f"retry {done}", code=1)
    assert refused.stderr.splitlines()[-2] == f"Error: Job {done} is completed, so it cannot be retried."
    nobody = uuid4()
    found = document(rag, f"retry {second} {done} {nobody}", code=1)
    assert found["retried"] == [str(second)]
    assert found["refused"] == [
        f"Job {done} is completed, so it cannot be retried.",
        f"There is no job {nobody}.",
    ]
    assert [each.due for each in jobs.stats(session)] == [2]
    assert "not a valid UUID" in rag("retry embed", code=2).stderr


def test_retry_leaves_a_job_whose_key_has_a_newer_one(rag: Rag, session: Session) -> None:
    failed = jobs.enqueue(session, "a", {}, dedupe_key="k")
    session.commit()
    (job,) = jobs.claim(session, "worker")
    jobs.fail(session, job, "no", permanent=True)
    newer = jobs.enqueue(session, "a", {}, dedupe_key="k")
    session.commit()
    said = rag(f"retry {failed}", code=1).stderr
    assert f"Job {failed} cannot be retried: job {newer} with the same key is unfinished." in said


def test_cancel_fails_what_waits_or_runs_with_the_reason(rag: Rag, session: Session) -> None:
    ids = jobs.enqueue_many(session, [NewJob(job_type="a", payload={}) for _ in range(2)])
    session.commit()
    (job,) = jobs.claim(session, "worker")
    session.commit()
    found = document(rag, f"cancel {ids[0]} {ids[1]} --reason 'wrong model'")
    assert found == {"cancelled": [str(job_id) for job_id in ids], "refused": []}
    assert jobs.complete(session, job) is False
    listed = document(rag, "list --status failed")["jobs"]
    assert {each["error_message"] for each in listed} == {"cancelled: wrong model"}
    assert f"Job {ids[0]} is failed, so it cannot be cancelled." in rag(f"cancel {ids[0]}", code=1).stderr


def test_prune_counts_first_and_deletes_only_what_it_is_told_to(rag: Rag, session: Session) -> None:
    finish(session, "a", count=3, days_ago=31)
    finish(session, "b", count=2, days_ago=31, error="no")
    finish(session, "c", count=1, days_ago=29)
    counted = "SELECT count(*) FROM rag_jobs"
    said = rag("prune --older-than 30d").stdout
    assert said == "Would delete 3 completed jobs. Nothing was deleted: add --yes to delete them.\n"
    said = rag("prune --older-than 30d --failed").stdout
    assert said.startswith("Would delete 3 completed jobs and 2 failed jobs. Nothing was deleted")
    assert document(rag, "prune --older-than 30d --failed") == {
        "is_dry_run": True,
        "jobs": {"completed": 3, "failed": 2},
    }
    assert session.scalar(sa.text(counted)) == 6
    session.commit()
    assert rag("prune --older-than 30d --yes").stdout == "Deleted 3 completed jobs.\n"
    assert session.scalar(sa.text(counted)) == 3
    session.commit()
    assert document(rag, "prune --older-than 30d --failed --yes") == {
        "is_dry_run": False,
        "jobs": {"completed": 0, "failed": 2},
    }
    assert session.scalar(sa.text("SELECT job_type FROM rag_jobs")) == "c"
    assert "--older-than" in rag("prune", code=2).stderr
    assert "not a duration" in rag("prune --older-than month", code=2).stderr


def test_prune_goes_on_until_the_last_batch(database: Database, session: Session, rag: Rag) -> None:
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO rag_jobs (job_type, payload, status, finished_at)"
            " SELECT 'a', '{}', 'completed', now() - interval '2 days' FROM generate_series(1, 20001)"
        )
    assert rag("prune --older-than 1d --yes").stdout == "Deleted 20,001 completed jobs.\n"
    assert session.scalar(sa.text("SELECT count(*) FROM rag_jobs")) == 0


def test_a_schema_of_its_own_is_looked_at(run: Command, empty_database: Database) -> None:
    migrations.upgrade(empty_database, schema="tenant")
    with connect(empty_database) as connection:
        connection.execute("SELECT tenant.rag_jobs_enqueue('embed')")
    result = run("rag", "jobs", "stats", "--schema", "tenant", DATABASE_URL=empty_database.libpq_url())
    assert result.stdout.startswith("embed\t1\t1\t0\t0\t0\t"), result.stderr


@pytest.mark.parametrize(
    "command", ["stats", "list", "retry 6b0c4ef4-3a4b-4a51-9cbc-4a2a6a3a6a10", "prune --older-than 1d"]
)
def test_a_database_without_the_queue_says_what_to_run(
    command: str, run: Command, database_at: DatabaseAt
) -> None:
    old = database_at("20251225160000")
    result = run("rag", "jobs", *command.split(), DATABASE_URL=old.libpq_url())
    assert result.returncode == 3
    assert "The database does not have the queue of this ragschema.\nRun `rag migrate`.\n" in result.stderr
    assert result.stdout == ""


def test_a_server_that_refuses_a_statement_is_explained(run: Command, database: Database) -> None:
    with connect(database) as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION rag_jobs_stats() RETURNS TABLE (job_type text, waiting bigint,"
            " due bigint, processing bigint, expired bigint, failed bigint, oldest_age interval)"
            " LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'out of order'; END$$"
        )
    result = run("rag", "jobs", "stats", DATABASE_URL=database.libpq_url())
    assert result.returncode == 1
    assert "Error: The server refused a statement." in result.stderr
    assert "out of order" in result.stderr


def test_an_unreachable_database_exits_69(run: Command) -> None:
    result = run("rag", "jobs", "stats", DATABASE_URL="postgresql://someone:sesame@127.0.0.1:1/none")
    assert result.returncode == 69
    assert "sesame" not in result.stdout + result.stderr
