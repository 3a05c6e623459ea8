"""Schedules: each time enqueues one job, whoever looks, whatever dies, and whatever the clocks do."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from checkouts import rows, wait_until
from conftest import Command, clean_environment, connect
from ragschema import aio, jobs, work
from ragschema.database.settings import Database
from ragschema.jobs import JobError
from ragschema.jobs.agenda import Agenda
from ragschema.jobs.timing import find_next
from test_json import check
from test_workers import CUT, Kind, states

kind = pytest.fixture(params=["threads", "asyncio"])(lambda request, database: Kind(request.param, database))
HOUR = timedelta(hours=1)
WRONG: Any = 3600


def make_due(database: Database, late: str = "0 s") -> None:
    """Let every schedule be due, and late."""
    with connect(database) as connection:
        due = connection.execute(f"SELECT clock_timestamp() - interval '{late}'".encode()).fetchone()
        connection.execute("UPDATE rag_job_schedules SET next_run_at = %s", due)


def times(cron: str, timezone: str, start: str, count: int) -> list[str]:
    """Return the first times after a start, as the clock of the time zone shows them."""
    now, found = datetime.fromisoformat(start).astimezone(UTC), []
    from zoneinfo import ZoneInfo

    for _ in range(count):
        now = find_next(cron, None, timezone, now)
        found.append(f"{now.astimezone(ZoneInfo(timezone)):%d %H:%M %Z}")
    return found


@pytest.mark.parametrize(
    ("cron", "start", "expected"),
    [
        # the clocks of Vienna go from 2 to 3 on 28 March 2027, and from 3 back to 2 on 31 October
        ("30 2 * * *", "2027-03-27T12:00+01:00", ["28 03:00 CEST", "29 02:30 CEST"]),
        ("30 3 * * *", "2027-03-27T12:00+01:00", ["28 03:30 CEST", "29 03:30 CEST"]),
        ("0 * * * *", "2027-03-28T00:30+01:00", ["28 01:00 CET", "28 03:00 CEST", "28 04:00 CEST"]),
        ("30 2 * * *", "2027-10-30T12:00+02:00", ["31 02:30 CEST", "01 02:30 CET"]),
        ("45 2 * * *", "2027-10-31T02:30+01:00", ["01 02:45 CET"]),  # the second 2:30: that of today is over
        ("*/30 * * * *", "2027-10-31T01:45+02:00", ["31 02:00 CEST", "31 02:30 CEST", "31 02:00 CET"]),
        ("0 9 * * MON", "2027-10-30T12:00+02:00", ["01 09:00 CET", "08 09:00 CET"]),
        ("0 0 29 2 *", "2027-03-01T00:00+01:00", ["29 00:00 CET"]),
    ],
)
def test_cron_text_follows_the_clock_of_its_time_zone(cron: str, start: str, expected: list[str]) -> None:
    assert times(cron, "Europe/Vienna", start, len(expected)) == expected


def test_a_span_is_time_that_passes_and_keeps_its_step() -> None:
    start = datetime(2027, 3, 27, 12, tzinfo=UTC)
    day = timedelta(days=1)
    assert find_next(None, day, "Europe/Vienna", start) == start + day  # 13 and 14 o'clock in Vienna
    late = start + timedelta(hours=77, minutes=5)
    assert find_next(None, day, "UTC", late, due_at=start) == start + 4 * day
    assert find_next(None, day, "UTC", start, due_at=start + 9 * day) == start + day  # the clock went back


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "A schedule has neither cron and every."),
        ({"cron": "* * * * *", "every": HOUR}, "A schedule has both cron and every."),
        ({"cron": "0 3 * *"}, "cron '0 3 * *' has 4 fields."),
        ({"cron": "* * * * * *"}, "cron '* * * * * *' has 6 fields."),
        ({"cron": "0 25 * * *"}, "cron '0 25 * * *' cannot be read: Bad hour."),
        ({"cron": "0 0 31 2 *"}, "cron '0 0 31 2 *' cannot be read: Bad day-of-month."),
        ({"cron": "0\0 3 * * *"}, "cron holds a NUL byte at position 1."),
        ({"cron": WRONG}, "cron is int, not str."),
        ({"every": WRONG}, "every is 3600."),
        ({"every": timedelta(milliseconds=999)}, "every is datetime.timedelta(microseconds=999000)."),
        ({"every": timedelta.max}, "every is datetime.timedelta(days=999999999"),
        ({"every": HOUR, "timezone": "Mars/Olympus"}, "timezone 'Mars/Olympus' is not known here."),
        ({"cron": "0 3 * * *", "timezone": "Europe"}, "timezone 'Europe' is not known here."),
        ({"cron": "0 3 * * *", "timezone": "../etc/passwd"}, "timezone '../etc/passwd' is not known here."),
        ({"every": HOUR, "name": "a\0"}, "name holds a NUL byte at position 1."),
        ({"every": HOUR, "name": "a" * 2001}, "name is longer than 2,000 bytes."),
        ({"every": HOUR, "job_type": "ä" * 1001}, "job_type is longer than 2,000 bytes."),
        ({"every": HOUR, "payload": {"a": "\0"}}, "The payload of the schedule 'a' has a NUL character"),
        ({"every": HOUR, "payload": {"a": {1: 2, "1": 3}}}, "The payload of the schedule 'a' has the keys 1"),
        ({"every": HOUR, "priority": 2**31}, "priority is 2147483648."),
        ({"every": HOUR, "max_attempts": 0}, "max_attempts is 0."),
    ],
)
def test_a_schedule_that_cannot_be_followed_is_refused_before_anything_is_sent(
    session: Session, arguments: dict[str, Any], said: str
) -> None:
    given = {"name": "a", "job_type": "embed", "payload": {}} | arguments
    with pytest.raises(JobError) as refused:
        jobs.add_schedule(session, **given)
    assert refused.value.message.startswith(said)
    assert refused.value.remedy
    assert not session.in_transaction()


@pytest.mark.parametrize(
    "written",
    [
        "cron = NULL",
        "every = '1 hour'",
        "cron = NULL, every = '0.9 s'",
        "max_attempts = 0",
        "next_run_at = 'infinity'",
    ],
)
def test_what_sql_writes_is_checked_too(session: Session, written: str) -> None:
    jobs.add_schedule(session, "a", "embed", {}, cron="0 3 * * *")
    with pytest.raises(sa.exc.IntegrityError):
        session.execute(sa.text(f"UPDATE rag_job_schedules SET {written}"))


def test_a_schedule_is_added_changed_paused_resumed_and_removed(session: Session, database: Database) -> None:
    added = jobs.add_schedule(
        session,
        "nightly",
        "index",
        {"since": UUID(int=1)},
        cron="0 3 * * *",
        timezone="Europe/Vienna",
        priority=3,
        max_attempts=2,
        dedupe_key="k",
        default=str,
    )
    assert [added] == jobs.list_schedules(session)
    assert (added.payload, added.every, added.paused) == ({"since": str(UUID(int=1))}, None, False)
    with pytest.raises(JobError, match="There is a schedule 'nightly'"):
        jobs.add_schedule(session, "nightly", "index", {}, every=HOUR)
    session.commit()
    make_due(database, "1 day")

    # said again at a start of the service, it neither loses what is due nor begins anew
    same = jobs.add_schedule(
        session, "nightly", "embed", {"n": 1}, cron="0 3 * * *", timezone="Europe/Vienna", replace=True
    )
    assert same.next_run_at < datetime.now(UTC) - timedelta(hours=23)
    assert (same.job_type, same.payload, same.priority, same.dedupe_key) == ("embed", {"n": 1}, 0, None)
    assert jobs.pause_schedule(session, "nightly") is True
    assert jobs.pause_schedule(session, "nightly") is False
    other = jobs.add_schedule(session, "nightly", "embed", {}, every=HOUR, replace=True)
    assert (other.paused, other.cron, other.every) == (True, None, HOUR)
    assert timedelta(0) < other.next_run_at - datetime.now(UTC) <= HOUR
    session.commit()
    make_due(database, "5 hours")
    assert jobs.enqueue_due(session) == []
    assert jobs.resume_schedule(session, "nightly") is True
    assert jobs.resume_schedule(session, "nightly") is False
    assert jobs.enqueue_due(session) == [], "what was missed while it was paused is not made up for"
    assert jobs.remove_schedule(session, "nightly") is True
    assert jobs.remove_schedule(session, "nightly") is False
    assert jobs.list_schedules(session) == []


def test_what_was_missed_is_made_up_for_by_one_job(session: Session, database: Database) -> None:
    jobs.add_schedule(session, "a", "embed", {"n": 1}, every=HOUR, priority=4, max_attempts=3)
    jobs.add_schedule(session, "b", "index", {}, cron="*/5 * * * *", dedupe_key="b")
    session.commit()
    make_due(database, "50 hours 10 minutes")
    first, second = jobs.enqueue_due(session)
    found = "SELECT job_type, payload, priority, max_attempts, dedupe_key FROM rag_jobs ORDER BY job_type"
    assert [tuple(row) for row in session.execute(sa.text(found))] == [
        ("embed", {"n": 1}, 4, 3, None),
        ("index", {}, 0, 10, "b"),
    ]
    assert first != second
    assert jobs.enqueue_due(session) == []
    now = datetime.now(UTC)
    a, b = jobs.list_schedules(session)
    assert timedelta(minutes=49) < a.next_run_at - now < timedelta(minutes=51), "its step goes on"
    assert b.next_run_at.minute % 5 == 0
    assert a.last_enqueued_at is not None
    session.commit()
    make_due(database)
    assert jobs.enqueue_due(session)[1] == second, "its key has a job that waits"


def test_of_many_that_look_at_once_one_enqueues(database: Database) -> None:
    strict = "-c default_transaction_isolation=serializable"
    engine = sa.create_engine(database.url(), pool_size=8, connect_args={"options": strict})
    with Session(engine) as session, session.begin():
        for number in range(5):
            jobs.add_schedule(session, f"schedule {number}", "a", {}, every=HOUR)
    together = threading.Barrier(8)

    def look(_: int) -> int:
        found = 0
        for _ in range(20):
            together.wait(60)
            with Session(engine) as session, session.begin():
                found += len(jobs.enqueue_due(session))
            if together.wait(60) == 0:
                make_due(database)
        return found

    with ThreadPoolExecutor(8) as threads:
        found = sum(threads.map(look, range(8)))
    engine.dispose()
    with connect(database) as connection:
        assert rows(connection, "SELECT count(*) FROM rag_jobs") == [found]
    assert found == 19 * 5, "the first round had nothing due, each other one five"


DIES = """
import os, signal, sys
import sqlalchemy as sa
from ragschema import jobs
from sqlalchemy.orm import Session
with Session(sa.create_engine(sys.argv[1])) as session:
    print(len(jobs.enqueue_due(session)), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_who_dies_before_the_commit_has_enqueued_nothing(session: Session, database: Database) -> None:
    jobs.add_schedule(session, "a", "a", {}, every=HOUR)
    session.commit()
    make_due(database)
    url = database.url().render_as_string(hide_password=False)
    died = subprocess.run(
        [sys.executable, "-c", DIES, url],
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(),
    )
    assert (died.returncode, died.stdout) == (-signal.SIGKILL, "1\n"), died.stderr
    with connect(database) as connection:  # the server has noticed
        locked = "SELECT FROM pg_locks WHERE relation = 'rag_job_schedules'::regclass"
        wait_until(lambda: not rows(connection, locked), "the end of its session")
    assert states(database) == []
    assert len(jobs.enqueue_due(session)) == 1


def test_in_autocommit_the_two_steps_are_refused(engine: sa.Engine, database: Database) -> None:
    with Session(engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        jobs.add_schedule(session, "a", "a", {}, every=HOUR)
        make_due(database)
        with pytest.raises(JobError, match="enqueue_due takes several statements"):
            jobs.enqueue_due(session)
    assert states(database) == []


def test_one_that_cannot_be_read_says_so_and_holds_up_nobody(session: Session, database: Database) -> None:
    """Rows of SQL are not looked at by add_schedule, and another machine may know other time zones."""
    for name in ("a", "b", "c"):
        jobs.add_schedule(session, name, name, {}, cron="* * * * *")
    session.execute(sa.text("UPDATE rag_job_schedules SET timezone = 'Mars/Olympus' WHERE name = 'a'"))
    session.execute(sa.text("UPDATE rag_job_schedules SET cron = 'daily' WHERE name = 'b'"))
    session.commit()
    make_due(database)
    assert len(jobs.enqueue_due(session)) == 1
    a, b, c = jobs.list_schedules(session)
    assert a.error_message == "timezone 'Mars/Olympus' is not known here."
    assert b.error_message == "cron 'daily' has 1 field."
    assert (c.error_message, a.last_enqueued_at, b.last_enqueued_at) == (None, None, None)
    assert a.next_run_at > datetime.now(UTC) + timedelta(minutes=50)
    mended = jobs.add_schedule(session, "a", "a", {}, cron="* * * * *", replace=True)
    assert mended.error_message is None
    assert mended.next_run_at < datetime.now(UTC) + timedelta(minutes=1)


def test_a_clock_that_was_set_back_silences_nothing(session: Session, database: Database) -> None:
    """While it was a year ahead the schedule was enqueued: its next time is in a year."""
    jobs.add_schedule(session, "a", "a", {}, every=HOUR)
    session.execute(
        sa.text(
            "UPDATE rag_job_schedules SET last_enqueued_at = now() + interval '1 year',"
            " next_run_at = now() + interval '1 year 1 hour'"
        )
    )
    session.commit()
    assert jobs.enqueue_due(session) == []
    (a,) = jobs.list_schedules(session)
    assert a.next_run_at <= datetime.now(UTC) + HOUR
    session.commit()
    make_due(database)
    assert len(jobs.enqueue_due(session)) == 1


def test_workers_enqueue_what_is_due_once_and_on_time(
    kind: Kind, session: Session, database: Database
) -> None:
    """Two of them, busy or idle, while connections are cut; the poll is an hour."""
    held = threading.Event()
    due = "SELECT count(*) FROM rag_jobs WHERE job_type = 'a'"
    options: dict[str, Any] = {"poll": HOUR, "lease": timedelta(seconds=30)}
    handlers = {"busy": lambda job: held.wait(60)}
    jobs.add_schedule(session, "early", "a", {}, every=HOUR)
    session.commit()
    make_due(database, "3 hours")
    with (
        kind.working(handlers, **options),
        kind.working(handlers, **options),
        connect(database) as connection,
    ):
        wait_until(lambda: rows(connection, due) == [1], "what was due before they began")
        for _ in range(2):
            rows(connection, "SELECT rag_jobs_enqueue('busy')")
        busy = "SELECT count(*) FROM rag_jobs WHERE status = 'processing'"
        wait_until(lambda: rows(connection, busy) == [2], "both at work")
        jobs.add_schedule(session, "soon", "a", {}, every=timedelta(seconds=1))
        session.commit()
        wait_until(lambda: rows(connection, f"{due} HAVING count(*) >= 3"), "its first two")
        rows(connection, CUT)
        wait_until(lambda: rows(connection, f"{due} HAVING count(*) >= 5"), "two more, by new connections")
        session.connection().invalidate()
        session.rollback()
        assert jobs.remove_schedule(session, "soon")
        session.commit()
        held.set()
    with connect(database) as connection:
        seconds = "extract(epoch FROM max(created_at) - min(created_at))"
        often = f"SELECT count(*) - 1 <= {seconds} + 1 FROM rag_jobs WHERE job_type = 'a'"
        assert rows(connection, often) == [True], "each second was enqueued by both"


def test_a_look_that_fails_is_tried_again_soon_whatever_the_poll_is(engine: sa.Engine) -> None:
    agenda = Agenda(poll=3600)
    waits = []
    for _ in range(3):
        agenda.begin()
        with pytest.raises(sa.exc.ProgrammingError) as failed, engine.connect() as connection:
            connection.execute(sa.text("SELECT * FROM nowhere"))
        agenda.fail(failed.value)
        waits.append(agenda.seconds_left)
    assert 0 < waits[0] < waits[1] < waits[2] < 2
    agenda.failures = 5000
    agenda.fail(failed.value)
    with engine.connect() as connection:
        agenda.begin()
        agenda.look(connection)()
    assert agenda.seconds_left > 3000


def test_a_worker_that_may_not_see_schedules_does_its_jobs(kind: Kind, database: Database) -> None:
    with connect(database) as connection:
        connection.execute("ALTER TABLE rag_job_schedules RENAME TO elsewhere")
        connection.execute("SELECT rag_jobs_enqueue('a') FROM generate_series(1, 3)")
        with kind.working({"a": lambda job: None}, poll=timedelta(milliseconds=50)):
            wait_until(lambda: states(database) == ["completed"] * 3, "the ends of all")


def test_an_idle_claim_costs_no_look(engine: sa.Engine, session: Session) -> None:
    """Nothing is due for an hour: one look, and one more when the worker has begun to listen, for many claims."""
    jobs.add_schedule(session, "a", "a", {}, every=HOUR)
    session.commit()
    counted = {"rag_jobs_claim": 0, "rag_job_schedules": 0}
    stopping = threading.Event()

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        for name in counted:
            counted[name] += name in statement
        if counted["rag_jobs_claim"] > 100:
            stopping.set()

    sa.event.listen(sa.Engine, "before_cursor_execute", count)  # the worker's engines are its own
    try:
        work(engine, {"a": print}, poll=timedelta(milliseconds=5), stopping=stopping)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", count)
    # the first look enqueues unasked, and looks again: three statements; the second is one
    assert 1 <= counted["rag_job_schedules"] <= 4


def test_the_functions_serve_async_sessions(database: Database) -> None:
    async def serve() -> None:
        engine = create_async_engine(database.url())
        async with engine.begin() as connection:
            await aio.jobs.add_schedule(connection, "a", "a", {}, every=HOUR)
            await connection.execute(sa.text("UPDATE rag_job_schedules SET next_run_at = now()"))
        async with engine.begin() as connection:
            assert len(await aio.jobs.enqueue_due(connection)) == 1
            assert [each.name for each in await aio.jobs.list_schedules(connection)] == ["a"]
            assert await aio.jobs.pause_schedule(connection, "a")
            assert await aio.jobs.resume_schedule(connection, "a")
            assert await aio.jobs.remove_schedule(connection, "a")
        await engine.dispose()

    asyncio.run(serve())


def test_the_command_line_manages_schedules(run: Command, database: Database) -> None:
    def rag(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        result = run("rag", "jobs", "schedule", *arguments, DATABASE_URL=database.libpq_url())
        assert result.returncode == code, result.stderr
        assert "Traceback" not in result.stderr
        return result

    def document(*arguments: str) -> Any:
        return check(f"jobs schedule {arguments[0]}", rag(*arguments, "--json").stdout)

    nightly = ("add", "nightly", "--type", "embed", "--cron", "0 3 * * *", "--timezone", "Europe/Vienna")
    added = document(*nightly, "--payload", '{"n": 1}', "--priority", "5")
    assert (added["payload"], added["every"], added["priority"]) == ({"n": 1}, None, 5)
    assert rag("add", "hourly", "--type", "index", "--every", "1h").stdout.startswith(
        "added hourly, next at "
    )
    assert "There is a schedule 'nightly'" in rag(*nightly, code=1).stderr
    assert document(*nightly, "--replace")["payload"] == {}
    assert document("pause", "hourly") == {"paused": "hourly"}
    listed = [line.split("\t") for line in rag("list").stdout.splitlines()]
    assert [line[:4] for line in listed] == [
        ["hourly", "index", "every 1:00:00", ""],
        ["nightly", "embed", "0 3 * * *", "Europe/Vienna"],
    ]
    assert listed[0][4] == "paused"
    assert [each["every"] for each in document("list")["schedules"]] == [3600, None]
    assert "is paused already" in rag("pause", "hourly", code=1).stderr
    assert document("resume", "hourly") == {"resumed": "hourly"}
    assert "is not paused" in rag("resume", "hourly", code=1).stderr
    assert document("remove", "hourly") == {"removed": "hourly"}
    assert "There is no schedule 'hourly'" in rag("remove", "hourly", code=1).stderr
    for wrong, code, said in (
        (("--every", "90"), 2, "'90' has no unit: write 90s"),
        (("--every", "99999999999999d"), 1, "every is"),
        (("--every", "0.5s"), 1, "every is"),
        (("--cron", "0 25 * * *"), 1, "cannot be read: Bad hour"),
        (("--cron", "0 3 * * *", "--timezone", "CET/Vienna"), 1, "timezone 'CET/Vienna' is not known here"),
        ((), 1, "neither cron and every"),
        (("--every", "1h", "--payload", "[1]"), 2, "--payload is a list."),
        (("--every", "1h", "--payload", '{"a": 1, "a": 2}'), 2, "a key is there twice"),
        (("--every", "1h", "--payload", '{"a": NaN}'), 1, "cannot be JSON"),
        (("--every", "1h", "--payload", '{"a": "\\u0000"}'), 1, "has a NUL character"),
    ):
        assert said in rag("add", "wrong", "--type", "a", *wrong, code=code).stderr
    assert [each["name"] for each in document("list")["schedules"]] == ["nightly"]
