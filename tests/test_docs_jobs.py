"""The page on background jobs is true: each of its scripts, statements and commands runs."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from checkouts import rows, wait_until
from conftest import ROOT, Command, clean_environment, connect
from documents import block, blocks, printed, run_script, section
from ragschema.database.settings import Database

PAGE = (ROOT / "docs" / "jobs.md").read_text()
SOME_ID = "6d3c1f8e-0000-4000-8000-000000000001"

Connection = psycopg.Connection[psycopg.rows.TupleRow]


def statements(text: str) -> list[str]:
    """Return the statements of all blocks of SQL, in order."""
    return [each.strip() for sql in blocks(text, "sql") for each in sql.split(";\n") if each.strip()]


def states(connection: Connection, job_type: str) -> list[object]:
    query = "SELECT status::text || ' ' || attempts FROM rag_jobs WHERE job_type = %s ORDER BY created_at"
    return rows(connection, query, job_type)


@contextmanager
def running(
    script: str, directory: Path, database: Database, *, ends_by: int = 0
) -> Iterator[subprocess.Popen[str]]:
    """Run a script while the block runs; then end it by SIGTERM, as it says that it can be.

    uvicorn raises the signal again when it has ended: ``ends_by=-signal.SIGTERM``.
    """
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=directory,
        env=clean_environment() | {"DATABASE_URL": database.libpq_url()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate()
            assert (process.returncode, out) == (ends_by, ""), err
        finally:
            process.kill()


def test_every_block_of_code_is_run_here() -> None:
    languages = {name: re.findall(r"^```(\w+)", section(PAGE, name), re.M) for name in headings()}
    assert languages == {
        "Enqueue": ["python"],
        "Work": ["python", "python"],
        "Work in asyncio": ["python", "python"],
        "Again and again": ["python", "python"],
        "Operate": ["console", "sql"],
        "From Go, or in SQL": ["sql", "sql"],
        "Beside a service that writes its own SQL": ["sql"],
    }


def headings() -> list[str]:
    return re.findall(r"^## (.+)$", PAGE, re.M)


def test_what_is_enqueued_is_done_by_the_workers_of_the_page(database: Database, tmp_path: Path) -> None:
    enqueue = block(section(PAGE, "Enqueue"), "python")
    worker, batches = blocks(section(PAGE, "Work"), "python")
    result = run_script(enqueue, tmp_path, {"DATABASE_URL": database.libpq_url()})
    assert (result.stderr, result.stdout.splitlines()) == ("", printed(enqueue))
    with connect(database) as connection:
        assert states(connection, "index") == ["new 0"] * 1000
        result = run_script(batches, tmp_path, {"DATABASE_URL": database.libpq_url()})
        assert (result.returncode, result.stderr) == (0, "")
        assert states(connection, "index") == ["completed 1"] * 1000

        connection.execute("SELECT rag_jobs_enqueue('embed', '{\"pages\": []}')")
        with running(worker, tmp_path, database):
            wait_until(lambda: states(connection, "embed") == ["completed 1", "failed 1"], "their ends")
        assert rows(
            connection, "SELECT progress FROM rag_jobs WHERE status = 'completed' AND progress > '0'"
        ) == [3]
        (error,) = rows(connection, "SELECT error_message FROM rag_jobs WHERE status = 'failed'")
        assert str(error).endswith("PermanentFailure: a document without pages\n")


def test_the_worker_in_asyncio_completes_and_fails(database: Database, tmp_path: Path) -> None:
    script, _ = blocks(section(PAGE, "Work in asyncio"), "python")
    with connect(database) as connection:
        connection.execute("SELECT rag_jobs_enqueue('embed')")
        with running(script, tmp_path, database):
            wait_until(lambda: states(connection, "embed") == ["completed 1"], "its end")
        connection.execute("SELECT rag_jobs_enqueue('embed', max_attempts => 1)")
        with running(script.replace("asyncio.sleep(0)", "asyncio.sleep(1 / 0)"), tmp_path, database):
            wait_until(lambda: states(connection, "embed") == ["completed 1", "failed 1"], "its end")


def test_the_worker_beside_a_service_completes_and_ends_with_it(database: Database, tmp_path: Path) -> None:
    _, service = blocks(section(PAGE, "Work in asyncio"), "python")
    script = service + "\nimport uvicorn\nuvicorn.run(app, port=0, log_level='warning')\n"
    with connect(database) as connection:
        connection.execute("SELECT rag_jobs_enqueue('embed')")
        with running(script, tmp_path, database, ends_by=-signal.SIGTERM):
            wait_until(lambda: states(connection, "embed") == ["completed 1"], "its end")


def test_the_schedules_are_added_again_and_again_and_enqueued(database: Database, tmp_path: Path) -> None:
    add, enqueue = blocks(section(PAGE, "Again and again"), "python")
    environment = {"DATABASE_URL": database.libpq_url()}
    for _ in range(2):
        result = run_script(add, tmp_path, environment)
        assert (result.stderr, result.stdout.splitlines()) == ("", printed(add))
    with connect(database) as connection:
        connection.execute("UPDATE rag_job_schedules SET next_run_at = now()")
        result = run_script(enqueue, tmp_path, environment)
        assert result.stderr == ""
        assert rows(connection, "SELECT job_type FROM rag_jobs ORDER BY 1") == ["fetch", "prune"]


def test_its_commands_run(database: Database, run: Command) -> None:
    commands = re.findall(r"^\$ rag (.+)$", block(section(PAGE, "Operate"), "console"), re.M)
    verbs = [(*shlex.split(command), "")[1:3] for command in commands]
    assert {verb for verb, _ in verbs if verb != "schedule"} == {"stats", "list", "retry", "cancel", "prune"}
    assert [verb for group, verb in verbs if group == "schedule"] == [
        *("add", "add", "list", "pause", "resume", "remove")
    ]
    with connect(database) as connection:
        job_id = rows(connection, "SELECT rag_jobs_enqueue('embed')")[0]
        rows(connection, "SELECT id FROM rag_jobs_claim('worker')")
        rows(connection, "SELECT rag_jobs_fail(%s, 1, 'no', permanent => true)", job_id)
    for command in commands:
        arguments = [str(job_id) if word == "ID" else word for word in shlex.split(command)]
        result = run("rag", *arguments, DATABASE_URL=database.libpq_url())
        assert (result.returncode, bool(result.stdout)) == (0, True), result.stderr


def test_the_setting_turns_notifications_off(database: Database) -> None:
    (setting,) = statements(section(PAGE, "Operate"))
    with connect(database) as ears, connect(database) as connection:
        ears.execute(f"LISTEN {rows(connection, 'SELECT rag_jobs_channel()')[0]}".encode())
        connection.execute(setting.encode())
        connection.execute("SELECT rag_jobs_enqueue('silent')")
        connection.execute("INSERT INTO rag_jobs (job_type, payload) VALUES ('silent', '{}')")
        connection.execute("RESET rag_jobs.notify")
        connection.execute("SELECT rag_jobs_enqueue('loud')")
        assert [told.payload for told in ears.notifies(timeout=60, stop_after=1)] == ["loud"]


def test_another_language_calls_the_functions(database: Database) -> None:
    enqueue, claim, heartbeat, complete, fail = statements(section(PAGE, "From Go, or in SQL"))
    with connect(database) as connection:
        for last, answers in ((complete, [True]), (fail, ["new"])):
            (job_id,) = rows(connection, enqueue)
            (claimed,) = rows(connection, claim)
            assert claimed == (job_id, 1, {"article_id": "noises"}, None)
            assert rows(connection, heartbeat.replace(SOME_ID, str(job_id))) == [True]
            assert rows(connection, last.replace(SOME_ID, str(job_id))) == answers
            assert rows(connection, heartbeat.replace(SOME_ID, str(job_id))) == [False]
            assert rows(connection, fail.replace(SOME_ID, str(job_id))) == [None]


def test_a_service_with_its_own_sql_shares_the_queue(database: Database) -> None:
    insert, claim, complete = statements(section(PAGE, "Beside a service that writes its own SQL"))
    with connect(database) as connection:
        connection.execute(insert.encode())
        ((job_id, job_type, payload, attempts),) = connection.execute(claim.encode()).fetchall()
        assert (job_type, payload, attempts) == ("embed", {"article_id": "noises"}, 1)
        assert connection.execute(claim.encode()).fetchall() == []
        assert rows(connection, "SELECT id FROM rag_jobs_claim('worker')") == []
        lease = "SELECT extract(epoch FROM lease_expires_at - started_at)::int FROM rag_jobs"
        assert rows(connection, lease) == [3600]
        connection.execute(complete.replace(SOME_ID, str(job_id)).encode())
        assert states(connection, "embed") == ["completed 1"]
        connection.execute("SELECT rag_jobs_enqueue('embed', run_at => now() + interval '1 day')")
        assert connection.execute(claim.encode()).fetchall() == []
