"""Others who may put code where ours runs: `health` says who, and nothing runs what answers for PostgreSQL's own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import psycopg
import pytest

from conftest import Command, connect, made_database, run_psql
from ragschema import migrations
from ragschema.database.impostors import find_impostors
from ragschema.database.options import Options
from ragschema.database.schemas import find_schemas
from ragschema.database.settings import Database
from ragschema.errors import ConfigurationError
from ragschema.migrations.checks import Check
from ragschema.migrations.health import check_health

OTHER = f"other_{os.getpid()}"
SERVICE = f"service_{os.getpid()}"


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection[psycopg.rows.TupleRow]]:
    """The superuser's, in a database that two other roles may enter."""
    with connect(database) as connection:
        for role in (OTHER, SERVICE):
            connection.execute(f"CREATE ROLE {role} LOGIN".encode())
        try:
            yield connection
        finally:
            for role in (OTHER, SERVICE):
                connection.execute(f"DROP OWNED BY {role} CASCADE".encode())
                connection.execute(f"DROP ROLE {role}".encode())


def others(database: Database) -> list[Check]:
    return [check for check in check_health(Options(database)) if check.name == "others"]


EXPOSURES = {
    "create": (f"GRANT CREATE ON SCHEMA public TO {OTHER}", f"{OTHER} may create in the schema public"),
    "create for all": ("GRANT CREATE ON SCHEMA public TO PUBLIC", "PUBLIC may create in the schema public"),
    "trigger": (
        f"GRANT ALL ON rag_jobs, rag_chunks TO {OTHER}",
        f"{OTHER} may set triggers on rag_chunks, rag_jobs",
    ),
    "table": (f"ALTER TABLE rag_jobs OWNER TO {OTHER}", f"the table rag_jobs belongs to {OTHER}"),
    "function": (
        f"ALTER FUNCTION rag_jobs_stats() OWNER TO {OTHER}",
        f"the function rag_jobs_stats() belongs to {OTHER}",
    ),
}


@pytest.mark.parametrize("name", EXPOSURES)
def test_health_warns_of_others_who_may_put_code_into_the_schema(
    database: Database, connection: psycopg.Connection[psycopg.rows.TupleRow], name: str
) -> None:
    """And what it says to do about it mends it."""
    [before] = others(database)
    assert before.verdict == "ok"
    statement, finding = EXPOSURES[name]
    connection.execute(statement.encode())
    [check] = others(database)
    assert (check.verdict, check.finding.startswith(finding)) == ("warning", True), check
    _, _, remedy = check.remedy.partition(" runs: ")
    connection.execute(remedy.replace("the owner of the others", "postgres").encode())
    assert [check.verdict for check in others(database)] == ["ok"]


def test_what_belongs_to_whoever_migrates_is_no_exposure(
    server: Mapping[str, str], connection: psycopg.Connection[psycopg.rows.TupleRow]
) -> None:
    """Seen by a superuser and by a service with SELECT alone."""
    with made_database(server) as empty, connect(empty) as superuser:
        superuser.execute("CREATE EXTENSION vector")
        superuser.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {OTHER}".encode())
        migrations.upgrade(Database({**empty.parameters, "user": OTHER}, "the tests"))
        superuser.execute(f"SET ROLE {OTHER}".encode())
        superuser.execute("CREATE FUNCTION format(text, integer) RETURNS text LANGUAGE sql RETURN 'theirs'")
        superuser.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {SERVICE}".encode())
        superuser.execute("RESET ROLE")
        for user in ("postgres", OTHER, SERVICE):
            database = Database({**empty.parameters, "user": user}, "the tests")
            assert [check.verdict for check in others(database)] == ["ok"], user
            assert migrations.status(database).state == "OK"
            assert migrations.verify(database).is_clean
        superuser.execute(f"DROP OWNED BY {OTHER} CASCADE".encode())


IMPOSTORS = {
    "format(text,integer)": "FUNCTION {} RETURNS text",
    "quote_ident(name)": "FUNCTION {} RETURNS text",
    "concat_ws(text,text,text,text)": "FUNCTION {} RETURNS text",
}
OPERATOR = """
CREATE FUNCTION is_same(job_status, job_status) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR = (FUNCTION = is_same, LEFTARG = job_status, RIGHTARG = job_status);
"""
AGGREGATE = "CREATE AGGREGATE string_agg(name, name) (SFUNC = nameeq, STYPE = boolean)"


def plant(database: Database, statements: str) -> None:
    run_psql(database, f"GRANT USAGE, CREATE ON SCHEMA public TO {OTHER}; SET ROLE {OTHER}; {statements}")


@pytest.mark.parametrize("signature", [*IMPOSTORS, "=(job_status,job_status)"])
def test_a_schema_with_impostors_is_refused_and_the_remedy_mends_it(
    database: Database, connection: psycopg.Connection[psycopg.rows.TupleRow], run: Command, signature: str
) -> None:
    """By what a deployer runs, whatever it is: each of our statements could call them."""
    connection.execute("CREATE SEQUENCE called")
    connection.execute("GRANT USAGE ON SEQUENCE called TO PUBLIC")
    if signature in IMPOSTORS:
        create = IMPOSTORS[signature].format(signature)
        plant(database, f"CREATE {create} LANGUAGE sql AS $$SELECT nextval('public.called')::text$$")
    else:
        plant(database, OPERATOR)
    url = database.libpq_url()
    for command in (["migrate"], ["migrate", "status"], ["migrate", "verify"], ["migrate", "plan"]):
        done = run("rag", *command, DATABASE_URL=url)
        assert done.returncode == 78, done.stdout + done.stderr
        assert f"{signature} of the role {OTHER} could be called for PostgreSQL's own" in done.stderr
    [check] = others(database)
    assert check.verdict == "refused"
    assert connection.execute("SELECT is_called FROM called").fetchone() == (False,)
    with pytest.raises(ConfigurationError) as refused:
        migrations.status(database)
    connection.execute(refused.value.evidence.encode())
    assert migrations.status(database).state == "OK"


def test_an_aggregate_is_an_impostor_too(
    database: Database, connection: psycopg.Connection[psycopg.rows.TupleRow]
) -> None:
    plant(
        database,
        "CREATE FUNCTION step(text, text) RETURNS text LANGUAGE sql AS 'SELECT $2';"
        "CREATE AGGREGATE array_agg(text) (SFUNC = step, STYPE = text)",
    )
    with pytest.raises(ConfigurationError, match=r"array_agg\(text\)"):
        migrations.status(database)


def test_functions_of_other_names_and_extensions_are_nobodys_impostors(
    database: Database, connection: psycopg.Connection[psycopg.rows.TupleRow]
) -> None:
    """Among the functions of pgvector are sum, avg and the operators that everything has."""
    plant(database, "CREATE FUNCTION helper(text) RETURNS text LANGUAGE sql AS 'SELECT $1'")
    connection.execute("CREATE EXTENSION citext")
    disown = "UPDATE pg_proc SET proowner = %s::regrole WHERE proname = 'avg' AND pronamespace = 'public'::regnamespace"
    try:  # as on a platform whose administrators are no superusers
        assert connection.execute(disown.encode(), (OTHER,)).rowcount > 0
        assert find_impostors(connection, find_schemas(connection)) == []
    finally:
        connection.execute(disown.encode(), ("postgres",))
