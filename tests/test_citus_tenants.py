"""Many tenants on Citus: migrated, verified and planned together, and what is said where a node is away.

In a database of their own on every node, so that what these tests change in the cluster nobody else meets.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from checkouts import ADD_COLUMN, Checkout, use_checkout
from citus_clusters import connect_to, made_cluster_database
from conftest import Command, connect
from publishing import assert_consistent, publish_texts
from ragschema import create_engine, index_health, jobs, migrations
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.embedding_models import list_models
from ragschema.errors import TenantRefused
from ragschema.migrations.health import check_health
from ragschema.tenants import (
    create_tenant,
    distribute_tenant,
    drop_tenant,
    list_tenants,
    locate,
    move_tenant,
    verify_tenants,
)

pytestmark = pytest.mark.citus

NAMES = ("acme", "globex", "hooli")
INDEX = "rag_chunks_current_embedding_idx"


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """Three tenants on nodes, not all on one, and one that is an ordinary schema."""
    with made_cluster_database("fleet") as database:
        for name in (*NAMES, "ordinary"):
            create_tenant(name, database)
        for name in NAMES:
            distribute_tenant(name, database)
            engine = create_engine(database.libpq_url(), schema=name)
            with Session(engine) as session, session.begin():
                publish_texts(session, "a", [f"text {number}" for number in range(20)])
            engine.dispose()
        yield database


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    return use_checkout(tmp_path, monkeypatch)


@contextmanager
def node_away(database: Database, tenant: str) -> Iterator[str]:
    """Let the coordinator look for a tenant's node where nobody answers; yield how it calls that."""
    place = locate(tenant, database)
    assert place is not None
    move_port = "UPDATE pg_dist_node SET nodeport = %s WHERE nodeport = %s"
    with socket.socket() as taken, connect(database) as connection:
        taken.bind(("127.0.0.1", 0))  # and never listens
        port = taken.getsockname()[1]
        connection.execute(move_port, (port, place.port))
        try:
            yield f"{place.host}:{port}"
        finally:
            connection.execute(move_port, (place.port, port))


def other_node(database: Database, than: str) -> tuple[str, str]:
    """Return a tenant, and another one that is on another node."""
    places = {name: locate(name, database) for name in NAMES}
    return next((one, other) for one in (than,) for other in NAMES if places[one] != places[other])


def findings(database: Database, schema: str) -> list[tuple[str, str]]:
    checks = check_health(Options(database, schema=schema))
    return [(check.verdict, check.finding) for check in checks if check.name == "Citus"]


def revisions(database: Database) -> dict[str, str | None]:
    return {each.schema: each.revision for each in list_tenants(database)}


def test_tenants_are_on_both_nodes_and_as_their_revisions_say(database: Database) -> None:
    assert len({locate(name, database) for name in NAMES}) == 2
    assert locate("ordinary", database) is None
    verified = verify_tenants([Options(database)])
    assert ([each.differences for each in verified.groups], verified.unverified) == ([()], ())


def test_a_plan_says_what_is_locked_where_and_how_large_it_is(checkout: Checkout, database: Database) -> None:
    checkout.add(ADD_COLUMN)
    place = locate("acme", database)
    assert place is not None
    plan = migrations.plan(Options(database, schema="acme"))
    assert plan.method == "rehearsal"
    assert f"On Citus: each statement takes its locks here and on {place.host}:{place.port}" in plan.notes[0]
    assert "lock_timeout holds on every node" in plan.notes[0]
    (statement,) = plan.revisions[0].statements
    (lock,) = statement.locks
    assert (lock.table, lock.mode) == ("rag_chunks", "ACCESS EXCLUSIVE")
    assert lock.bytes > 20 * 768 * 4
    assert [each.kind for each in statement.hazards] == ["lock"]
    assert not any("On Citus" in note for note in migrations.plan(Options(database, schema="ordinary")).notes)


def test_a_node_that_is_away_is_said_before_anything_is_touched(
    checkout: Checkout, database: Database
) -> None:
    checkout.add(ADD_COLUMN)
    gone, there = other_node(database, "acme")
    before = revisions(database)
    with node_away(database, gone) as node:
        said = f"No tenant of Citus can be made, changed or dropped while a node is away: {node}."
        for name, words in (
            (gone, "A node of Citus that this command needs does not answer."),
            (there, said),
        ):
            done = checkout.run("rag", "migrate", "--schema", name, database=database)
            assert (done.returncode, words in done.stderr) == (69, True), done.stderr
            assert node in done.stderr
            assert ("refused", f"1 node of Citus does not answer: {node}") in findings(database, name)
        done = checkout.run("rag", "tenants", "migrate", "--json", database=database)
        told = {each["schema"]: (each["fate"], each["error"]) for each in json.loads(done.stdout)["tenants"]}
        assert told.pop("ordinary")[0] == "migrated"
        assert told.pop(there) == ("failed", said)
        assert {fate for fate, _ in told.values()} == {"failed"}
        engine = create_engine(database.libpq_url(), schema=there)
        with Session(engine) as session:
            publish_texts(session, "meanwhile", ["a", "b"])
            session.commit()
            jobs.enqueue(session, "meanwhile", {})
            session.commit()
            (job,) = jobs.claim(session, "w", ["meanwhile"])
            session.commit()
            assert jobs.complete(session, job)
            session.commit()
        engine.dispose()
    after = revisions(database)
    assert {name: after[name] for name in NAMES} == {name: before[name] for name in NAMES}


