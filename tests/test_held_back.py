"""Databases that are held back: contract revisions passed over, remembered as owed, and run when they may be."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from checkouts import ADD_COLUMN, Checkout, made_role, rows, wait_until
from conftest import ROOT, Command, DatabaseAt, connect, dump_schema
from ragschema import migrations
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.errors import DataLossRefused, DriftFound, PlanStale, RowsHidden
from ragschema.migrations.health import check_health
from ragschema.planning.document import read_plan
from ragschema.revisions.manifest import read_manifest
from ragschema.state.expected import expected, read_changes

BEFORE_CONTRACTS = "20261121130600"
CONTRACTS = tuple(each.revision for each in read_manifest().revisions if each.deploy == "contract")
HELD_BACK_INDEXES = ["rag_chunks_embedding_idx", "rag_jobs_status_created_at_idx"]
DROP_COLUMN = 'op.drop_column("rag_chunks", "note")'
COMMANDS = pytest.mark.parametrize(
    "command",
    [("rag", "migrate", "--expand-only"), ("alembic", "-x", "expand-only=yes", "upgrade", "head")],
    ids=["rag", "alembic"],
)


class Three:
    """Three revisions of a test: a column, a contract that drops it, and a fix behind that."""

    def __init__(self, checkout: Checkout) -> None:
        self.column = checkout.add(ADD_COLUMN, DROP_COLUMN)
        self.contract = checkout.add(DROP_COLUMN, ADD_COLUMN, deploy="contract")
        self.fix = checkout.add(
            "op.execute(\"COMMENT ON TABLE rag_chunks IS 'fixed'\")",
            "op.execute('COMMENT ON TABLE rag_chunks IS NULL')",
        )


def is_fixed(connection: psycopg.Connection[psycopg.rows.TupleRow]) -> bool:
    return rows(connection, "SELECT obj_description('rag_chunks'::regclass)") == ["fixed"]


def has_column(connection: psycopg.Connection[psycopg.rows.TupleRow]) -> bool:
    statement = "SELECT FROM pg_attribute WHERE attrelid = 'rag_chunks'::regclass AND attname = 'note'"
    return connection.execute(statement).fetchone() is not None


def recorded(connection: psycopg.Connection[psycopg.rows.TupleRow], revision: str) -> list[object]:
    statement = "SELECT direction FROM rag_migration_history WHERE revision = %s AND succeeded ORDER BY id"
    return rows(connection, statement, revision)


def indexes(connection: psycopg.Connection[psycopg.rows.TupleRow]) -> list[object]:
    statement = "SELECT relname::text FROM pg_class WHERE relname = ANY(%s) ORDER BY 1"
    return rows(connection, statement, HELD_BACK_INDEXES)


# the runner


@COMMANDS
def test_expand_only_passes_over_contract_revisions_and_remembers_them(
    checkout: Checkout, database: Database, command: tuple[str, ...]
) -> None:
    three = Three(checkout)
    result = checkout.run(*command, database=database)
    assert result.returncode == 0, result.stderr
    status = migrations.status(database)
    assert (status.state, status.current, status.pending) == ("PENDING", three.fix, ())
    assert [(each.revision, each.deploy) for each in status.owed] == [(three.contract, "contract")]
    with connect(database) as connection:
        assert (is_fixed(connection), has_column(connection)) == (True, True)
        assert recorded(connection, three.contract) == ["defer"]
    again = migrations.upgrade(database, expand_only=True)
    assert (again.applied, again.current, again.owed) == ([], three.fix, (three.contract,))
    migrations.wait(database, timeout=30)

    whole = command[:-1] if command[0] == "rag" else ("alembic", "upgrade", "head")
    result = checkout.run(*whole, database=database)
    assert result.returncode == 0, result.stderr
    with connect(database) as connection:
        assert not has_column(connection)
        assert recorded(connection, three.contract) == ["defer", "upgrade"]
    status = migrations.status(database)
    assert (status.state, status.current, status.owed) == ("OK", three.fix, ())


def test_what_is_owed_runs_before_what_is_pending(checkout: Checkout, database: Database) -> None:
    three = Three(checkout)
    migrations.upgrade(database, expand_only=True)
    last = checkout.add("op.execute('SELECT 1')")
    assert [each.revision for each in migrations.upgrade(database).applied] == [three.contract, last]


def test_what_is_owed_ends_where_the_upgrade_ends(checkout: Checkout, database: Database) -> None:
    three = Three(checkout)
    second = checkout.add("op.execute('SELECT 1')", deploy="contract")
    migrations.upgrade(database, expand_only=True)
    result = migrations.upgrade(database, three.fix)
    assert ([each.revision for each in result.applied], result.owed) == ([three.contract], (second,))


def test_an_owed_revision_that_would_destroy_values_is_refused(
    checkout: Checkout, database: Database
) -> None:
    Three(checkout)
    migrations.upgrade(database, expand_only=True)
    with connect(database) as connection:
        connection.execute("INSERT INTO rag_documents (article_id) VALUES ('a')")
        connection.execute(
            "INSERT INTO rag_document_versions"
            " (document_id, version_number, source_hash, chunker_version, embedder_version)"
            " SELECT id, 1, 'h', 'c', 'e' FROM rag_documents"
        )
        connection.execute(
            "INSERT INTO rag_chunks (version_id, ordinal, content, note)"
            " SELECT id, 0, 'text', 'kept' FROM rag_document_versions"
        )
        with pytest.raises(DataLossRefused) as refused:
            migrations.upgrade(database)
        assert "1 value of rag_chunks.note" in str(refused.value.evidence) + refused.value.message
        assert rows(connection, "SELECT note FROM rag_chunks") == ["kept"]
        assert migrations.status(database).owed
        migrations.upgrade(database, allow_data_loss=True)
        assert not has_column(connection)
        assert not migrations.status(database).owed


def test_an_owed_revision_that_fails_is_rolled_back_recorded_and_still_owed(
    checkout: Checkout, database: Database
) -> None:
    failing = checkout.add(f"{ADD_COLUMN}\nop.execute('SELECT 1/0')", deploy="contract")
    migrations.upgrade(database, expand_only=True)
    with pytest.raises(Exception, match=f"Revision {failing} failed and was rolled back"):
        migrations.upgrade(database)
    status = migrations.status(database)
    assert [each.revision for each in status.owed] == [failing]
    assert status.last_failure is not None
    assert (status.last_failure.revision, status.last_failure.direction) == (failing, "upgrade")
    with connect(database) as connection:
        assert not has_column(connection)


def test_an_owed_revision_with_an_autocommit_block_gives_way_and_tries_again(
    checkout: Checkout, database: Database
) -> None:
    contract = checkout.add(
        'drop_concurrent_index("rag_documents_pkey_copy")\n' + ADD_COLUMN, deploy="contract"
    )
    with connect(database) as connection:
        connection.execute("CREATE INDEX rag_documents_pkey_copy ON rag_documents (id)")
        migrations.upgrade(database, expand_only=True)
        with connection.transaction():
            connection.execute("SELECT count(*) FROM rag_chunks")
            process = checkout.start("rag", "migrate", "--lock-timeout", "0.2s", database=database)
            wait_until(
                lambda: (
                    process.poll() is not None
                    or rows(connection, "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'relation'")
                ),
                "the owed revision to wait",
            )
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert (has_column(connection), recorded(connection, contract)) == (True, ["defer", "upgrade"])


def test_killed_between_a_deferral_and_what_follows_the_next_run_goes_on(
    checkout: Checkout, database: Database
) -> None:
    contract = checkout.add(ADD_COLUMN, DROP_COLUMN, deploy="contract")
    slow = checkout.add("op.execute('SELECT pg_sleep(60)')")
    process = checkout.start("rag", "migrate", "--expand-only", database=database)
    with connect(database) as connection:
        wait_until(
            lambda: rows(
                connection,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%%'"
                " AND datname = current_database()",
            ),
            "the revision behind the contract",
        )
        process.kill()
        process.communicate()
        assert recorded(connection, contract) == ["defer"]
        assert migrations.status(database).current == contract
        checkout.file(slow).write_text(checkout.file(slow).read_text().replace("pg_sleep(60)", "1"))
        assert [each.revision for each in migrations.upgrade(database, expand_only=True).applied] == [slow]
        assert recorded(connection, contract) == ["defer"]
        assert [each.revision for each in migrations.upgrade(database).applied] == [contract]


# rollback, stamp, adopt


def test_a_rollback_past_an_owed_revision_does_not_reverse_what_was_never_done(
    checkout: Checkout, database: Database
) -> None:
    before = dump_schema(database)
    three = Three(checkout)
    migrations.upgrade(database, expand_only=True)
    foreseen = migrations.foresee_rollback(database, checkout.base)
    assert [(each.revision, each.is_owed) for each in foreseen.reversals] == [
        (three.fix, False),
        (three.contract, True),
        (three.column, False),
    ]
    result = migrations.downgrade(database, checkout.base)
    assert [each.revision for each in result.applied] == [three.fix, three.column]
    assert dump_schema(database) == before
    with connect(database) as connection:
        assert recorded(connection, three.contract) == ["defer", "settle"]
    assert migrations.status(database).owed == ()
    assert [each.revision for each in migrations.upgrade(database).applied] == [
        three.column,
        three.contract,
        three.fix,
    ]


def test_a_stamp_settles_only_what_the_tables_show(database_at: DatabaseAt) -> None:
    database = database_at(BEFORE_CONTRACTS)
    migrations.upgrade(database, expand_only=True)
    migrations.stamp(database, read_manifest().head)
    assert migrations.upgrade(database, expand_only=True).owed == CONTRACTS
    migrations.stamp(database, BEFORE_CONTRACTS, force=True)
    assert migrations.status(database).owed == ()
    migrations.stamp(database, read_manifest().head)
    assert migrations.upgrade(database, expand_only=True).owed == CONTRACTS
    with connect(database) as connection:
        connection.execute("DROP INDEX rag_jobs_status_created_at_idx")
    assert migrations.verify(database).count == 1
    adoption = migrations.adopt(database)
    assert (adoption.revision, adoption.was_managed) == (read_manifest().head, False)
    assert migrations.verify(database).is_clean
    assert migrations.upgrade(database, expand_only=True).owed == CONTRACTS[1:]


def test_a_stamp_of_tables_that_neither_owe_nor_have_a_contract_is_refused(database_at: DatabaseAt) -> None:
    database = database_at(BEFORE_CONTRACTS)
    migrations.upgrade(database, expand_only=True)
    with connect(database) as connection:
        connection.execute("ALTER TABLE rag_jobs DROP COLUMN priority CASCADE")
    with pytest.raises(DriftFound, match="not those of revision"):
        migrations.stamp(database, read_manifest().head)


def test_adopt_finds_the_revision_of_a_database_that_owes_and_lost_its_version_row(
    database_at: DatabaseAt,
) -> None:
    database = database_at(BEFORE_CONTRACTS)
    migrations.upgrade(database, expand_only=True)
    with connect(database) as connection:
        connection.execute("DELETE FROM rag_alembic_version")
    last = {each.revision for each in read_manifest().revisions[-2:]}  # without what is owed they are alike
    assert migrations.adopt(database).revision in last
    assert migrations.upgrade(database, expand_only=True).owed == CONTRACTS


# our own revisions


def test_models_are_not_compared_with_tables_that_hold_something_back(
    database_at: DatabaseAt, run: Command
) -> None:
    database = database_at(BEFORE_CONTRACTS)
    migrations.upgrade(database, expand_only=True)
    check = ("alembic", "-c", str(ROOT / "alembic.ini"), "check")
    refused = run(*check, DATABASE_URL=database.libpq_url())
    assert refused.returncode != 0
    assert f"a database without what {', '.join(CONTRACTS)} would remove" in refused.stdout + refused.stderr
    migrations.upgrade(database)
    assert run(*check, DATABASE_URL=database.libpq_url()).returncode == 0


def test_every_fix_reaches_a_database_that_is_held_back(database_at: DatabaseAt, database: Database) -> None:
    held_back = database_at(BEFORE_CONTRACTS)
    migrations.upgrade(held_back, expand_only=True)
    with connect(held_back) as connection, connect(database) as other:
        assert indexes(connection) == HELD_BACK_INDEXES
        bodies = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname LIKE 'rag\\_%%' ORDER BY 1"
        assert rows(connection, bodies) == rows(other, bodies)
        status = migrations.status(held_back)
        assert (status.current, tuple(each.revision for each in status.owed)) == (status.head, CONTRACTS)
        drift = migrations.verify(held_back)
        assert (drift.differences, drift.notes) == ((), ())
        (revision,) = (each for each in check_health(Options(held_back)) if each.name == "revision")
        assert revision.finding == f"at head {status.head}; held back: {', '.join(CONTRACTS)}"
        assert [each.revision for each in migrations.upgrade(held_back).applied] == [*CONTRACTS]
        assert indexes(connection) == []
    drift = migrations.verify(held_back)
    assert (drift.differences, drift.notes) == ((), ())
    assert migrations.status(held_back).state == "OK"


def test_no_later_revision_changes_what_a_contract_revision_changes() -> None:
    changes = read_changes()
    overlapping = [
        (contract, later, name)
        for contract in CONTRACTS
        for later in changes
        if later > contract
        for name in changes[contract].keys() & changes[later].keys()
    ]
    assert overlapping == []  # else a database that owes the contract has neither's catalogue


def test_the_catalogue_of_a_database_that_owes_has_what_the_contracts_drop() -> None:
    head = read_manifest().head
    dropped = {name for each in CONTRACTS for name in read_changes()[each]}
    assert dropped <= expected(head, CONTRACTS).keys()
    assert not dropped & expected(head).keys()


# what is shown


def test_plan_shows_what_is_owed_and_what_it_would_pass_over(
    checkout: Checkout, database: Database, tmp_path: Path
) -> None:
    three = Three(checkout)
    plans = {"expand": tmp_path / "expand.json", "whole": tmp_path / "whole.json"}
    planned = checkout.run(
        *("rag", "migrate", "plan", "--expand-only", "--out", str(plans["expand"])), database=database
    )
    assert f"Passes over contract revisions: {three.contract}." in planned.stdout
    plan = read_plan(plans["expand"])
    assert [each.revision for each in plan.revisions] == [three.column, three.fix]
    assert plan.target == three.fix
    done = checkout.run("rag", "migrate", "--plan", str(plans["expand"]), database=database)
    assert done.returncode == 0, done.stderr
    assert f"Held back: {three.contract}. Run `rag migrate` when" in done.stdout
    checkout.run("rag", "migrate", "plan", "--out", str(plans["whole"]), database=database)
    assert [each.revision for each in read_plan(plans["whole"]).revisions] == [three.contract]
    done = checkout.run("rag", "migrate", "--plan", str(plans["whole"]), database=database)
    assert done.returncode == 0, done.stderr
    assert migrations.status(database).owed == ()
    overtaken = checkout.run("rag", "migrate", "--plan", str(plans["whole"]), database=database)
    assert overtaken.returncode == PlanStale.exit_code


def test_status_history_and_migrate_name_what_is_held_back(checkout: Checkout, database: Database) -> None:
    three = Three(checkout)
    migrations.upgrade(database, expand_only=True)
    status = checkout.run("rag", "migrate", "status", "--exit-code", database=database)
    assert status.returncode == 3
    assert f"held back\t{three.contract}\tcontract: Added by a test" in status.stdout
    again = checkout.run("rag", "migrate", "--expand-only", database=database)
    assert "Nothing to do" in again.stdout
    assert f"Held back: {three.contract}." in again.stdout
    (entry,) = (each for each in migrations.history(database) if each.revision == three.contract)
    assert (entry.is_applied, entry.is_owed) == (False, True)
    assert (
        f"{three.contract}\theld back\t"
        in checkout.run("rag", "migrate", "history", database=database).stdout
    )
    rolled = checkout.run("rag", "migrate", "rollback", checkout.base, "--yes", database=database)
    assert f"{three.contract}  Added by a test: was never run" in rolled.stderr


def test_a_history_that_is_hidden_is_not_taken_for_one_without_debts(
    database_at: DatabaseAt, caplog: pytest.LogCaptureFixture
) -> None:
    database = database_at(BEFORE_CONTRACTS)
    migrations.upgrade(database, expand_only=True)
    with made_role(database, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO _role_") as service:
        assert migrations.upgrade(service, expand_only=True).owed == CONTRACTS
        with connect(database) as connection:
            connection.execute("ALTER TABLE rag_migration_history ENABLE ROW LEVEL SECURITY")
        with pytest.raises(RowsHidden, match="rag_migration_history"):
            migrations.upgrade(service)
        with pytest.raises(RowsHidden, match="rag_migration_history"):
            migrations.history(service)
        with caplog.at_level("WARNING", "ragschema"):
            assert migrations.status(service).owed == ()
        assert "hides rows of rag_migration_history" in caplog.text
        assert "What is held back, and what has failed, is not known." in caplog.text
        migrations.wait(service, timeout=30)
