"""One embedded server a run, a template database for each revision that is wanted, a clone for each test.

Which fixture to use:

- ``database``: a database at head, a test's own. Most tests take this one.
- ``database_at(revision)``: the same at an older revision, to put rows into before a later one runs.
- ``empty_database``: for what must begin with nothing. Do not upgrade it to a revision and go on from there:
  that replays the history, which ``database`` and ``database_at`` clone in a tenth of the time.
- ``server``: libpq keywords, for ``made_database(server, template)`` in fixtures of a module or a session.
- ``hand_made``: the name of a database that the hand-written SQL made, to clone likewise.
- `servers.at_head`: a database at head on a server of another version, which the whole run shares too.
- ``run``: a command in a process of its own: a fork, a tenth of a second; any other program is started.
- `start_rag`: ``rag`` in a fork that goes on, to signal it or to read what it says meanwhile.
- ``checkout``: a copy of the checkout to add revisions to. Its ``run`` forks too; so does its ``start``,
  which goes on.
"""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

import query_data
from citus_tenants import (
    _tenants_end_with_the_session,
    keep_fit,
    made_tenant,
    pytest_addoption,
)
from forks import ENTRY_POINTS, Fork, Forks, collect_garbage_seldom
from ragschema import embedded, migrations
from ragschema.authoring.schema_dump import dump_schema
from ragschema.database.settings import Database
from ragschema.revisions.manifest import read_manifest
from ragschema.state.expected import expected

if TYPE_CHECKING:
    from checkouts import Checkout

__all__ = [
    "ROOT",
    "Command",
    "DatabaseAt",
    "_tenants_end_with_the_session",
    "clean_environment",
    "connect",
    "copy_checkout",
    "copy_sources",
    "dump_schema",
    "locked",
    "made_database",
    "make_by_hand",
    "make_database",
    "make_engine",
    "make_led_engine",
    "make_template",
    "passable_directory",
    "pytest_addoption",
    "read_rows",
    "run_directory",
    "run_psql",
    "shared_forks",
    "start_rag",
]

ROOT = Path(__file__).resolve().parents[1]
CLEARED = ("DATABASE_URL", "DB_", "PG", "POSTGRES", "RAG_")

DatabaseAt = Callable[[str], Database]

_numbers = count()
_gives_tenants = False


def clean_environment() -> dict[str, str]:
    """Return the environment without anything that says which database to use."""
    return {name: value for name, value in os.environ.items() if not name.startswith(CLEARED)}


@pytest.fixture(autouse=True)
def _no_database_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(CLEARED):
            monkeypatch.delenv(name)


_DIRECTORY, _PREFIX = "RAGSCHEMA_TESTS", "ragschema-tests-"


def pytest_configure(config: pytest.Config) -> None:
    """Make the directory that all processes of this run share; those of pytest-xdist inherit its name.

    The directories of ``tmp_path`` are in it too: as root, the start of any other run of pytest closes
    ``/tmp/pytest-of-root`` to the servers' user. ``--basetemp`` puts them elsewhere, where they stay.
    """
    global _gives_tenants
    _gives_tenants = config.option.citus
    collect_garbage_seldom()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background jobs
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ours would ignore the Ctrl-C of a test too
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    parent = _find_memory() or tempfile.gettempdir()
    for abandoned in Path(parent).glob(f"{_PREFIX}*-*"):  # by a run that was killed
        if not psutil.pid_exists(int(abandoned.name.removeprefix(_PREFIX).partition("-")[0])):
            _remove(abandoned)
    directory = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent)
    Path(directory).chmod(0o711)  # as root the servers run as another user
    tempfile.tempdir = directory
    os.environ |= dict.fromkeys((_DIRECTORY, "PYTEST_DEBUG_TEMPROOT", "TMPDIR"), directory)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads spin while they wait for work
    # Half of what a short command takes is compiling, where nothing may be written beside the sources.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    compiled = run_directory() / "pycache"
    if (kept := _kept_compiled(config)).is_dir():
        shutil.copytree(kept, compiled)
    sys.pycache_prefix = os.environ.setdefault("PYTHONPYCACHEPREFIX", str(compiled))


def pytest_xdist_auto_num_workers() -> int | None:
    """Return one process more than there are cores, because tests also wait: for a lock, an end, another process."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:  # which xdist reads itself
        return None
    return (os.cpu_count() or 1) + 1


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pass over the modules that have none of the one mark asked for: importing them all takes seconds."""
    mark: str = config.option.markexpr
    if not mark.isidentifier() or not collection_path.match("test_*.py"):
        return None
    return f"mark.{mark}" not in collection_path.read_text(encoding="utf-8") or None