def test_no_tenant_is_made_placed_or_dropped_while_a_node_is_away(run: Command, database: Database) -> None:
    gone, there = other_node(database, "acme")
    told = {"DATABASE_URL": database.libpq_url()}
    fresh = 'fresh "one"'
    before = revisions(database)
    with node_away(database, gone) as node:
        place = locate(gone, database)
        assert place is not None
        for command in (
            ("tenants", "create", fresh),
            ("migrate", "--schema", fresh),
            ("migrate", "init", "--schema", fresh),
            ("tenants", "drop", "ordinary", "--yes", "--allow-data-loss"),
            ("tenants", "drop", there, "--yes", "--allow-data-loss"),
            ("tenants", "distribute", "ordinary"),
            ("tenants", "distribute", "ordinary", "--yes"),
            ("tenants", "move", there, f"{place.host}:{place.port}"),
            ("tenants", "move", gone, node, "--yes"),
            ("tenants", "undistribute", there),
            ("tenants", "undistribute", gone, "--yes"),
        ):
            done = run("rag", *command, **told)
            assert done.returncode == 69, (command, done.stderr)
            assert f"can be made, changed or dropped while a node is away: {node}." in done.stderr, command
            assert "Nothing was changed." in done.stderr
    assert revisions(database) == before
    create_tenant(fresh, database)
    assert distribute_tenant(fresh, database).after
    drop_tenant(fresh, database)
    assert revisions(database) == before


def test_who_reads_goes_on_while_a_node_is_away(run: Command, database: Database) -> None:
    gone, there = other_node(database, "acme")
    told = {"DATABASE_URL": database.libpq_url()}
    sizes = {each.schema: each.bytes for each in list_tenants(database, with_sizes=True)}
    with node_away(database, gone) as node:
        for command in (
            "migrate status",
            "migrate verify --data",
            "migrate plan",
            "models list",
            "index health",
            "index rebuild",
            "jobs stats",
        ):
            done = run("rag", *command.split(), "--schema", there, **told)
            assert done.returncode == 0, (command, done.stderr)
        found = {each.schema: each for each in list_tenants(database, with_sizes=True)}
        assert found[gone].problem == f"Its node of Citus does not answer: {node}."
        assert (found[gone].bytes, found[there].bytes) == (None, sizes[there])
        assert [found[name].problem for name in (there, "ordinary")] == [None, None]
        assert found[there].revision
        verified = verify_tenants([Options(database)])
        unverified = {each.schema for each in verified.unverified}
        assert (gone in unverified, there in unverified) == (True, False)
        assert ("warning", f"1 node of Citus does not answer: {node}") in findings(database, "ordinary")
        assert ("refused", f"1 node of Citus does not answer: {node}") in findings(database, "fresh")


def test_sizes_are_those_of_the_rows_and_nothing_of_them_is_left_here(database: Database) -> None:
    sizes = {each.schema: each.bytes for each in list_tenants(database, with_sizes=True)}
    with connect(database) as connection:
        for name in NAMES:
            row = connection.execute(
                "SELECT sum(pg_relation_size(c.oid)), sum(citus_total_relation_size(c.oid)) FROM pg_class c"
                " WHERE c.relnamespace = %s::regnamespace AND c.relkind = 'r'",
                (name,),
            ).fetchone()
            assert row is not None
            assert (row[0], row[1]) == (0, sizes[name])


