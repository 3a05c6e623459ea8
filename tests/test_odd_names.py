"""Names that mean something to a driver go through every command and the whole library, and name what they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import sqlalchemy as sa
import typer
from psycopg import sql
from sqlalchemy.orm import Session

from conftest import Command, connect, made_database
from embedding_models import do_jobs
from import_sources import LANGCHAIN, literal
from publishing import assert_consistent, publish_texts
from ragschema import chat, create_engine, jobs, migrations, use_schema
from ragschema.chat import NewMessage
from ragschema.cli.app import whole_app
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.errors import RagSchemaError
from ragschema.tenants import create_tenant
from tenant_steps import STEPS
from tenant_steps import run as run_step
from test_graph_neo4j import EDGES, NODES, write_lines

ODD = '50%s "of" %(all)s :x {y}'
BY_ENGINE, BY_SESSION, BY_COMMAND, FAILING = (f"{ODD} {number}" for number in range(4))
EXTENSIONS, SOURCE = f"extensions {ODD}", f"source {ODD}"

FILL, DO_JOBS = "a service writes", "a worker does the jobs"
WALK = (
    "tenants create {name}",
    FILL,
    "migrate",
    "migrate apply",
    "migrate status",
    "migrate history",
    "migrate wait --timeout 1s",
    "migrate validate",
    "migrate verify",
    "migrate verify --data",
    "migrate health",
    "migrate init",
    "migrate adopt",
    "migrate stamp head --force",
    "migrate repair",
    "migrate rollback -1 --yes",
    "migrate plan",
    "migrate rollback 20251225170000 --yes --allow-data-loss",
    "migrate",
    FILL,
    "grants --app {app} --read-only {reader}",
    "grants --app {app} --read-only {reader} --apply",
    "import langchain --embedder e --from-schema {source} --collection {odd} --document-key {odd} --defer-index",
    "import langchain --embedder e --from-schema {source} --collection {odd} --document-key {odd}",
    "models add {key} --dimensions 16 --index bit",
    "models backfill {key}",
    "models backfill {key} --status",
    "jobs list",
    "jobs stats",
    DO_JOBS,
    "models list",
    "models index {key}",
    "models check-recall {key}",
    "models activate {key} --least-recall 0.1",
    "models rollback",
    "models rename {key} {other_key}",
    "models activate {other_key} --least-recall 0.1",
    "models drop default --yes",
    "models list",
    "models add {key} --dimensions 16",
    "models drop {key} --yes",
    "index health",
    "index rebuild",
    "index maintain --if-recall-below 1",
    "jobs cancel {job}",
    "jobs retry {job}",
    "jobs prune --older-than 1d --failed --yes",
    "jobs schedule add {key} --type tidy --every 1h",
    "jobs schedule pause {key}",
    "jobs schedule resume {key}",
    "jobs schedule list",
    "jobs schedule remove {key}",
    "chat prune --before 0s --yes",
    "collections create {key} --description {key}",
    "collections add {key} walked",
    "collections list",
    "collections update {key} --name {other_key}",
    "collections remove {other_key} walked",
    "collections delete {other_key} --yes",
    "documents delete walked",
    "documents undelete walked",
    "documents purge walked --erase --yes",
    "graph import {graph}",
    "graph export {graph}",
    "graph stats",
    "graph verify",
    "migrate verify --data",
    "tenants list --sizes",
    "tenants status",
    "tenants verify",
    "tenants migrate --visit",
    "tenants drop {name} --allow-data-loss --yes",
)
ITS_OWN_SESSIONS = {"change_the_model", "publish_many_documents"}
"""Steps that make sessions of an engine, which use_schema does not reach."""
ELSEWHERE = {"migrate create", *(f"tenants {name}" for name in ("distribute", "move", "undistribute"))}
"""Commands that take a schema and are not walked: those of Citus, and those that write files of a checkout."""


@pytest.fixture(scope="module")
def database(server: Mapping[str, str]) -> Iterator[Database]:
    """A database with pgvector in a schema of such a name, and a source of an import in another."""
    with made_database(server) as database:
        with connect(database) as connection:
            path = sql.Identifier(SOURCE), sql.Identifier(EXTENSIONS)
            connection.execute(
                sql.SQL(
                    "CREATE SCHEMA {0}; CREATE SCHEMA {1}; CREATE EXTENSION vector SCHEMA {1};"
                    " SET search_path = {0}, {1}"
                ).format(*path)
            )
            connection.execute(LANGCHAIN)
            connection.execute("UPDATE langchain_pg_collection SET name = %s", (ODD,))
            connection.execute(
                "INSERT INTO langchain_pg_embedding SELECT 'row ' || n, uuid, %s, 'text ' || n,"
                " jsonb_build_object(%s::text, n) FROM langchain_pg_collection, generate_series(1, 3) n",
                (literal("one"), ODD),
            )
        yield database


@pytest.fixture(scope="module")
def by_engine(database: Database) -> Iterator[sa.Engine]:
    create_tenant(BY_ENGINE, database)
    engine = create_engine(database.libpq_url(), schema=BY_ENGINE)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def by_session(database: Database) -> Iterator[sa.Engine]:
    create_tenant(BY_SESSION, database)
    engine = create_engine(database.libpq_url())
    yield engine
    engine.dispose()


@pytest.fixture
def roles(database: Database) -> Iterator[dict[str, str]]:
    """Roles of services."""
    names = {kind: f"{kind} %s %(a)s :x of {database.parameters['dbname']}" for kind in ("app", "reader")}
    with connect(database) as connection:
        for name in names.values():
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        yield names
        for name in names.values():
            connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


@pytest.mark.parametrize("step", STEPS)
def test_each_step_by_an_engine(by_engine: sa.Engine, database: Database, step: str) -> None:
    run_step(STEPS[step], by_engine, Options(database, schema=BY_ENGINE))


@pytest.mark.parametrize("step", sorted(STEPS.keys() - ITS_OWN_SESSIONS))
def test_each_step_by_use_schema(by_session: sa.Engine, database: Database, step: str) -> None:
    with Session(by_session) as session:
        use_schema(session, BY_SESSION)
        STEPS[step](session, Options(database, schema=BY_SESSION))
        session.rollback()
        assert_consistent(session)


@pytest.mark.long
def test_each_command(run: Command, database: Database, roles: dict[str, str], tmp_path: Path) -> None:
    names = {
        **{"name": BY_COMMAND, "source": SOURCE, "odd": ODD},
        **{"key": f"{ODD} key", "other_key": f"{ODD} other key"},
        "graph": str(write_lines(tmp_path / "graph.jsonl", [*NODES, *EDGES])),
        **roles,
    }
    engine = create_engine(database.libpq_url(), schema=BY_COMMAND)
    for line in WALK:
        if line == FILL:
            names["job"] = _fill(engine)
        elif line == DO_JOBS:
            assert do_jobs(engine)
        else:
            words = [word.format(**names) for word in line.split()]
            at = () if words[0] == "tenants" else ("--schema", BY_COMMAND)
            result = run("rag", *words, *at, DATABASE_URL=database.libpq_url())
            assert result.returncode == 0, (line, result.stdout, result.stderr)
    engine.dispose()


def _fill(engine: sa.Engine) -> str:
    """Write something of each kind; return the id of a job."""
    with Session(engine) as session, session.begin():
        publish_texts(session, "walked", [f"text {number}" for number in range(30)])
        started = chat.create_session(session, "ann")
        chat.add_message(session, started.id, NewMessage("user", "How much?"))
        return str(jobs.enqueue(session, "tidy", {}))


def test_the_walk_has_every_command_that_takes_a_schema() -> None:
    found = set()
    commands = [("", typer.main.get_command(whole_app()))]
    for path, command in commands:
        inner = getattr(command, "commands", {})
        if any("--schema" in parameter.opts for parameter in command.params):
            found.add(path)
        commands += [(f"{path} {name}".lstrip(), each) for name, each in inner.items()]
    walked = {path for path in found for line in WALK if f"{line} ".startswith(f"{path} ")}
    assert found - walked == ELSEWHERE


def test_a_failure_is_recorded(database: Database) -> None:
    options = Options(database, schema=FAILING)
    migrations.upgrade(options, "20251225170000")
    with connect(database) as connection:
        connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(FAILING, "rag_jobs")))
    with pytest.raises(RagSchemaError):
        migrations.upgrade(options)
    failure = migrations.status(options).last_failure
    assert failure is not None
    assert failure.revision == "20261121100500"
