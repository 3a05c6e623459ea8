"""A rehearsal runs what others wrote: it may harm nothing, and a killed one leaves nothing for long."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from conftest import Command, connect, made_database, run_psql, start_rag
from ragschema import migrations
from ragschema.database.connections import Opened, opened
from ragschema.database.options import Options
from ragschema.database.server import Connection
from ragschema.database.settings import Database
from ragschema.embedded.data_directory import mark
from ragschema.planning.needed_objects import find_needed
from ragschema.planning.scratch_schema import copy_schema, scratch_database
from ragschema.planning.scratch_server import ROLE, ScratchServer, remove_dead, scratch_server

OLDER = "20261121150100"
INTRUDER = f"planner_intruder_{os.getpid()}"
CANARY = "canary-7c1e-password"

# What the intruder would do with a superuser's rights, or a file's; the attempts are written down.
ATTEMPTS = {
    "program": "COPY (SELECT 1) TO PROGRAM 'cat > {loot}'",
    "write a file": "COPY (SELECT 1) TO '{loot}'",
    "read a file": "CREATE TEMPORARY TABLE lines (line text); COPY lines FROM '/etc/passwd'",
    "function for files": "SELECT pg_read_file('/etc/passwd')",
    "list files": "SELECT pg_ls_dir('/')",
    "large object in": "SELECT lo_import('/etc/passwd')",
    "large object out": "SELECT lo_export(lo_creat(-1), '{loot}')",
    "role": "SET ROLE postgres",
    "session": "SET SESSION AUTHORIZATION postgres",
    "make a role": "CREATE ROLE mine SUPERUSER",
    "rise": "ALTER ROLE {role} SUPERUSER",
    "join": "GRANT pg_execute_server_program TO {role}",
    "read all": "GRANT pg_read_server_files TO {role}",
    "password": "ALTER ROLE postgres PASSWORD 'mine'",
    "passwords": "SELECT rolpassword FROM pg_authid",
    "setting": "ALTER SYSTEM SET archive_command = 'cat > {loot}'",
    "library": "LOAD '/tmp/mine.so'",
    "C": "CREATE FUNCTION mine() RETURNS void LANGUAGE c AS '/tmp/mine.so'",
    "internal": "CREATE FUNCTION mine() RETURNS void LANGUAGE internal AS 'lo_import'",
    "dblink": "CREATE EXTENSION dblink",
    "postgres_fdw": "CREATE EXTENSION postgres_fdw",
    "file_fdw": "CREATE EXTENSION file_fdw",
    "event trigger": "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION later()",
    "subscription": "CREATE SUBSCRIPTION mine CONNECTION 'host=/tmp' PUBLICATION mine",
    "template": "ALTER DATABASE template1 SET session_preload_libraries = 'mine'",
    "untrusted language": "CREATE LANGUAGE plperlu",
}

# evil() runs in whatever may hold an expression, and does its worst whoever it runs as
HOSTILE = """
CREATE TABLE public.rag_trace (what text, user_name text, done text);
GRANT ALL ON public.rag_trace TO PUBLIC;
SET ROLE {intruder};
CREATE FUNCTION public.later() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION public.attempt(what text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN EXECUTE what; RETURN 'done'; EXCEPTION WHEN OTHERS THEN RETURN SQLERRM; END $$;
CREATE FUNCTION public.worst(place text) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{intruder}' AND rolcanlogin) THEN  -- not at home
    INSERT INTO public.rag_trace VALUES (place, session_user || ' ' || current_user, public.attempt({program}));
  END IF;
  RETURN 1;
END $$;
CREATE FUNCTION public.evil(integer, place text) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN RETURN public.worst(place); END $$;
CREATE FUNCTION public.evil_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM public.worst('trigger'); RETURN NEW; END $$;
CREATE DOMAIN public.evil_domain AS integer DEFAULT public.worst('default') CHECK (public.worst('domain') = VALUE);
CREATE TABLE public.rag_evil (id integer DEFAULT public.worst('column'), other public.evil_domain);
CREATE INDEX rag_evil_idx ON public.rag_evil ((public.evil(1, 'index')));
CREATE TRIGGER rag_evil_trigger BEFORE INSERT ON public.rag_evil FOR EACH ROW EXECUTE FUNCTION public.evil_trigger();
CREATE RULE rag_evil_rule AS ON DELETE TO public.rag_evil DO ALSO SELECT public.worst('rule');
CREATE MATERIALIZED VIEW public.rag_evil_view AS SELECT public.evil(1, 'view');
CREATE FUNCTION public.unrelated() RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE TABLE public.payroll (id integer PRIMARY KEY, amount integer CHECK (public.worst('payroll') > 0));
CREATE TYPE public.colour AS ENUM ('red');
RESET ROLE;
CREATE TABLE public.annotations (document uuid REFERENCES public.rag_documents (id), note text);
CREATE VIEW public.named AS SELECT id, article_id FROM public.rag_documents;
"""


@contextmanager
def intruded(database: Database, loot: Path) -> Iterator[None]:
    """Let a role with CREATE on the schema do what it can there."""
    with connect(database) as connection:
        connection.execute(f"CREATE ROLE {INTRUDER} LOGIN".encode())
        try:
            connection.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {INTRUDER}".encode())
            program = "'" + ATTEMPTS["program"].format(loot=loot).replace("'", "''") + "'"
            run_psql(database, HOSTILE.format(intruder=INTRUDER, program=program))
            connection.execute("TRUNCATE rag_trace")
            yield
        finally:
            connection.execute(f"DROP OWNED BY {INTRUDER} CASCADE".encode())
            connection.execute(f"DROP ROLE {INTRUDER}".encode())


@pytest.fixture
def loot(tmp_path: Path) -> Path:
    """A file that whoever runs a program may write."""
    (tmp_path / "loot").mkdir()
    (tmp_path / "loot").chmod(0o777)
    return tmp_path / "loot" / "file"


@pytest.fixture
def copied(
    database: Database, loot: Path
) -> Iterator[tuple[Opened, ScratchServer, Connection, str | None, str | None]]:
    """A rehearsal's copy of a schema that an intruder has been in."""
    with ExitStack() as stack:
        stack.enter_context(intruded(database, loot))
        at = stack.enter_context(opened(Options(database)))
        needed = find_needed(at)
        server = stack.enter_context(scratch_server())
        scratch = stack.enter_context(scratch_database(server, "copy", at, needed.extensions))
        difference = copy_schema(at, scratch, server, needed)
        yield at, server, scratch, difference, needed.describe()
        at.connection.close()


def test_what_an_intruder_wrote_runs_without_any_right(
    database: Database, copied: tuple[Opened, ScratchServer, Connection, str | None, str | None], loot: Path
) -> None:
    """As the superuser the same expression runs a program, as whoever plans."""
    _, _, scratch, difference, _ = copied
    assert difference is None
    trace = "SELECT DISTINCT user_name, done FROM rag_trace"
    scratch.execute("INSERT INTO rag_evil DEFAULT VALUES")
    [(user, outcome)] = scratch.execute(trace).fetchall()
    assert user == f"{ROLE} {ROLE}"
    assert "permission denied" in outcome
    assert not loot.exists()
    with connect(database) as superuser:  # the attack is one
        superuser.execute(f"ALTER ROLE {INTRUDER} NOLOGIN".encode())
        superuser.execute("SELECT worst('superuser')")
        assert superuser.execute("SELECT done FROM rag_trace").fetchall() == [("done",)]
    assert loot.exists()


def test_the_rehearsing_role_can_neither_rise_nor_reach_files(
    copied: tuple[Opened, ScratchServer, Connection, str | None, str | None], loot: Path
) -> None:
    _, _, scratch, _, _ = copied
    outcomes = {}
    for name, attempt in ATTEMPTS.items():
        for statement in ("RESET SESSION AUTHORIZATION", "RESET ROLE"):
            scratch.execute(statement)
        outcomes[name] = scratch.execute(
            "SELECT attempt(%s)", (attempt.format(loot=loot, role=ROLE),)
        ).fetchone()
    assert [name for name, outcome in outcomes.items() if outcome == ("done",)] == []
    assert not loot.exists()
    found = scratch.execute(
        "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication,"
        " (SELECT count(*) FROM pg_auth_members m WHERE m.member = r.oid), session_user::text, current_user::text"
        " FROM pg_roles r WHERE rolname = current_user"
    ).fetchone()
    assert found == (False, 0, ROLE, ROLE)


def test_nobody_is_let_into_the_scratch_server_without_its_password(
    copied: tuple[Opened, ScratchServer, Connection, str | None, str | None],
) -> None:
    """Not even the user who runs it: what runs in it is that user too."""
    _, server, _, _, _ = copied
    login = {name: value for name, value in server.superuser.items() if name != "password"}
    for user in ("postgres", ROLE):
        for password in ({}, {"password": "guess"}):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(**{**login, "user": user, **password})  # type: ignore[arg-type]
    secrets = [server.superuser["password"], server.role["password"]]
    for path in server.private.parent.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            assert not any(secret.encode() in content for secret in secrets), path


def test_the_copy_has_what_ours_need_and_says_what_it_leaves_out(
    copied: tuple[Opened, ScratchServer, Connection, str | None, str | None],
) -> None:
    _, _, scratch, difference, left_out = copied
    assert difference is None
    there = [
        name for (name,) in scratch.execute("SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'v')")
    ]
    assert {"rag_documents", "annotations", "named", "rag_evil"} <= {*there}
    assert "payroll" not in there
    assert scratch.execute(
        "SELECT to_regproc('public.unrelated'), to_regtype('public.colour')"
    ).fetchone() == (
        None,
        None,
    )
    assert left_out is not None
    for name in ("payroll", "unrelated", "colour"):
        assert name in left_out
    assert "rag_" not in left_out


def test_a_plan_is_made_of_such_a_schema_and_says_what_it_left_out(
    empty_database: Database, loot: Path, run: Command
) -> None:
    migrations.upgrade(empty_database, OLDER)
    with intruded(empty_database, loot):
        done = run("rag", "migrate", "plan", DATABASE_URL=empty_database.libpq_url())
    assert done.returncode == 0, done.stderr
    assert "method: rehearsal" in done.stdout
    assert "Left out of the rehearsal, because nothing of ours needs it:" in done.stdout
    assert "table payroll" in done.stdout
    assert not loot.exists()


def test_an_extension_that_reaches_files_or_servers_is_not_made(database: Database) -> None:
    """Even where one of our tables needs it: the plan says so, and is made without."""
    with connect(database) as connection:
        connection.execute("CREATE EXTENSION dblink")
        connection.execute("CREATE VIEW rag_remote AS SELECT dblink_current_query()")
    with opened(Options(database)) as at, scratch_server() as server:
        needed = find_needed(at)
        assert "dblink" in needed.extensions
        with scratch_database(server, "copy", at, needed.extensions) as scratch:
            assert scratch.execute("SELECT extname FROM pg_extension ORDER BY 1").fetchall() == [
                ("plpgsql",),
                ("vector",),
            ]
            assert "rag_remote" in str(copy_schema(at, scratch, server, needed))
        at.connection.close()


# Killed.


def wait_for(what: Callable[[], object]) -> object:
    deadline = time.monotonic() + 60
    while not (found := what()):
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.02)
    return found


