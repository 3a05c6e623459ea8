"""Partitions of embedding models beside what looks at a schema: verify, repair, autogenerate, dumps, guards."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import sqlalchemy as sa

from conftest import ROOT, Command, connect, made_database
from embedding_models import DIMENSIONS, do_jobs, write_chunks
from ragschema import embedded, migrations
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.embedding_models import (
    activate_model,
    add_model,
    enqueue_backfill,
    index_model,
    list_models,
)
from ragschema.errors import DataLossRefused
from ragschema.migrations.health import check_health
from ragschema.migrations.repair import repair
from ragschema.revisions.manifest import read_manifest

BEFORE = "20261128110220"


@pytest.fixture
def filled(database: Database, engine: sa.Engine) -> Database:
    """A database with the column, an active model with an index, and one of each other kind that is being built."""
    write_chunks(database, 3)
    add_model(database, "active", DIMENSIONS)
    enqueue_backfill(database, "active")
    do_jobs(engine)
    index_model(database, "active")
    activate_model(database, "active")
    for index_type, distance in (("vector", "l2"), ("bit", "cosine"), ("none", "inner_product")):
        add_model(database, index_type, 24, index_type=index_type, distance=distance)  # type: ignore[arg-type]
    index_model(database, "bit")
    return database


def differences(database: Database) -> list[str]:
    return [each.object for each in migrations.verify(database).differences]


def test_partitions_are_what_every_look_expects(filled: Database, run: Command) -> None:
    assert migrations.verify(filled).is_clean
    assert migrations.verify(filled).notes == ()
    assert migrations.status(filled).state == "OK"
    assert {check.verdict for check in check_health(Options(filled)) if check.name != "others"} <= {
        "ok",
        "warning",
    }
    assert [check.finding for check in check_health(Options(filled)) if check.name == "drift"] == ["none"]
    checked = run("alembic", "-c", str(ROOT / "alembic.ini"), "check", DATABASE_URL=filled.libpq_url())
    assert checked.returncode == 0, checked.stdout + checked.stderr
    migrations.stamp(filled, "base", force=True)
    assert migrations.adopt(filled).revision == read_manifest().head


@pytest.mark.parametrize(
    ("change", "objects"),
    [
        (
            "DROP INDEX rag_chunk_embeddings_2_idx",
            ["index rag_chunk_embeddings_2.rag_chunk_embeddings_2_idx"],
        ),
        ("DROP INDEX rag_chunk_embeddings_4_idx", []),  # of a model that is being built
        (
            "ALTER TABLE rag_chunk_embeddings_2 DROP CONSTRAINT rag_chunk_embeddings_2_dimensions_check",
            ["constraint rag_chunk_embeddings_2.rag_chunk_embeddings_2_dimensions_check"],
        ),
        (  # as partitions were made before
            "ALTER TABLE rag_chunk_embeddings_2 DROP CONSTRAINT rag_chunk_embeddings_2_norm_check,"
            " ADD CONSTRAINT rag_chunk_embeddings_2_norm_check CHECK (l2_norm(embedding) > 0)",
            [],
        ),
        (
            "ALTER TABLE rag_chunk_embeddings_2 DROP CONSTRAINT rag_chunk_embeddings_2_norm_check,"
            " ADD CONSTRAINT rag_chunk_embeddings_2_norm_check CHECK (l2_norm(embedding) > -1)",
            ["constraint rag_chunk_embeddings_2.rag_chunk_embeddings_2_norm_check"],
        ),
        ("DROP TABLE rag_chunk_embeddings_3", ["table rag_chunk_embeddings_3"]),
        ("DELETE FROM rag_embedding_models WHERE id = 3", ["table rag_chunk_embeddings_3"]),
        (
            "UPDATE rag_embedding_models SET dimensions = 17, hnsw_m = 8 WHERE id = 2",
            [
                "constraint rag_chunk_embeddings_2.rag_chunk_embeddings_2_dimensions_check",
                "index rag_chunk_embeddings_2.rag_chunk_embeddings_2_idx",
            ],
        ),
        (
            "CREATE TABLE rag_chunk_embeddings_others PARTITION OF rag_chunk_embeddings DEFAULT",
            ["table rag_chunk_embeddings_others"],
        ),
    ],
)
def test_what_the_registry_does_not_say_is_drift(filled: Database, change: str, objects: list[str]) -> None:
    with connect(filled) as connection:
        connection.execute(change.encode())
    assert differences(filled) == objects


def test_repair_builds_what_is_searched_and_drops_what_a_failed_build_left(filled: Database) -> None:
    with connect(filled) as connection:
        connection.execute("DROP INDEX rag_chunk_embeddings_2_idx")
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'rag_chunk_embeddings_4_idx'::regclass"
        )
    found = repair(Options(filled))
    assert (found.rebuilt, found.dropped) == (
        ("rag_chunk_embeddings_2_idx",),
        ("rag_chunk_embeddings_4_idx",),
    )
    assert migrations.verify(filled).is_clean
    with connect(filled) as connection:
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'rag_chunk_embeddings_2_idx'::regclass"
        )
    assert repair(Options(filled)).rebuilt == ("rag_chunk_embeddings_2_idx",)
    assert migrations.verify(filled).is_clean


def test_a_dump_with_partitions_restores_as_it_was(
    server: Mapping[str, str], filled: Database, tmp_path: Path
) -> None:
    dump = tmp_path / "all.dump"
    subprocess.run(
        [embedded.program("pg_dump"), "--format=custom", f"--file={dump}", f"--dbname={filled.libpq_url()}"],
        check=True,
    )
    with made_database(server) as restored:
        subprocess.run(
            [embedded.program("pg_restore"), "--exit-on-error", f"--dbname={restored.libpq_url()}", dump],
            check=True,
        )
        assert migrations.verify(restored).is_clean
        assert list_models(restored) == list_models(filled)
        with connect(restored) as connection:  # the key carries is_current still
            connection.execute("UPDATE rag_chunks SET is_current = false WHERE ordinal = 1")
            row = connection.execute(
                "SELECT count(*) FROM rag_chunk_embeddings WHERE NOT is_current"
            ).fetchone()
            assert row == (1,)
            connection.execute("VACUUM (ANALYZE) rag_chunk_embeddings_2")
            connection.execute("TRUNCATE rag_documents CASCADE")
            assert connection.execute("SELECT count(*) FROM rag_chunk_embeddings").fetchone() == (0,)
        add_model(restored, "after", 3)
        assert migrations.verify(restored).is_clean


def test_a_downgrade_counts_the_embeddings_of_partitions_and_destroys_none(filled: Database) -> None:
    with pytest.raises(DataLossRefused) as refused:
        migrations.downgrade(filled, "20261128130110")
    assert "3 rows of rag_chunk_embeddings" in refused.value.evidence
    assert migrations.verify(filled).is_clean
    foreseen = migrations.foresee_rollback(filled, BEFORE)
    assert any(
        "3 rows of rag_chunk_embeddings" in str(loss) for each in foreseen.reversals for loss in each.losses
    )
    migrations.downgrade(filled, BEFORE, allow_data_loss=True)
    assert migrations.verify(filled).is_clean
    migrations.upgrade(filled)
    assert migrations.verify(filled).is_clean


def test_a_plan_is_rehearsed_with_partitions(filled: Database) -> None:
    """A later revision is tried on a copy that has them."""
    migrations.stamp(filled, "20261128130110", force=True)
    plan = migrations.plan(filled)
    assert "embeddings" in str(plan)


def test_a_role_that_may_not_read_the_registry_compares_as_far_as_it_sees(filled: Database) -> None:
    with connect(filled) as connection:
        connection.execute("DROP ROLE IF EXISTS looks_only")
        connection.execute("CREATE ROLE looks_only")
        connection.execute("GRANT SELECT ON rag_alembic_version TO looks_only")
        try:
            assert migrations.verify(Options(filled, role="looks_only")).is_clean
        finally:
            connection.execute("DROP OWNED BY looks_only")
            connection.execute("DROP ROLE looks_only")


def test_models_of_another_schema_are_its_own(database: Database) -> None:
    other_schema = 'Our "own"'
    migrations.upgrade(database, schema=other_schema)
    add_model(database, "theirs", 3, schema=other_schema)
    assert [model.key for model in list_models(database, schema=other_schema)] == ["theirs"]
    assert [model.key for model in list_models(database)] == ["default"]
    assert migrations.verify(database, schema=other_schema).is_clean
    assert migrations.verify(database).is_clean
