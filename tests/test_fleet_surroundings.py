"""What many tenants run in: files of URLs, servers that keep silent, closed streams, a machine that is full."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from ragschema import cli
from ragschema.cli.fleet import _showing
from ragschema.cli.output import show_progress
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.errors import ConfigurationError, DatabaseUnreachable, UsageError
from ragschema.revisions.manifest import read_manifest
from ragschema.tenants import databases
from ragschema.tenants.databases import Found, find_all, read_urls
from ragschema.tenants.dispatching import Dispatch
from ragschema.tenants.finding import Tenant
from ragschema.tenants.migrating import Rollout, _Fleet
from ragschema.tenants.outcomes import Progress
from ragschema.tenants.tasks import Clock, Task


def options_of(host: str, name: str = "app") -> Options:
    return Options(Database({"host": host, "dbname": name, "user": "u"}, "the tests"))


# databases


def test_a_note_may_follow_a_url(tmp_path: Path) -> None:
    urls = tmp_path / "urls"
    urls.write_text("postgresql://u:a#b@h/one # the first\n  # none\npostgresql://u@h/two\t#\n")
    found = read_urls(urls)
    assert [(each.parameters["dbname"], each.parameters.get("password")) for each in found] == [
        ("one", "a#b"),
        ("two", None),
    ]


def test_ctrl_c_waits_for_no_server_that_keeps_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, asked = threading.Event(), threading.Barrier(2)

    def find(options: Options, **_: bool) -> tuple[Found, bool]:
        asked.wait()
        if options.database.parameters["host"] == "a":
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        answered.wait()
        return Found(options), False

    monkeypatch.setattr(databases, "_find", find)
    with pytest.raises(KeyboardInterrupt):
        find_all([options_of("a"), options_of("b")])
    answered.set()


def test_what_goes_wrong_in_a_thread_is_raised_and_the_order_is_that_of_the_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = [options_of(host, name) for name in ("one", "two") for host in "abc"]
    monkeypatch.setattr(databases, "_find", lambda options, **_: (Found(options), False))
    assert [each.options for each in find_all(given)] == given
    monkeypatch.setattr(databases, "_find", lambda options, **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        find_all(given)


@pytest.mark.parametrize(
    ("cause", "wait", "brief"),
    [
        (psycopg.errors.ConnectionTimeout, 0.0, [False, False, True, True]),
        (psycopg.OperationalError, 60.0, [False, False, True, True]),
        (psycopg.OperationalError, 0.0, [False] * 4),  # it is refused at once
    ],
)
def test_a_server_that_keeps_silent_is_not_waited_for_with_each_of_its_databases(
    monkeypatch: pytest.MonkeyPatch, cause: type[Exception], wait: float, brief: list[bool]
) -> None:
    asked: list[Options] = []

    @contextmanager
    def fail(options: Options) -> Iterator[None]:
        asked.append(options)
        try:
            raise cause
        except psycopg.Error:
            raise DatabaseUnreachable("It does not answer.", "Wait.") from None
        yield

    monkeypatch.setattr(databases, "opened_database", fail)
    given = [replace(options_of("a", f"app{number}"), wait=wait) for number in range(4)]
    found = find_all(given)
    assert [each.options for each in found] == given
    assert all(each.failure for each in found)
    assert [each.database.parameters.get("connect_timeout") == "2" for each in asked] == brief
    assert [each.wait for each in asked] == [0.0 if each else wait for each in brief]


def test_a_tenant_whose_size_is_not_known_is_the_last() -> None:
    found = Found(
        options_of("a"),
        tuple(
            Tenant(name, None, "behind", "u", bytes=size)
            for name, size in (("a", None), ("b", 3), ("c", 0), ("d", 2))
        ),
    )
    rollout = Rollout(order="size", expand_only=True)
    fleet = _Fleet([found], read_manifest(), read_manifest().head, rollout, Clock(), None)
    assert [task.schema for task in fleet._tasks()] == ["c", "d", "b", "a"]


# workers


def test_a_machine_without_room_for_the_workers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("ragschema.tenants.dispatching.start_worker", refuse)
    dispatch = Dispatch([options_of("a"), options_of("b")], lambda *_: None, lambda *_: None, 2)
    tasks = [Task(place, schema) for place in range(2) for schema in "xyz"]
    with (
        pytest.raises(ConfigurationError, match="no room for 4 workers: Too many open files"),
        dispatch.started(tasks),
    ):
        pass


def test_a_daemon_of_multiprocessing_is_told_that_it_may_have_no_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True))
    dispatch = Dispatch([options_of("a")], lambda *_: None, lambda *_: None, 1)
    with pytest.raises(UsageError, match="daemon of multiprocessing"), dispatch.started([Task(0, "x")]):
        pass
    with dispatch.started([]):
        assert dispatch.run([], lambda: True) == []


# streams


def test_streams_that_a_process_was_started_without_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    cli._open_streams()
    with sys.stdin, sys.stdout, sys.stderr:
        assert not sys.stdin.read()
        for each in (sys.stdout, sys.stderr):
            assert not each.isatty()
            each.write("to nobody")
            each.flush()


def test_what_is_done_goes_on_where_nobody_reads_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after ``rag tenants migrate 2>&1 | head``, with a full disk, or with a terminal that is gone."""
    logger = logging.getLogger("ragschema")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logger.level)
    for says in ("the log", "the progress"):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as unread:
            monkeypatch.setattr(sys, "stderr", unread)
            show_progress()
            with _showing() as show:
                for done in (10, 20):
                    if says == "the log":
                        logger.info("%s tenants", done)
                    else:
                        show(Progress(done, 20, 0, 0, 1.0))
