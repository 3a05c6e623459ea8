"""Tenants: they are found, made in one transaction, and dropped with nothing else."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from checkouts import finish, made_role, wait_until
from conftest import Command, connect, start_rag
from ragschema import create_engine, migrations, tenants
from ragschema.database.connections import explained
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.errors import (
    ConfigurationError,
    DataLossRefused,
    LockNotObtained,
    NodeUnreachable,
    RagSchemaError,
    TenantRefused,
)
from ragschema.migrations.deployer_lock import deployer_lock_key
from ragschema.migrations.failure_report import explain
from ragschema.publishing import plan_version, publish
from ragschema.revisions.manifest import read_manifest
from ragschema.tenants import counting, dropping, finding

HEAD = read_manifest().head
ODD = 'it\'s a "tenant"'


def execute(database: Database, *statements: str) -> None:
    with connect(database) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def schemas(database: Database) -> set[str]:
    with connect(database) as connection:
        rows = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information)'")
        return {name for (name,) in rows}


def fill(database: Database, schema: str) -> None:
    engine = create_engine(database.libpq_url(), schema=schema)
    with engine.begin() as connection:
        plan = plan_version(
            connection, "a", ["x", "y"], source_hash="1", chunker_version="1", embedder_version="1"
        )
        publish(connection, plan, [None, None])
        connection.execute(sa.text("SELECT rag_jobs_enqueue('noop', '{}')"))
    engine.dispose()


# found


def test_tenants_are_found_with_their_revisions(empty_database: Database) -> None:
    tenants.create_tenant("one", empty_database)
    tenants.create_tenant(ODD, empty_database)
    migrations.upgrade(empty_database, "20251225170000", schema="old")
    execute(
        empty_database,
        "CREATE SCHEMA newer",
        "CREATE TABLE newer.rag_alembic_version (version_num text)",
        "INSERT INTO newer.rag_alembic_version VALUES ('29990101000000')",
        "CREATE SCHEMA two_rows",
        "CREATE TABLE two_rows.rag_alembic_version (version_num text)",
        "INSERT INTO two_rows.rag_alembic_version VALUES ('1'), ('2')",
        "CREATE SCHEMA at_base",
        "CREATE TABLE at_base.rag_alembic_version (version_num text)",
        "CREATE SCHEMA nobody",
    )
    found = {each.schema: each for each in tenants.list_tenants(empty_database, with_sizes=True)}
    assert {name: (each.revision, each.standing) for name, each in found.items()} == {
        "at_base": (None, "behind"),
        ODD: (HEAD, "at head"),
        "newer": ("29990101000000", "unknown"),
        "old": ("20251225170000", "behind"),
        "one": (HEAD, "at head"),
        "two_rows": (None, "unknown"),
    }
    assert list(found) == sorted(found)
    assert found["two_rows"].problem == "rag_alembic_version has 2 rows: 1, 2."
    assert (found["one"].bytes or 0) > 100_000 > (found["at_base"].bytes or 0)
    assert tenants.list_tenants(empty_database)[0].bytes is None


def test_one_that_cannot_be_read_hides_no_other(empty_database: Database) -> None:
    for name in ("a", "b", "c", "d"):
        tenants.create_tenant(name, empty_database)
    with made_role(
        empty_database,
        *(f"GRANT USAGE ON SCHEMA {name} TO _role_" for name in "acd"),
        *(f"GRANT SELECT ON {name}.rag_alembic_version TO _role_" for name in "acd"),
        "ALTER TABLE c.rag_alembic_version ENABLE ROW LEVEL SECURITY",
    ) as role:
        found = {each.schema: each for each in tenants.list_tenants(role)}
        name = role.parameters["user"]
        as_role = tenants.list_tenants(Options(empty_database, role=name))
    assert {name: each.standing for name, each in found.items()} == {
        "a": "at head",
        "b": "unknown",
        "c": "unknown",
        "d": "at head",
    }
    assert f"The role {name} may not read" in str(found["b"].problem)
    assert "row-level security" in str(found["c"].problem)
    assert as_role == [*found.values()]
    execute(
        empty_database,
        "DROP TABLE a.rag_alembic_version",
        "CREATE TABLE a.rag_alembic_version (version_num text)",
        f"INSERT INTO a.rag_alembic_version VALUES ('{HEAD}'), (NULL)",
        "ALTER TABLE b.rag_alembic_version RENAME version_num TO other",
    )
    problems = [str(each.problem) for each in tenants.list_tenants(empty_database)]
    assert f"2 rows: {HEAD}, NULL" in problems[0]
    assert "version_num" in problems[1]


def test_many_are_read_in_batches_and_hold_no_more_locks(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "BATCH", 3)
    for number in range(7):
        execute(
            empty_database,
            f"CREATE SCHEMA t{number}",
            f"CREATE TABLE t{number}.rag_alembic_version (version_num text)",
            f"INSERT INTO t{number}.rag_alembic_version VALUES ('{HEAD}')",
        )
    statements: list[str] = []
    with connect(empty_database) as connection:
        execute_ = connection.execute

        def spy(query: object, *arguments: object, **named: object) -> object:
            statements.append(query.decode() if isinstance(query, bytes) else str(query))
            return execute_(query, *arguments, **named)  # type: ignore[call-overload]

        monkeypatch.setattr(connection, "execute", spy)
        assert len(tenants.find_tenants(connection)) == 7
    assert [read for each in statements if (read := each.count('"rag_alembic_version"'))] == [3, 3, 1]


def test_a_tenant_dropped_meanwhile_is_left_out(empty_database: Database) -> None:
    for name in ("a", "b"):
        execute(
            empty_database,
            f"CREATE SCHEMA {name}",
            f"CREATE TABLE {name}.rag_alembic_version (version_num text)",
        )
    with connect(empty_database) as connection:
        read = finding._read_heads(connection, ["a", "gone", "b"])
        assert list(read) == [("a", []), ("gone", None), ("b", [])]


# made


@pytest.mark.parametrize("name", ["acme", "Tenant-1", ODD])
def test_a_tenant_is_made_whole_and_at_once(empty_database: Database, name: str) -> None:
    made = tenants.create_tenant(name, empty_database)
    assert (made.schema, made.revision) == (name, HEAD)
    assert migrations.verify(empty_database, schema=name).is_clean
    (entry,) = [each for each in migrations.history(empty_database, schema=name) if each.attempts]
    assert (entry.revision, entry.attempts[0].direction) == (HEAD, "create")
    fill(empty_database, name)


def test_a_tenant_is_made_in_one_transaction(empty_database: Database) -> None:
    """The schema is made in a savepoint of it, so its row names that; that it goes with the rest is tested below."""
    tenants.create_tenant("first", empty_database)
    made = tenants.create_tenant("second", empty_database)
    with connect(empty_database) as connection:
        rows = connection.execute(
            "SELECT DISTINCT c.xmin::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE nspname = 'second' AND relkind IN ('r', 'p')"
            " UNION SELECT xmin::text FROM second.rag_alembic_version"
            " UNION SELECT xmin::text FROM second.rag_migration_history"
        ).fetchall()
    assert len(rows) == 1
    assert made.seconds > 0


def test_an_empty_schema_is_used_and_one_with_something_is_not(empty_database: Database) -> None:
    execute(
        empty_database, "CREATE SCHEMA bare", "CREATE SCHEMA theirs", "CREATE TABLE theirs.notes (id int)"
    )
    assert tenants.create_tenant("bare", empty_database).schema == "bare"
    with pytest.raises(TenantRefused, match="has 1 object in it"):
        tenants.create_tenant("theirs", empty_database)
    with pytest.raises(TenantRefused, match=f"is there already, at {HEAD}"):
        tenants.create_tenant("bare", empty_database)
    with connect(empty_database) as connection:
        found = connection.execute("SELECT relname FROM pg_class WHERE relnamespace = 'theirs'::regnamespace")
        assert found.fetchall() == [("notes",)]


@pytest.mark.parametrize("name", ["", "pg_tenant", "information_schema", "x" * 64, "a\0b"])
def test_a_name_that_is_none_is_refused(empty_database: Database, name: str) -> None:
    with pytest.raises(ConfigurationError, match="The tenant's name"):
        tenants.create_tenant(name, empty_database)
    assert schemas(empty_database) == {"public"}


def test_a_failure_leaves_no_schema(empty_database: Database) -> None:
    execute(
        empty_database,
        "CREATE FUNCTION public.no_jobs() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity = 'acme.rag_jobs') THEN"
        " RAISE EXCEPTION 'no jobs here'; END IF; END $$",
        "CREATE EVENT TRIGGER no_jobs ON ddl_command_end EXECUTE FUNCTION public.no_jobs()",
    )
    with pytest.raises(RagSchemaError, match="The head script failed and was rolled back"):
        tenants.create_tenant("acme", empty_database)
    assert schemas(empty_database) == {"public"}
    execute(empty_database, "DROP EVENT TRIGGER no_jobs")
    assert tenants.create_tenant("acme", empty_database).revision == HEAD


def test_a_role_that_may_not_is_told_what_to_ask(empty_database: Database) -> None:
    execute(empty_database, "CREATE EXTENSION vector")
    with made_role(empty_database) as role, pytest.raises(ConfigurationError) as refused:
        tenants.create_tenant("acme", role)
    assert "CREATE SCHEMA" in refused.value.evidence
    assert schemas(empty_database) == {"public"}


def test_two_who_make_the_same_tenant_make_one(run: Command, empty_database: Database) -> None:
    told = {"DATABASE_URL": empty_database.libpq_url()}
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: run("rag", "tenants", "create", "acme", **told), range(3)))
    assert sorted(each.returncode for each in results) == [0, 1, 1]


# in a cluster

# What Citus has of a node that does not answer, in a database without Citus.
NODE_AWAY = (
    "SET allow_system_table_mods = on",
    "CREATE TABLE pg_catalog.pg_dist_node (nodename text, nodeport int, isactive bool, groupid int, noderole text)",
    "CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass)",
    "CREATE TABLE pg_catalog.pg_dist_shard (logicalrelid regclass, shardid bigint)",
    "CREATE TABLE pg_catalog.pg_dist_placement (shardid bigint, groupid int)",
    "CREATE TABLE pg_catalog.pg_dist_local_group (groupid int)",
    "INSERT INTO pg_catalog.pg_dist_local_group VALUES (0)",
    "INSERT INTO pg_catalog.pg_dist_node VALUES ('node', 5702, true, 1, 'primary')",
    "CREATE FUNCTION pg_catalog.citus_check_connection_to_node(text, int) RETURNS bool RETURN false",
    "INSERT INTO pg_extension SELECT 1, 'citus', 10, 'pg_catalog'::regnamespace, false, '14.0-1'",
)


def test_nothing_is_made_handed_over_or_dropped_while_a_node_is_away(empty_database: Database) -> None:
    tenants.create_tenant("acme", empty_database)
    execute(empty_database, *NODE_AWAY)
    before = schemas(empty_database)
    for change in (
        lambda: tenants.create_tenant("globex", empty_database),
        lambda: migrations.upgrade(Options(empty_database, schema="globex")),
        lambda: tenants.distribute_tenant("acme", empty_database, dry_run=True),
        lambda: tenants.move_tenant("acme", "node", 5702, empty_database, dry_run=True),
        lambda: tenants.undistribute_tenant("acme", empty_database, dry_run=True),
        lambda: tenants.drop_tenant("acme", empty_database),
    ):
        with pytest.raises(NodeUnreachable, match="while a node is away: node:5702") as refused:
            change()
        assert "Nothing was changed." in refused.value.remedy
    assert schemas(empty_database) == before
    assert [each.standing for each in tenants.list_tenants(empty_database)] == ["at head"]
    execute(empty_database, "UPDATE pg_catalog.pg_dist_node SET isactive = false")
    assert tenants.create_tenant("globex", empty_database).revision == HEAD
    execute(empty_database, "UPDATE pg_catalog.pg_dist_local_group SET groupid = 1")
    for make in (
        lambda: tenants.create_tenant("initech", empty_database),
        lambda: migrations.upgrade(Options(empty_database, schema="initech")),
    ):
        with pytest.raises(TenantRefused, match="on a node of a cluster, and not on its coordinator"):
            make()
    migrations.upgrade(Options(empty_database, schema="globex"))  # nothing is to be done


def test_without_a_cluster_no_tenant_is_placed(run: Command, empty_database: Database) -> None:
    tenants.create_tenant("acme", empty_database)
    for command in (("distribute",), ("move",), ("undistribute",)):
        node = ("node:5702",) if command == ("move",) else ()
        for told in ((), ("--yes",), ("--yes", "--json")):
            done = run(
                "rag", "tenants", *command, "acme", *node, *told, DATABASE_URL=empty_database.libpq_url()
            )
            assert done.returncode != 0
            assert (
                "The database has no Citus, which would place tenants on nodes." in done.stderr + done.stdout
            )
    assert migrations.verify(empty_database, schema="acme").is_clean


def test_a_node_that_a_revision_did_not_reach_is_said(empty_database: Database) -> None:
    message = (
        "connection to the remote node rag@node:5702 failed with the following error: Connection refused"
    )
    with connect(empty_database) as connection, pytest.raises(psycopg.Error) as failed:
        connection.execute(
            f"DO $$ BEGIN RAISE EXCEPTION '{message}' USING ERRCODE = '08006'; END $$".encode()
        )
    said = explain(failed.value, "Revision 1 failed and was rolled back", "committed: nothing", [])
    assert isinstance(said, NodeUnreachable)
    assert said.remedy.startswith(
        "A node of Citus does not answer: bring it back, then run the same command again"
    )
    assert message in said.evidence
    with (
        pytest.raises(NodeUnreachable, match="A node of Citus that this command needs does not answer"),
        explained(),
    ):
        raise failed.value


# dropped


def test_a_tenant_with_rows_is_dropped_only_when_told(empty_database: Database) -> None:
    tenants.create_tenant(ODD, empty_database)
    tenants.create_tenant("other", empty_database)
    fill(empty_database, ODD)
    counted = tenants.count_tenant(ODD, empty_database)
    assert (counted.documents, counted.chunks, counted.jobs, counted.messages) == (1, 2, 1, 0)
    with pytest.raises(DataLossRefused, match="nothing was changed") as refused:
        tenants.drop_tenant(ODD, empty_database)
    assert refused.value.evidence.splitlines()[:3] == ["1 document", "2 chunks", "1 job"]
    assert migrations.verify(empty_database, schema=ODD).is_clean
    assert tenants.drop_tenant(ODD, empty_database, allow_data_loss=True).rows == counted
    assert schemas(empty_database) == {"public", "other"}
    assert migrations.verify(empty_database, schema="other").is_clean


def test_a_tenant_without_rows_needs_no_permission(empty_database: Database) -> None:
    tenants.create_tenant("acme", empty_database)
    assert tenants.drop_tenant("acme", empty_database).rows.total == 0
    assert schemas(empty_database) == {"public"}


@pytest.mark.parametrize(
    ("made", "error"),
    [
        ("CREATE TABLE acme.notes (id int)", "table notes"),
        ("CREATE TABLE acme.rag_notes (id int)", "table rag_notes"),
        ("CREATE FUNCTION acme.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "function f()"),
        ("CREATE VIEW acme.v AS SELECT id FROM acme.rag_jobs", "view v"),
        ("CREATE SEQUENCE acme.s", "sequence s"),
        ("CREATE DOMAIN acme.d AS int", "type d"),
        ("CREATE VIEW public.v AS SELECT id FROM acme.rag_jobs", "v depends on"),
        (
            "CREATE TABLE public.t (id uuid REFERENCES acme.rag_documents)",
            "constraint t_id_fkey on table t depends on",
        ),
    ],
)
def test_nothing_of_others_goes_with_it(empty_database: Database, made: str, error: str) -> None:
    tenants.create_tenant("acme", empty_database)
    execute(empty_database, "SET search_path = pg_catalog", made)
    with pytest.raises(TenantRefused, match=r"not (everything is )?ours") as refused:
        tenants.drop_tenant("acme", empty_database, allow_data_loss=True)
    assert error in refused.value.evidence
    assert "acme" in schemas(empty_database)


def test_the_extension_keeps_its_schema(empty_database: Database) -> None:
    execute(empty_database, "CREATE SCHEMA acme", "CREATE EXTENSION vector WITH SCHEMA acme")
    migrations.upgrade(empty_database, schema="acme")
    tenants.create_tenant("other", empty_database)
    with pytest.raises(TenantRefused) as refused:
        tenants.drop_tenant("acme", empty_database)
    assert "extension vector" in refused.value.evidence


@pytest.mark.parametrize("name", ["nowhere", "public", "theirs"])
def test_what_is_no_tenant_is_not_dropped(empty_database: Database, name: str) -> None:
    execute(empty_database, "CREATE SCHEMA theirs", "CREATE TABLE theirs.notes (id int)")
    with pytest.raises(TenantRefused, match="There is no tenant"):
        tenants.drop_tenant(name, empty_database, allow_data_loss=True)
    assert schemas(empty_database) == {"public", "theirs"}


def test_partitions_go_in_batches_and_an_interrupted_drop_goes_on(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants.create_tenant("acme", empty_database)
    fill(empty_database, "acme")
    execute(
        empty_database,
        *(
            f"CREATE TABLE acme.rag_embeddings_{number} PARTITION OF acme.rag_chunk_embeddings"
            f" FOR VALUES IN ({number})"
            for number in range(2, 7)
        ),
    )
    monkeypatch.setattr(dropping, "BATCH", 2)
    drops: list[list[str]] = []
    drop_tables = dropping._drop_tables

    def drop(connection: psycopg.Connection[psycopg.rows.TupleRow], schema: str, tables: list[str]) -> None:
        drops.append(tables)
        if len(drops) == 3:
            raise KeyboardInterrupt
        drop_tables(connection, schema, tables)

    monkeypatch.setattr(dropping, "_drop_tables", drop)
    with pytest.raises(SystemExit) as interrupted:
        tenants.drop_tenant("acme", empty_database, allow_data_loss=True)
    assert interrupted.value.code == 130
    assert [len(each) for each in drops] == [2, 2, 1]
    monkeypatch.setattr(dropping, "_drop_tables", drop_tables)
    assert tenants.drop_tenant("acme", empty_database, allow_data_loss=True).rows.documents == 1
    assert schemas(empty_database) == {"public"}


def test_a_session_in_the_way_is_named_and_nothing_is_dropped(empty_database: Database) -> None:
    tenants.create_tenant("acme", empty_database)
    fill(empty_database, "acme")
    options = Options(empty_database, lock_timeout=0.3, retries=0)
    with connect(empty_database) as other, other.transaction():
        other.execute("SET LOCAL application_name = 'the one in the way'")
        other.execute("SELECT FROM acme.rag_chunks")
        with pytest.raises(LockNotObtained, match="The tenant acme was not dropped") as refused:
            tenants.drop_tenant("acme", options, allow_data_loss=True)
        assert "the one in the way" in refused.value.evidence
    assert migrations.verify(empty_database, schema="acme").is_clean
    with connect(empty_database) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (deployer_lock_key("acme"),))
        with pytest.raises(LockNotObtained, match="Another deployer"):
            tenants.drop_tenant("acme", Options(empty_database, lock_wait=0.2), allow_data_loss=True)


def test_rows_that_came_since_they_were_counted_are_kept(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants.create_tenant("acme", empty_database)
    refuse = dropping.refuse_dependents

    def come(connection: psycopg.Connection[psycopg.rows.TupleRow], schema: str) -> None:
        refuse(connection, schema)
        if connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            fill(empty_database, "acme")

    monkeypatch.setattr(dropping, "refuse_dependents", come)
    count = counting.count_rows
    counts = iter([True])
    monkeypatch.setattr(
        dropping,
        "count_rows",
        lambda connection, schema: (
            tenants.TenantRows(schema, HEAD, 0, 0, 0, 0, 0)
            if next(counts, False)
            else count(connection, schema)
        ),
    )
    with pytest.raises(DataLossRefused):
        tenants.drop_tenant("acme", empty_database)
    assert tenants.count_tenant("acme", empty_database).documents == 1


def test_row_security_that_hides_rows_is_refused(empty_database: Database) -> None:
    tenants.create_tenant("acme", empty_database)
    with made_role(empty_database) as role:
        name = role.parameters["user"]
        execute(
            empty_database,
            "ALTER TABLE acme.rag_documents ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE acme.rag_documents FORCE ROW LEVEL SECURITY",
            f"GRANT USAGE ON SCHEMA acme TO {name}",
        )
        with pytest.raises(RagSchemaError, match="Row security hides"):
            tenants.count_tenant("acme", role)


# the commands


def test_the_commands_say_what_they_do(run: Command, empty_database: Database) -> None:
    told = {"DATABASE_URL": empty_database.libpq_url()}
    assert run("rag", "tenants", "list", **told).stdout == ""
    made = run("rag", "tenants", "create", "acme", **told)
    assert made.stdout.startswith(f"Created acme, at {HEAD} ("), made.stderr
    listed = run("rag", "tenants", "list", "--sizes", **told).stdout.rstrip().split("\t")
    assert listed[:3] == ["acme", HEAD, "at head"]
    (found,) = json.loads(run("rag", "tenants", "list", "--json", **told).stdout)["tenants"]
    assert (found["schema"], found["standing"]) == ("acme", "at head")
    fill(empty_database, "acme")
    asks = run("rag", "tenants", "drop", "acme", **told)
    assert (asks.returncode, "--allow-data-loss" in asks.stderr) == (1, True)
    asks = run("rag", "tenants", "drop", "acme", "--allow-data-loss", **told)
    assert asks.returncode == 2
    assert "This destroys:\n1 document\n2 chunks\n1 job\n" in asks.stderr
    done = run("rag", "tenants", "drop", "acme", "--allow-data-loss", "--yes", **told)
    assert done.stdout.startswith("Dropped acme; it had 1 document, 2 chunks, 1 job"), done.stderr
    twice = run("rag", "tenants", "create", "acme", "--schema", "other", **told)
    assert (twice.returncode, "Leave out --schema." in twice.stderr) == (2, True)
    assert json.loads(run("rag", "tenants", "create", "b", "--json", **told).stdout)["schema"] == "b"
    assert run("rag", "tenants", "drop", "b", **told).returncode == 2
    assert json.loads(run("rag", "tenants", "drop", "b", "--yes", "--json", **told).stdout)["schema"] == "b"


def test_a_signal_ends_a_drop_that_waits(empty_database: Database, tmp_path: Path) -> None:
    tenants.create_tenant("acme", empty_database)
    with connect(empty_database) as other, connect(empty_database) as looking, other.transaction():
        other.execute("LOCK TABLE acme.rag_jobs IN SHARE MODE")
        process = start_rag(
            "tenants", "drop", "acme", "--yes", cwd=tmp_path, DATABASE_URL=empty_database.libpq_url()
        )
        waiting = (
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        wait_until(lambda: looking.execute(waiting).fetchall(), "the drop to wait")
        process.send_signal(signal.SIGTERM)
        result = finish(process)
    assert result.returncode == 143
    assert "dropped: nothing; not dropped: the schema acme" in result.stderr
    assert migrations.verify(empty_database, schema="acme").is_clean
