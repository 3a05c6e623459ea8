"""Tenants that come back from a node of Citus into an ordinary schema: whole, or not at all.

In a database of their own on every node.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.orm import Session

from checkouts import made_role, wait_until
from citus_clusters import connect_to, made_cluster_database
from conftest import Command, connect, start_rag
from embedding_models import do_jobs
from publishing import assert_consistent, embed, publish_texts, read_current
from ragschema import chat, create_engine, jobs, migrations, nearest_chunks
from ragschema.database.citus import database_at
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.embedding_models import add_model, enqueue_backfill, index_model
from ragschema.errors import LockNotObtained, TenantRefused
from ragschema.graph import NewEntity, NewRelation, merge_entities, record_extraction
from ragschema.tenants import (
    create_tenant,
    distribute_tenant,
    drop_tenant,
    locate,
    undistribute_tenant,
)
from tenant_steps import STEPS
from tenant_steps import run as run_step

pytestmark = pytest.mark.citus

ODD = 'it\'s a "tenant"'
_TABLES = """
SELECT relname::text FROM pg_class WHERE relnamespace = quote_ident(%s)::regnamespace
AND relkind IN ('r', 'p') AND NOT relispartition
"""
_CHAT = (
    "INSERT INTO rag_chat_sessions (user_id) VALUES ('ann')",
    "INSERT INTO rag_chat_messages (session_id, role, content)"
    " SELECT id, 'user', 'How much? ' || n FROM rag_chat_sessions CROSS JOIN generate_series(1, 5) n",
    "DELETE FROM rag_chat_messages WHERE content = 'How much? 5'",
    "INSERT INTO rag_chat_feedback (message_id, user_id, rating, created_at)"
    " SELECT id, 'ann', 1, '2026-01-02Z' FROM rag_chat_messages",
    "INSERT INTO rag_chat_citations (message_id, number, is_cited, document_id, article_id, version_id,"
    " version_number, chunk_id, ordinal, content_hash, quote, score)"
    " SELECT m.id, 1, true, d.id, d.article_id, c.version_id, 1, c.id, 0, decode(repeat('00ff', 16), 'hex'), c.content,"
    " 1 / 3::float8"
    " FROM rag_chat_messages m CROSS JOIN rag_documents d JOIN rag_chunks c ON c.version_id = d.current_version_id"
    " WHERE d.article_id = 'worded' AND c.content = 'a heron'",
)
# What must be alike before and after, beside the rows; names only, for the oids are others.
_RIGHTS = """
WITH n AS (SELECT * FROM pg_namespace WHERE nspname = %(schema)s),
tables AS (SELECT c.* FROM pg_class c JOIN n ON n.oid = c.relnamespace WHERE relkind IN ('r', 'p', 'S'))
SELECT kind, name, part, pg_get_userbyid(owner)::text, ARRAY(SELECT unnest(acl)::text ORDER BY 1) FROM (
    SELECT 'schema', '', '', nspowner, nspacl FROM n
    UNION ALL SELECT relkind::text, relname::text, '', relowner, relacl FROM tables
    UNION ALL SELECT 'column', relname, attname, relowner, attacl
    FROM pg_attribute a JOIN tables ON tables.oid = attrelid
    UNION ALL SELECT 'function', proname, '', proowner, proacl FROM pg_proc JOIN n ON n.oid = pronamespace
    UNION ALL SELECT 'default', defaclobjtype::text, '', defaclrole, defaclacl
    FROM pg_default_acl JOIN n ON n.oid = defaclnamespace
) of (kind, name, part, owner, acl)
"""


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with made_cluster_database("back") as database:
        yield database


@pytest.fixture
def tenant(database: Database) -> Iterator[str]:
    """A tenant with some rows that is on a node."""
    create_tenant("acme", database)
    distribute_tenant("acme", database)
    with session_of(database, "acme") as session:
        publish_texts(session, "a", ["one", "two"])
        session.commit()
    yield "acme"
    drop_tenant("acme", database, allow_data_loss=True)


@contextmanager
def session_of(database: Database, schema: str) -> Iterator[Session]:
    engine = create_engine(database.libpq_url(), schema=schema)
    with Session(engine) as session:
        yield session
    engine.dispose()


def read_rows(database: Database, schema: str) -> dict[str, list[str]]:
    """Return every row of every table as text."""
    found = {}
    with connect(database) as connection:
        for (table,) in connection.execute(_TABLES, (schema,)).fetchall():
            rows = sql.SQL("SELECT each::text FROM {} each ORDER BY 1").format(sql.Identifier(schema, table))
            found[table] = [row for (row,) in connection.execute(rows).fetchall()]
    return found


def read_rights(database: Database, schema: str) -> list[tuple[Any, ...]]:
    with connect(database) as connection:
        return sorted(connection.execute(_RIGHTS, {"schema": schema}).fetchall())


def on_every_node(database: Database, statement: str) -> list[list[Any]]:
    with connect(database) as connection:
        nodes = connection.execute("SELECT nodename, nodeport FROM pg_dist_node ORDER BY 2").fetchall()
    found = []
    for host, port in nodes:
        with connect_to(host=host, port=port, dbname=database.parameters["dbname"]) as node:
            found.append([row[0] for row in node.execute(statement.encode()).fetchall()])
    return found


def leftovers(database: Database) -> list[list[Any]]:
    """Return what a node would have of a tenant that is half taken back."""
    return on_every_node(
        database,
        "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'rag\\_undistributed%'"
        " UNION ALL SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        " UNION ALL SELECT relname::text FROM pg_class WHERE relname ~ '^rag_.*_[0-9]{6}$' AND NOT EXISTS"
        " (SELECT FROM pg_dist_shard WHERE relname LIKE '%\\_' || shardid)",
    )


def fill(database: Database, schema: str) -> None:
    """Fill a tenant of a node: versions, embeddings of two models, an index, jobs, a chat, a graph, collections."""
    options = Options(database, schema=schema)
    engine = create_engine(database.libpq_url(), schema=schema)
    for step in (
        *("publish_a_next_version", "publish_places_metadata_and_source", "activate_another_version"),
        *("store_embeddings_that_were_to_come", "delete_and_undelete", "publish_many_documents", "collect"),
        *("enqueue_jobs", "do_claimed_jobs", "schedule_jobs", "record_facts", "converse", "change_the_model"),
    ):
        run_step(STEPS[step], engine, options)
    with Session(engine) as session:
        publish_texts(session, "worded", ["a heron", "the reeds"])
        session.commit()
        names = (("bird", "heron"), ("bird", "ardea"), ("plant", "reeds"))
        entities = [NewEntity(*name, aliases=[f"a {name[1]}"]) for name in names]
        lives = NewRelation(names[0], "lives in", names[2])
        record_extraction(session, read_current(session, "worded")[0].id, "x 1", entities, [lives])
        session.commit()
        kept, other = session.scalars(sa.text("SELECT id FROM rag_entities WHERE entity_type = 'bird'"))
        merge_entities(session, kept, other)
        session.commit()
        jobs.add_schedule(session, "nightly", "tidy", {}, every=timedelta(days=1))
        for statement in _CHAT:
            session.execute(sa.text(statement))
        session.commit()
    add_model(options, "kept", 16)
    add_model(options, "being built", 8, index_type="none")
    enqueue_backfill(options, "kept", batch=10)
    assert do_jobs(engine) > 0
    index_model(options, "kept")
    engine.dispose()


def test_a_tenant_comes_back_with_every_row_and_can_go_again(database: Database) -> None:
    create_tenant(ODD, database)
    node = distribute_tenant(ODD, database).after
    fill(database, ODD)
    came_back(database, ODD, node)
    drop_tenant(ODD, database, allow_data_loss=True)


def test_a_tenant_comes_back_with_its_owners_and_rights(database: Database) -> None:
    create_tenant("acme", database)
    reader = f"reader_of_{database.parameters['dbname']}"
    with (
        made_role(
            database,
            "GRANT USAGE ON SCHEMA acme TO _role_ WITH GRANT OPTION",
            "GRANT SELECT (id, article_id) ON acme.rag_documents TO _role_",
            "REVOKE EXECUTE ON FUNCTION acme.rag_words(text, text) FROM PUBLIC",
            "REVOKE INSERT ON acme.rag_jobs FROM CURRENT_USER",
            "ALTER TABLE acme.rag_chat_feedback OWNER TO _role_",
            f"CREATE ROLE {reader} LOGIN",
        ) as role,
        connect(database) as connection,
    ):
        roles = {"app": role.parameters["user"], "read_only": reader}
        try:
            migrations.apply_grants(database, **roles, schema="acme")
            distribute_tenant("acme", database)
            rights = read_rights(database, "acme")
            undistribute_tenant("acme", database)
            assert read_rights(database, "acme") == rights
            assert migrations.apply_grants(database, **roles, schema="acme").changed == ()
        finally:
            drop_tenant("acme", database, allow_data_loss=True)
            connection.execute(f"DROP OWNED BY {reader}".encode())
            connection.execute(f"DROP ROLE {reader}".encode())


def came_back(database: Database, schema: str, node: str | None) -> None:
    options = Options(database, schema=schema)
    rows = read_rows(database, schema)
    assert all(rows.values())
    dry = undistribute_tenant(schema, database, dry_run=True)
    assert (dry.is_dry_run, dry.before, dry.after, len(dry.triggers)) == (True, node, None, 21)
    assert dry.rows is not None
    assert (dry.rows.messages, dry.bytes is not None and dry.bytes > 500_000) == (4, True)
    assert locate(schema, database) is not None

    done = undistribute_tenant(schema, database)

    assert (done.is_dry_run, done.before, done.triggers, done.rows) == (False, node, dry.triggers, dry.rows)
    assert locate(schema, database) is None
    assert read_rows(database, schema) == rows
    assert migrations.verify(options).is_clean
    assert migrations.verify_data(options) == []
    assert leftovers(database) == [[], [], []]
    works_on(database, schema)
    rows = read_rows(database, schema)
    assert distribute_tenant(schema, database).triggers == done.triggers
    assert read_rows(database, schema) == rows
    assert migrations.verify(options).is_clean


def works_on(database: Database, schema: str) -> None:
    """Publish, search, work and say on; SQL by hand leaves the rest to triggers again."""
    with session_of(database, schema) as session:
        publish_texts(session, "after", ["a heron that came after"])
        session.commit()
        hit = session.execute(nearest_chunks(embed("a heron that came after"), limit=1)).one()
        assert hit.article_id == "after"
        jobs.enqueue(session, "after", {})
        (job,) = jobs.claim(session, "w", ["after"])
        assert jobs.complete(session, job)
        session.commit()
        # the fifth message was deleted, and its number is given to no other
        position = "INSERT INTO rag_chat_messages (session_id, role, content) SELECT id, 'user', 'On'"
        position += " FROM rag_chat_sessions RETURNING position"
        last = session.scalar(sa.text("SELECT max(position) FROM rag_chat_messages"))
        assert session.scalar(sa.text(position)) == last + 2
        session.commit()
        talk = session.scalar(sa.text("SELECT id FROM rag_chat_sessions"))
        chat.add_message(session, talk, chat.NewMessage("user", "And after?"), citations=[hit])
        session.commit()
        session.execute(
            sa.text("UPDATE rag_documents SET current_version_id = NULL WHERE article_id = 'after'")
        )
        session.commit()
        assert_consistent(session)
    models = [
        each.id for each in (add_model(Options(database, schema=schema), "later", 8, index_type="none"),)
    ]
    with connect(database) as connection:
        ids = sql.SQL("SELECT max(id) FROM {} WHERE key <> 'later'").format(
            sql.Identifier(schema, "rag_embedding_models")
        )
        assert connection.execute(ids).fetchone() == (models[0] - 1,)


def test_numbers_that_a_node_gave_are_not_given_again(database: Database, tenant: str) -> None:
    place = locate(tenant, database)
    assert place is not None
    insert = "INSERT INTO acme.rag_chat_messages (session_id, role, content) VALUES (%s, 'user', 'x')"
    insert += " RETURNING position"
    with connect(database) as connection:
        (session,) = connection.execute(
            "INSERT INTO acme.rag_chat_sessions (user_id) VALUES ('ann') RETURNING id"
        ).fetchone() or (None,)
        name = database.parameters["dbname"]
        with connect_to(host=place.host, port=place.port, dbname=name) as node:
            given = [(node.execute(insert, (session,)).fetchone() or (0,))[0] for _ in range(3)]
            node.execute("DELETE FROM acme.rag_chat_messages WHERE position = %s", (given[-1],))
        undistribute_tenant(tenant, database)
        assert (connection.execute(insert, (session,)).fetchone() or (0,))[0] == given[-1] + 1


def test_a_writer_loses_nothing_while_its_tenant_comes_back(database: Database, tenant: str) -> None:
    stop, written = threading.Event(), list[str]()
    started = threading.Event()

    def write() -> None:
        with session_of(database, tenant) as session:
            while not stop.is_set():
                article = f"during {len(written)}"
                publish_texts(session, article, ["a", article])
                session.commit()
                written.append(article)
                started.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert started.wait(60)
        undistribute_tenant(tenant, database)
        reached = len(written)
        wait_until(lambda: len(written) > reached + 3 or not writer.is_alive(), "the writer went on")
    finally:
        stop.set()
        writer.join()
    assert len(written) > reached + 3, "the writer did not go on"
    with session_of(database, tenant) as session:
        found = session.scalars(
            sa.text("SELECT article_id FROM rag_documents WHERE article_id LIKE 'during %'")
        )
        assert sorted(found) == sorted(written)
        assert_consistent(session)
    assert migrations.verify_data(Options(database, schema=tenant)) == []


def test_what_the_node_has_acknowledged_comes_back(database: Database, tenant: str) -> None:
    """A writer who speaks to the node itself is told that its tables are there no more."""
    started, written, told = threading.Event(), list[str](), list[sa.exc.DBAPIError]()
    engine = create_engine(database.libpq_url(), tenant=tenant)

    def write() -> None:
        with Session(engine) as session:
            while True:
                article = f"near {len(written)}"
                publish_texts(session, article, ["a", article])
                session.commit()
                written.append(article)
                started.set()

    def write_until_told() -> None:
        try:
            write()
        except sa.exc.DBAPIError as exc:
            told.append(exc)

    writer = threading.Thread(target=write_until_told)
    writer.start()
    assert started.wait(60)
    undistribute_tenant(tenant, database)
    writer.join(60)
    engine.dispose()
    assert len(told) == 1
    with session_of(database, tenant) as session:
        found = session.scalars(
            sa.text("SELECT article_id FROM rag_documents WHERE article_id LIKE 'near %'")
        )
        assert sorted(found) == sorted(written)
        assert_consistent(session)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_ended_in_the_middle_it_is_on_its_node_as_before(
    database: Database, tenant: str, tmp_path: Path, sent: signal.Signals
) -> None:
    rows, rights = read_rows(database, tenant), read_rights(database, tenant)
    place = locate(tenant, database)
    at_work = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND query LIKE 'DROP SCHEMA%'"
    )
    with connect(database) as holder, connect(database) as looker:
        holder.execute("BEGIN")
        # so that all is done but the end of the old schema
        holder.execute("TABLE acme.rag_chat_messages_position_seq")
        told = {"DATABASE_URL": database.libpq_url()}
        with start_rag("tenants", "undistribute", tenant, "--yes", cwd=tmp_path, **told) as process:
            wait_until(lambda: looker.execute(at_work).fetchone() is not None, "the old schema is dropped")
            (pid,) = looker.execute(at_work).fetchone() or (0,)
            process.send_signal(sent)
            _, said = process.communicate(60)
        assert ("nothing was changed" in said) is (sent != signal.SIGKILL), said
        alive = "SELECT FROM pg_stat_activity WHERE pid = %s"
        wait_until(lambda: looker.execute(alive, (pid,)).fetchone() is None, "its backend ended")
        holder.execute("ROLLBACK")
    assert locate(tenant, database) == place
    assert (read_rows(database, tenant), read_rights(database, tenant)) == (rows, rights)
    assert leftovers(database) == [[], [], []]
    assert undistribute_tenant(tenant, database).triggers
    assert read_rows(database, tenant) == rows


@pytest.mark.parametrize("of_node", [False, True], ids=["here", "on the node"])
def test_it_gives_way_to_who_reads_and_says_so(database: Database, tenant: str, of_node: bool) -> None:
    place = locate(tenant, database)
    assert place is not None
    read_by = database_at(database, place) if of_node else database
    options = Options(database, lock_timeout=0.2, retries=0)
    with connect(read_by) as reader, reader.transaction():
        reader.execute("SELECT count(*) FROM acme.rag_jobs")
        with pytest.raises(LockNotObtained, match="was not dropped"):
            drop_tenant(tenant, options, allow_data_loss=True)
        with pytest.raises(LockNotObtained, match="was not taken back; nothing was changed") as refused:
            undistribute_tenant(tenant, options)
        assert ("Blocked by pid" in refused.value.evidence) is not of_node
    assert locate(tenant, database) == place
    assert undistribute_tenant(tenant, options).triggers


def test_the_command_says_what_it_would_do_and_what_it_has_done(
    run: Command, database: Database, tenant: str
) -> None:
    place = locate(tenant, database)
    assert place is not None
    told = {"DATABASE_URL": database.libpq_url()}
    for option, last in (("--wait-lock=1s", "Nothing was changed: add --yes."), ("--yes", "")):
        done = run("rag", "tenants", "undistribute", tenant, option, **told)
        lines = done.stdout.splitlines()
        assert lines[0] == f"acme: from {place.host}:{place.port} to this database", done.stderr
        assert lines[1].startswith(
            "Copied, while all who read or write it wait: 1 document, 2 chunks, 3 other rows ("
        ), lines
        assert lines[2].startswith("21 triggers made again: rag_chunk_events_deleted, ")
        assert lines[3:] == [last] * bool(last)
    distribute_tenant(tenant, database)
    done = run("rag", "tenants", "undistribute", tenant, "--yes", "--json", **told)
    placed = json.loads(done.stdout)
    assert (placed["is_dry_run"], placed["after"], placed["rows"]["chunks"]) == (False, None, 2)
    assert locate(tenant, database) is None


def test_back_from_its_node_it_goes_as_far_back_as_everywhere(database: Database, tenant: str) -> None:
    undistribute_tenant(tenant, database)
    migrations.downgrade(database, "20261128170040", schema=tenant, allow_data_loss=True)
    migrations.upgrade(database, schema=tenant)
    assert migrations.verify(database, schema=tenant).is_clean


def test_who_is_no_superuser_takes_its_own_tenant_back(database: Database) -> None:
    name = database.parameters["dbname"]
    with made_role(database, f"GRANT CREATE ON DATABASE {name} TO _role_") as role:
        create_tenant("own", role)
        distribute_tenant("own", role)
        with session_of(role, "own") as session:
            publish_texts(session, "a", ["one"])
            session.commit()
        rows = read_rows(role, "own")
        undistribute_tenant("own", role)
        assert (read_rows(role, "own"), locate("own", role)) == (rows, None)
        drop_tenant("own", role, allow_data_loss=True)


@pytest.mark.parametrize(
    ("made", "named", "ended"),
    [
        (
            "CREATE VIEW public.theirs AS SELECT id FROM acme.rag_documents",
            "view theirs depends on rag_documents.id",
            "DROP VIEW public.theirs",
        ),
        ("CREATE TABLE acme.theirs (n int)", "table theirs", "DROP TABLE acme.theirs"),
        (
            "CREATE INDEX theirs ON acme.rag_jobs (priority)",
            "index rag_jobs.theirs is not expected",
            "DROP INDEX acme.theirs",
        ),
        (
            "ALTER TABLE acme.rag_jobs SET (autovacuum_enabled = false)",
            "parameter rag_jobs.autovacuum_enabled is not expected",
            "ALTER TABLE acme.rag_jobs RESET (autovacuum_enabled)",
        ),
        (
            "ALTER TABLE acme.rag_jobs ADD COLUMN theirs int",
            "column rag_jobs.theirs is not expected",
            "ALTER TABLE acme.rag_jobs DROP COLUMN theirs",
        ),
        (
            "COMMENT ON FUNCTION acme.rag_words(text, text) IS 'theirs'",
            "comment on function rag_words(text,text)",
            "COMMENT ON FUNCTION acme.rag_words(text, text) IS NULL",
        ),
        (
            "CREATE POLICY theirs ON acme.rag_jobs USING (true)",
            "policy rag_jobs.theirs is not expected",
            "DROP POLICY theirs ON acme.rag_jobs",
        ),
        (
            "CREATE INDEX theirs ON acme.rag_migration_history (revision)",
            "index theirs",
            "DROP INDEX acme.theirs",
        ),
        (
            "COMMENT ON INDEX acme.rag_jobs_pkey IS 'theirs'",
            "comment on index rag_jobs_pkey",
            "COMMENT ON INDEX acme.rag_jobs_pkey IS NULL",
        ),
        (
            "CREATE STATISTICS acme.theirs ON status, priority FROM acme.rag_jobs",
            "statistics theirs of rag_jobs",
            "DROP STATISTICS acme.theirs",
        ),
        (
            "CREATE PUBLICATION theirs FOR TABLE acme.rag_jobs",
            "publication theirs of rag_jobs",
            "DROP PUBLICATION theirs",
        ),
    ],
    ids=[
        "view",
        "table",
        "index",
        "parameter",
        "column",
        "comment",
        "policy",
        "history",
        "comment of index",
        "statistics",
        "publication",
    ],
)
def test_nothing_of_others_is_lost(
    database: Database, tenant: str, made: str, named: str, ended: str
) -> None:
    rows, place = read_rows(database, tenant), locate(tenant, database)
    with connect(database) as connection:
        connection.execute(made.encode())
        try:
            for dry_run in (True, False):
                with pytest.raises(TenantRefused) as refused:
                    undistribute_tenant(tenant, database, dry_run=dry_run)
                assert named in refused.value.evidence, refused.value
                assert "Nothing was changed." in refused.value.remedy
        finally:
            connection.execute(ended.encode())
    assert (read_rows(database, tenant), locate(tenant, database)) == (rows, place)


def test_a_tenant_is_an_ordinary_schema_where_citus_places_every_new_one(database: Database) -> None:
    name = database.parameters["dbname"]
    with connect(database) as connection:
        connection.execute(f"ALTER DATABASE {name} SET citus.enable_schema_based_sharding = on".encode())
        try:
            create_tenant("fresh", database)
            assert locate("fresh", database) is None
            distribute_tenant("fresh", database)
            undistribute_tenant("fresh", database)
            assert locate("fresh", database) is None
            assert migrations.verify(database, schema="fresh").is_clean
            drop_tenant("fresh", database)
            migrations.upgrade(database, schema="fresh")
            assert locate("fresh", database) is None
            drop_tenant("fresh", database)
        finally:
            connection.execute(f"ALTER DATABASE {name} RESET citus.enable_schema_based_sharding".encode())


def test_only_the_coordinator_places_tenants(database: Database, tenant: str) -> None:
    place = locate(tenant, database)
    assert place is not None
    for change in (undistribute_tenant, distribute_tenant):
        with pytest.raises(TenantRefused, match="not on its coordinator") as refused:
            change(tenant, database_at(database, place), dry_run=True)
        assert database.parameters["port"] in refused.value.remedy


def test_only_a_tenant_of_a_node_at_head_is_taken_back(database: Database, tenant: str) -> None:
    migrations.downgrade(database, "-1", schema=tenant)
    with pytest.raises(TenantRefused, match="is at 20261128180010, and one that is taken back"):
        undistribute_tenant(tenant, database)
    migrations.upgrade(database, schema=tenant)
    undistribute_tenant(tenant, database)
    for dry_run in (True, False):
        with pytest.raises(TenantRefused, match="is on no node of Citus"):
            undistribute_tenant(tenant, database, dry_run=dry_run)