_DUMP_WAITS = (
    "SELECT FROM pg_stat_activity WHERE application_name = 'pg_dump' AND wait_event_type = 'Lock'"
    " AND datname = current_database()"
)


def killed_plan(database: Database, directory: Path, beside: Path) -> Path:
    """Kill -9 a plan while pg_dump waits for a lock; return its scratch directory."""
    parameters = {**database.parameters, "password": CANARY}
    url = Database(parameters, "the tests").libpq_url()
    process = start_rag("migrate", "plan", cwd=directory, DATABASE_URL=url, TMPDIR=str(directory))
    assert process.stderr is not None
    assert any("Rehearsing" in line for line in process.stderr)
    with connect(database) as blocker, connect(database) as observer, blocker.transaction():
        blocker.execute("LOCK TABLE rag_jobs IN ACCESS EXCLUSIVE MODE")
        wait_for(lambda: observer.execute(_DUMP_WAITS).fetchall())
        process.kill()
        process.communicate()
        [left] = [path for path in directory.glob("ragschema-plan-*") if path != beside]
        assert_without_password(left)
    return left


@pytest.mark.parametrize("moment", ["initdb", "pg_dump"])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_plan_leaves_nothing_at_once(
    older_database: Database, tmp_path: Path, moment: str, sent: signal.Signals, code: int
) -> None:
    url = older_database.libpq_url()
    process = start_rag("migrate", "plan", cwd=tmp_path, DATABASE_URL=url, TMPDIR=str(tmp_path))
    assert process.stderr is not None
    assert any("Rehearsing" in line for line in process.stderr)
    with connect(older_database) as blocker, connect(older_database) as observer, blocker.transaction():
        blocker.execute("LOCK TABLE rag_jobs IN ACCESS EXCLUSIVE MODE")
        if moment == "initdb":
            wait_for(lambda: list(tmp_path.glob("ragschema-plan-*/.postgres.*/PG_VERSION")))
        else:
            wait_for(lambda: observer.execute(_DUMP_WAITS).fetchall())
        process.send_signal(sent)
        _, said = process.communicate()
    assert (process.returncode, "Traceback" in said) == (code, False), said
    assert list(tmp_path.iterdir()) == []
    assert [each for each in psutil.process_iter() if is_about(each, tmp_path)] == []