@pytest.hookimpl(trylast=True)  # after those are left out that are not asked for: they would shift the shares
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each process begin with tests that are marked ``long``: one that begins last keeps the others waiting."""
    keep_fit(config, items)
    processes: int = getattr(config, "workerinput", {}).get("workercount", 1)
    long = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    dealt: list[pytest.Item] = []
    for process in range(processes):
        share = (len(items) - len(dealt)) // (processes - process)  # so many in a row go to one process
        first = long[process::processes]
        rest = max(share - len(first), 0)
        dealt += [*first, *others[:rest]]
        del others[:rest]
    items[:] = dealt


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # what collecting has made stays: no collection of garbage need look at it again


def pytest_unconfigure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        directory = Path(os.environ.pop(_DIRECTORY))
        with suppress(OSError):  # a checkout that is read-only, or another run that ends just now
            _keep_compiled(directory, _kept_compiled(config))
        _remove(directory)


def _kept_compiled(config: pytest.Config) -> Path:
    """Return where what a run has compiled waits for the next one: compiling takes 8 s of each process."""
    return config.rootpath / ".pytest_cache" / "compiled"


def _keep_compiled(directory: Path, kept: Path) -> None:
    """Copy what a run has compiled, but of what was in the run's directory itself."""
    compiled = directory / "pycache"
    of_the_run = compiled.joinpath(*directory.parts[1:])
    for file in compiled.rglob("*.pyc"):
        copy = kept / file.relative_to(compiled)
        if file.is_relative_to(of_the_run) or (copy.exists() and _same(file, copy)):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        being_written = copy.with_suffix(f".{os.getpid()}")
        shutil.copy2(file, being_written)
        being_written.replace(copy)


def _same(file: Path, copy: Path) -> bool:
    found, kept = file.stat(), copy.stat()
    return (found.st_size, found.st_mtime_ns) == (kept.st_size, kept.st_mtime_ns)


def _find_memory() -> str | None:
    """Return a file system in memory with room for a run, if there is one.

    Cloning a database makes 300 files: 10 ms of a processor's time there, and more than 100 on a disk.
    """
    memory = "/dev/shm"
    if not os.access(memory, os.W_OK | os.X_OK):
        return None
    system = os.statvfs(memory)
    has_room = system.f_bavail * system.f_frsize >= 6 << 30
    runs_programs = not system.f_flag & os.ST_NOEXEC  # which some tests install
    return memory if has_room and runs_programs else None


def _remove(directory: Path) -> None:
    """Remove a run's directory; stop its servers first: no process owns those of `servers.shared`."""
    for pid_file in (*directory.glob("servers/*/postmaster.pid"), *directory.glob("postgres/postmaster.pid")):
        with suppress(psutil.Error, FileNotFoundError):
            postmaster = psutil.Process(int(pid_file.read_text().split()[0]))
            if postmaster.cwd() == str(pid_file.parent):  # and not another process of that number
                postmaster.send_signal(signal.SIGQUIT)  # at once: what it holds goes with the directory
                postmaster.wait(10)
    for path, _, _ in os.walk(directory):
        with suppress(OSError):
            Path(path).chmod(0o700)  # some tests close what they have made
    shutil.rmtree(directory, ignore_errors=True)


def run_directory() -> Path:
    """Return the directory that all processes of this run share."""
    return Path(os.environ[_DIRECTORY])