def test_an_index_is_measured_and_rebuilt_where_its_rows_are(database: Database) -> None:
    options = Options(database, schema="globex")
    place = locate("globex", database)
    assert place is not None
    with connect(database) as connection:
        connection.execute(
            "UPDATE globex.rag_chunks SET embedding = (SELECT array_agg(((ordinal * i * i + i) %% 97) - 48)::vector"
            " FROM generate_series(1, 768) i)".replace("%%", "%").encode()
        )
    (before,) = index_health.check_indexes(options)
    assert (before.index, before.table, before.note) == (INDEX, "rag_chunks", "")
    assert before.recall is not None
    assert before.rows
    assert before.size > before.rows * 768 * 4
    (model,) = list_models(options)
    assert model.index_size == before.size
    with connect_to(host=place.host, port=place.port, dbname=database.parameters["dbname"]) as node:
        node.execute("SET citus.override_table_visibility = off")
        node.execute("SET citus.enable_manual_changes_to_shards = on")
        found = node.execute(
            "SELECT t.relname, i.relname, i.oid FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
            " JOIN pg_class t ON t.oid = x.indrelid"
            " WHERE i.relnamespace = 'globex'::regnamespace AND i.relname ~ %s",
            (f"^{INDEX}_[0-9]+$",),
        ).fetchone()
        assert found is not None
        table, index, oid = found
        left = f"{index[:55]}_ccnew"
        node.execute(
            f"CREATE INDEX {left} ON globex.{table} USING hnsw (embedding vector_cosine_ops)".encode()
        )
        node.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid IN (%s, %s::regclass)",
            (oid, f"globex.{left}"),
        )
        assert [each.is_valid for each in index_health.check_indexes(options)] == [False, False]
        done = index_health.maintain(options)
        assert [(each.index, each.table) for each in done.rebuilt] == [(INDEX, "rag_chunks")]
        assert (done.dropped, done.vacuumed) == ((left,), ("rag_chunks",))
        (after,) = index_health.check_indexes(options)
        assert (after.is_valid, after.rows) == (True, before.rows)
        vacuumed = node.execute("SELECT pg_stat_get_last_vacuum_time(%s::regclass)", (f"globex.{table}",))
        assert vacuumed.fetchone() == (after.vacuumed_at,)
    assert index_health.rebuild(options, INDEX).rebuilt[0].index == INDEX


def test_all_tenants_are_migrated_and_verified_while_one_publishes(
    checkout: Checkout, database: Database
) -> None:
    revision = checkout.add(ADD_COLUMN)
    stop, written = threading.Event(), list[str]()
    engine = create_engine(database.libpq_url(), schema="hooli")

    def write() -> None:
        with Session(engine) as session:
            while not stop.is_set():
                publish_texts(session, f"during {len(written)}", ["a", "b"])
                session.commit()
                written.append(f"during {len(written)}")

    with ThreadPoolExecutor(1) as thread:
        writer = thread.submit(write)
        try:
            done = checkout.run("rag", "tenants", "migrate", "--json", database=database)
        finally:
            stop.set()
        writer.result()
    assert done.returncode == 0, done.stdout
    assert revisions(database) == dict.fromkeys((*NAMES, "ordinary"), revision)
    with Session(engine) as session:
        found = session.scalars(
            sa.text("SELECT article_id FROM rag_documents WHERE article_id LIKE 'during %'")
        )
        assert sorted(found) == sorted(written)
        assert_consistent(session)
    engine.dispose()


def test_health_names_triggers(database: Database) -> None:
    trigger = "TRIGGER rag_documents_mine ON acme.rag_documents"
    with connect(database) as connection:
        connection.execute("SET citus.enable_unsafe_triggers = on")
        connection.execute(
            "CREATE FUNCTION acme.mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'"
        )
        connection.execute(
            f"CREATE {trigger.replace(' ON', ' BEFORE INSERT ON')} FOR EACH ROW EXECUTE FUNCTION acme.mine()".encode()
        )
        try:
            warned = [finding for verdict, finding in findings(database, "acme") if verdict == "warning"]
            assert warned == ["1 trigger on tables that are on a node of Citus: rag_documents_mine"]
        finally:
            connection.execute(f"DROP {trigger}".encode())
            connection.execute("DROP FUNCTION acme.mine()")


def test_health_names_commits_that_a_move_would_lose(database: Database) -> None:
    _, other = other_node(database, "acme")
    here, there = locate("acme", database), locate(other, database)
    assert here is not None
    assert there is not None
    name = database.parameters["dbname"]
    for node in ({}, {"host": here.host, "port": here.port}):
        with connect_to(**node, dbname=name) as connection:
            connection.execute("SET citus.enable_ddl_propagation = off")
            connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())
            try:
                warned = [finding for verdict, finding in findings(database, "acme") if verdict == "warning"]
                assert len(warned) == 1
                assert "synchronous_commit is off" in warned[0]
                with pytest.raises(TenantRefused, match="synchronous_commit off"):
                    move_tenant("acme", there.host, there.port, database)
            finally:
                connection.execute(f"ALTER DATABASE {name} RESET synchronous_commit".encode())


def test_health_names_workers_that_listen_elsewhere(database: Database) -> None:
    odd = 'Acme "Inc"'
    create_tenant(odd, database)
    distribute_tenant(odd, database)
    with connect(database) as listener, connect(database) as other:
        listener.execute('LISTEN "rag_jobs_Acme ""Inc""";')
        other.execute("LISTEN rag_jobs_acme_inc")
        assert any("1 worker listens here" in finding for _, finding in findings(database, odd))
        assert findings(database, "acme")[1:] == []
        listener.execute("LISTEN rag_jobs_acme")
        warned = [finding for verdict, finding in findings(database, "acme") if verdict == "warning"]
        assert len(warned) == 1
        assert "1 worker listens here, and hears of no job" in warned[0]
        assert findings(database, "globex")[1:] == []
    drop_tenant(odd, database)