def is_about(process: psutil.Process, directory: Path) -> bool:
    with suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE and any(
            str(directory) in each for each in process.cmdline()
        )
    return False


def assert_without_password(directory: Path) -> None:
    files = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    assert not any(CANARY.encode() in path.read_bytes() for path in files)


def postmaster(scratch: Path) -> psutil.Process:
    return psutil.Process(int((scratch / "postgres" / "postmaster.pid").read_text().split()[0]))


@pytest.fixture
def older_database(server: Mapping[str, str], template: str) -> Iterator[Database]:
    """A database with a revision to plan."""
    with made_database(server, template) as database:
        migrations.downgrade(database, "-1")
        yield database


def test_a_killed_plan_leaves_no_password_and_the_next_one_removes_its_server(
    older_database: Database, tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_server() as living:
        beside = living.private.parent
        left = killed_plan(older_database, tmp_path, beside)
        server = postmaster(left)
        done = run("rag", "migrate", "plan", DATABASE_URL=older_database.libpq_url(), TMPDIR=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert not left.exists()
        assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE  # whom nobody has reaped
        with psycopg.connect(**dict(living.superuser)):  # type: ignore[arg-type]
            pass
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_is_not_a_dead_scratch_server_of_ours_is_touched(
    tmp_path: Path, server: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "lock").touch()
    (tmp_path / "ragschema-plan-link").symlink_to(precious)
    (tmp_path / "ragschema-plan-new").mkdir()  # by a process that has not come to its lock yet
    dead = tmp_path / "ragschema-plan-dead"
    data = dead / "postgres"
    data.mkdir(parents=True)
    (dead / "lock").touch()
    (data / "PG_VERSION").write_text("18\n")
    mark(data)
    (data / "postmaster.pid").write_text(
        (Path(server["host"]) / "postmaster.pid").read_text()
    )  # its pid by now
    remove_dead()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "precious",
        "ragschema-plan-link",
        "ragschema-plan-new",
    ]
    assert (precious / "lock").exists()
    with connect(Database(server, "the tests")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what belongs to another user")
def test_what_looks_like_ours_and_is_anothers_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    theirs = tmp_path / "ragschema-plan-theirs"
    theirs.mkdir()
    (theirs / "lock").touch()
    os.chown(theirs, 65534, 65534)
    remove_dead()
    assert (theirs / "lock").exists()