@contextmanager
def passable_directory() -> Iterator[Path]:
    """A temporary directory that the user of an embedded server can pass through, where that is not root."""
    with tempfile.TemporaryDirectory(prefix="rag-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory of the test's own: pytest's is closed to the servers' user."""
    with passable_directory() as directory:
        yield directory


@pytest.fixture(scope="session")
def server() -> Iterator[Mapping[str, str]]:
    """libpq keywords of the run's server, as its superuser."""
    with embedded.running(run_directory() / "postgres") as parameters:
        with connect(Database(parameters, "the tests")) as connection:
            for setting in ("fsync = off", "synchronous_commit = off", "full_page_writes = off"):
                connection.execute(f"ALTER SYSTEM SET {setting}")
            connection.execute("SELECT pg_reload_conf()")
        yield parameters


def connect(database: Database) -> psycopg.Connection[psycopg.rows.TupleRow]:
    """Connect with psycopg, each statement a transaction of its own."""
    return psycopg.connect(database.libpq_url(), autocommit=True)


@contextmanager
def made_database(server: Mapping[str, str], template: str | None = None) -> Iterator[Database]:
    """Make a database, empty or a clone, and drop it afterwards."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    if _gives_tenants and template == f"at_{read_manifest().head}":
        with made_tenant(name) as tenant:
            yield tenant
        return
    with connect(Database({**server, "dbname": "postgres"}, "the tests")) as connection:
        # copying files takes half the processor's time of copying their blocks through the WAL
        strategy = "STRATEGY = FILE_COPY" if connection.info.server_version >= 150000 else ""
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template or 'template1'} {strategy}".encode())
        try:
            yield Database({**server, "dbname": name}, "the tests")
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_database(server: Mapping[str, str]) -> Iterator[Database]:
    with made_database(server) as database:
        yield database


def make_template(server: Mapping[str, str], revision: str) -> str:
    """Return the name of a database at a revision, to clone: the first process of the run that asks makes it.

    It starts from the template of the nearest revision before it, so that each revision runs once a run
    where they are asked for in order.
    """
    name = f"at_{revision}"
    with locked(run_directory() / "templates.lock"), connect(Database(server, "the tests")) as connection:
        made = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        if name not in made:
            ids = [each.revision for each in read_manifest().revisions]
            before = [f"at_{each}" for each in ids[: ids.index(revision)] if f"at_{each}" in made]
            connection.execute("DROP DATABASE IF EXISTS making")
            connection.execute(f"CREATE DATABASE making TEMPLATE {before[-1] if before else 'template1'}")
            making = Database({**server, "dbname": "making"}, "the tests")
            migrations.upgrade(making, revision)
            connect(making).close()  # caches the catalogue in a file, or the first session of each clone does
            connection.execute(f"ALTER DATABASE making RENAME TO {name}")
    return name


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process of the run at a time go through the block."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def template(server: Mapping[str, str]) -> str:
    """The name of a database at head, to clone."""
    return make_template(server, read_manifest().head)


def make_database(server: Mapping[str, str], template: str) -> Iterator[Database]:
    """A database at head: the fixture ``database`` of a module whose tests roll back."""
    with made_database(server, template) as database:
        yield database


database = pytest.fixture(make_database)


@pytest.fixture
def database_at(server: Mapping[str, str]) -> Iterator[DatabaseAt]:
    """Makes a database at a revision of ours: ``database_at("20251225170000")``; a new one with each call."""
    with ExitStack() as stack:
        yield lambda revision: stack.enter_context(made_database(server, make_template(server, revision)))


def make_engine(database: Database) -> Iterator[sa.Engine]:
    """An engine on the module's database: the fixture ``engine``, of a test's time or of a module's."""
    engine = sa.create_engine(database.url())
    yield engine
    engine.dispose()


engine = pytest.fixture(make_engine)


def filled(*, documents: int, chunks: int) -> Any:
    """Return a module's fixture ``database`` with documents of two versions, of which every test rolls back."""

    @pytest.fixture(scope="module")
    def database(server: Mapping[str, str], template: str) -> Iterator[Database]:
        with made_database(server, template) as database:
            with connect(database) as connection:
                query_data.fill(connection, documents=documents, chunks=chunks)
            yield database

    return database


def make_led_engine(server: Mapping[str, str], **arguments: Any) -> tuple[sa.Engine, dict[str, str]]:
    """Return an engine, and libpq keywords of its next connections: ``dbname`` leads it to another database.

    One engine for all databases of a test compiles a statement once; a new one for each of them does so each time.
    """
    engine = sa.create_engine(Database(server, "the tests").url(), **arguments)
    led: dict[str, str] = {}

    @sa.event.listens_for(engine, "do_connect")
    def lead(_dialect: object, _record: object, _arguments: object, keywords: dict[str, str]) -> None:
        keywords.update(led)

    return engine, led


@pytest.fixture
def session(engine: sa.Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


@pytest.fixture
def article() -> str:
    """The id of an article that nobody else writes."""
    return str(uuid4())


def read_rows(database: Database, revision: str) -> dict[str, list[dict[str, Any]]]:
    """Return all rows of our tables, but for the columns that a revision does not have."""
    columns: dict[str, set[str]] = {}
    for name in expected(revision):
        if name.startswith("column "):
            table, column = name.removeprefix("column ").split(".")
            columns.setdefault(table, set()).add(column)
    with connect(database) as connection:
        return {
            table: [
                {name: value for name, value in row.items() if name in columns[table]}
                for (row,) in connection.execute(f"SELECT to_jsonb(t) FROM {table} t ORDER BY id".encode())
            ]
            for table in columns
        }


def run_psql(database: Database, sql: str) -> str:
    """Run a script through psql, stopping at its first error; return what psql prints."""
    return subprocess.run(
        [embedded.program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", database.libpq_url()],
        input=sql,
        text=True,
        capture_output=True,
        check=True,
    ).stdout


def make_by_hand(database: Database) -> None:
    """Make the schema by its hand-written SQL; a function stands for uuid-ossp, whose files no wheel has."""
    run_psql(
        database,
        "CREATE FUNCTION public.uuid_generate_v4() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'",
    )
    for file in sorted((ROOT / "tests" / "seed_schema").glob("*.sql")):
        run_psql(database, file.read_text().replace('CREATE EXTENSION IF NOT EXISTS "uuid-ossp";', ""))


@pytest.fixture(scope="session")
def hand_made(server: Mapping[str, str]) -> Iterator[str]:
    """The name of a database made by the hand-written SQL, to clone."""
    with made_database(server) as database:
        make_by_hand(database)
        yield database.parameters["dbname"]


def copy_checkout(directory: Path) -> Path:
    """Copy what runs from the checkout, to add revisions to; its ``src`` goes into PYTHONPATH."""
    copy = directory / "checkout"
    for name in ("src", "alembic"):
        copy_sources(ROOT / name, copy / name)
    shutil.copy(ROOT / "alembic.ini", copy)
    return copy


def copy_sources(sources: Path, copy: Path) -> None:
    """Copy a directory of sources, and what Python has compiled of them."""
    shutil.copytree(sources, copy, ignore=shutil.ignore_patterns("__pycache__"))
    _share_compiled(sources, copy)


def _share_compiled(sources: Path, copy: Path) -> None:
    """Let Python find for a copy of sources, of the same size and time, what it has compiled of them."""
    compiled = Path(f"{sys.pycache_prefix}{sources}")
    if compiled.is_dir():
        being_written = shutil.ignore_patterns("*.pyc.*")
        shutil.copytree(compiled, f"{sys.pycache_prefix}{copy}", copy_function=_link, ignore=being_written)


def _link(source: str, copy: str) -> None:
    try:
        os.link(source, copy)
    except OSError:  # on another file system, where PYTHONPYCACHEPREFIX was set
        shutil.copy2(source, copy)


Command = Callable[..., subprocess.CompletedProcess[str]]


_forks: list[Forks] = []
_starting_forks = threading.Lock()


def shared_forks() -> Forks:
    """Return the process to fork of this process of the run; the first that asks, in any thread, starts it."""
    with _starting_forks:
        if not _forks:
            _forks.append(Forks(run_directory(), clean_environment()))
    return _forks[0]


@pytest.fixture(scope="session", autouse=True)
def _forks_end_with_the_session() -> Iterator[None]:
    yield
    for forks in _forks:
        forks.close()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    from checkouts import use_checkout  # which imports us

    return use_checkout(tmp_path, monkeypatch)


def start_rag(*arguments: str, cwd: Path, **environment: str) -> Fork:
    """Start ``rag`` in a fork, to signal it or to read what it says meanwhile; keywords are environment variables."""
    return shared_forks().start("rag", arguments, cwd, clean_environment() | environment)


@pytest.fixture
def run(tmp_path: Path) -> Command:
    """Run a command as a user would: its own process, an empty working directory, nothing in the environment.

    ``run("rag", "migrate", DATABASE_URL=...)`` runs what the installed script does, in a fork; keywords are
    environment variables. Any other program, and one that is told of Python, is started.
    """

    def run(*arguments: str, cwd: Path = tmp_path, **environment: str) -> subprocess.CompletedProcess[str]:
        program, *rest = arguments
        told = clean_environment() | environment
        if program in ENTRY_POINTS and not any(name.startswith(("PYTHON", "LC_")) for name in environment):
            return shared_forks().run(program, rest, cwd, told)
        return subprocess.run(
            [str(Path(sys.executable).with_name(program)), *rest],
            cwd=cwd,
            env=told,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run
