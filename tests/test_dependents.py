"""Objects of others on ours: what PostgreSQL would refuse to drop in the middle of a run is said beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkouts import Checkout, made_role, use_checkout
from conftest import Command, DatabaseAt, connect
from ragschema import migrations
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.errors import ConfigurationError, DependentsFound
from ragschema.migrations.health import check_health
from ragschema.planning.dependents import find_dependents
from ragschema.planning.rollback import foresee_rollback
from ragschema.revisions.manifest import read_manifest
from ragschema.sql.drops import Drop, find_drops

REVISIONS = [each.revision for each in read_manifest().revisions]
HEAD = REVISIONS[-1]

# what somebody made, and what is said to be in the way
OBJECTS = {
    "view on a column": (
        "CREATE VIEW reports.v AS SELECT title FROM public.rag_document_versions",
        "view reports.v depends on rag_document_versions.title, which reversing revision 20251225170000 drops",
    ),
    "view of another on it": (
        "CREATE VIEW reports.a AS SELECT count(*) FROM public.rag_jobs;"
        " CREATE VIEW reports.b AS SELECT * FROM reports.a",
        "view reports.a depends on table rag_jobs, which reversing revision 20251225160000 drops",
    ),
    "materialized view": (
        "CREATE MATERIALIZED VIEW reports.m AS SELECT is_current FROM public.rag_chunks",
        "materialized view reports.m depends on rag_chunks.is_current, which reversing revision 20261121121100 drops",
    ),
    "view in our schema, named as ours are": (
        "CREATE VIEW public.rag_report AS SELECT title FROM public.rag_document_versions",
        "view rag_report depends on rag_document_versions.title",
    ),
    "foreign key": (
        "CREATE TABLE reports.t (document uuid REFERENCES public.rag_documents (id))",
        "constraint t_document_fkey on table reports.t depends on rag_documents.id",
    ),
    "function of the row type": (
        "CREATE FUNCTION reports.f(d public.rag_documents) RETURNS text LANGUAGE sql AS 'SELECT d.article_id'",
        "function reports.f(rag_documents) depends on table rag_documents",
    ),
    "function with a body that is parsed": (
        "CREATE FUNCTION reports.f() RETURNS bigint BEGIN ATOMIC SELECT count(is_current) FROM public.rag_chunks; END",
        "function reports.f() depends on rag_chunks.is_current",
    ),
    "trigger that calls our function": (
        "CREATE TABLE reports.t (updated_at timestamptz); CREATE TRIGGER touch BEFORE UPDATE ON reports.t"
        " FOR EACH ROW EXECUTE FUNCTION public.rag_touch_updated_at()",
        "trigger touch on table reports.t depends on function rag_touch_updated_at",
    ),
    "column of our type": (
        "CREATE TABLE reports.t (status public.job_status)",
        "column status of table reports.t depends on type job_status",
    ),
    "policy on our table": (
        "CREATE POLICY theirs ON public.rag_chunks USING (is_current)",
        "policy theirs on table rag_chunks depends on rag_chunks.is_current",
    ),
}


@pytest.mark.parametrize(("made", "said"), OBJECTS.values(), ids=OBJECTS)
def test_a_rollback_names_what_is_in_its_way_and_changes_nothing(
    database: Database, made: str, said: str
) -> None:
    with connect(database) as connection:
        connection.execute("CREATE SCHEMA reports")
        connection.execute(made.encode())
    with pytest.raises(DependentsFound) as refused:
        migrations.downgrade(database, "base")
    assert said in refused.value.evidence
    assert migrations.status(database).current == HEAD
    with pytest.raises(DependentsFound) as foreseen:
        foresee_rollback(Options(database), "base")
    assert foreseen.value.evidence == refused.value.evidence


def test_nothing_is_in_the_way_of_a_rollback_that_drops_nothing_of_it(database: Database) -> None:
    with connect(database) as connection:
        connection.execute("CREATE VIEW v AS SELECT title FROM rag_document_versions")
    later = REVISIONS[REVISIONS.index("20251225170000")]
    assert migrations.downgrade(database, later).current == later  # the title stays
    with pytest.raises(DependentsFound):
        migrations.downgrade(database, "-1")
    with connect(database) as connection:
        connection.execute("DROP VIEW v")
    assert migrations.downgrade(database, "base").current is None


@pytest.mark.parametrize("revision", [REVISIONS[0], REVISIONS[len(REVISIONS) // 2], HEAD])
def test_what_is_ours_is_in_nobodys_way(database_at: DatabaseAt, revision: str) -> None:
    database = database_at(revision)
    with connect(database) as connection:
        connection.execute("SET search_path = pg_catalog")
        assert find_dependents(connection, "public", revision) == []
    assert migrations.downgrade(database, "base").current is None


def test_the_command_says_so_before_it_asks(run: Command, database: Database) -> None:
    with connect(database) as connection:
        connection.execute("CREATE VIEW v AS SELECT title FROM rag_document_versions")
    result = run("rag", "migrate", "rollback", "base", "--yes", DATABASE_URL=database.libpq_url())
    assert result.returncode == 1
    assert "Error: Objects that are not ours depend on what would be dropped" in result.stderr
    assert "view v depends on rag_document_versions.title" in result.stderr
    assert migrations.status(database).current == HEAD


def test_an_upgrade_is_asked_too(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout: Checkout = use_checkout(tmp_path, monkeypatch)
    checkout.add("op.execute('SELECT 1')")
    last = checkout.add(
        'op.drop_column("rag_document_versions", "title")',
        'op.add_column("rag_document_versions", sa.Column("title", sa.Text()))',
        deploy="contract",
    )
    with connect(database) as connection:
        connection.execute("CREATE VIEW v AS SELECT title FROM rag_document_versions")
    with pytest.raises(DependentsFound) as refused:
        migrations.upgrade(database)
    assert refused.value.evidence == (
        f"view v depends on rag_document_versions.title, which applying revision {last} drops"
    )
    assert migrations.status(database).current == checkout.base
    assert len(migrations.upgrade(database, expand_only=True).applied) == 1  # which stops before it


@pytest.mark.parametrize(
    ("sql", "drops"),
    [
        ('DROP TABLE IF EXISTS rag_a, public."Rag b"', [Drop("table", "rag_a"), Drop("table", "Rag b")]),
        ("DROP TABLE rag_a CASCADE", []),
        ("DROP INDEX CONCURRENTLY IF EXISTS rag_i", [Drop("index", "rag_i")]),
        (
            "DROP FUNCTION rag_f(a int, b text), rag_g()",
            [Drop("function", "rag_f"), Drop("function", "rag_g")],
        ),
        ("DROP TYPE rag_t", [Drop("type", "rag_t")]),
        ("DROP MATERIALIZED VIEW rag_v", [Drop("table", "rag_v")]),
        ("-- a remark\nDROP TABLE a; DROP TABLE b", [Drop("table", "a"), Drop("table", "b")]),
        (
            "ALTER TABLE ONLY s.rag_a DROP COLUMN IF EXISTS x, DROP y, ADD COLUMN z numeric(1, 2)",
            [Drop("column", "rag_a", "x"), Drop("column", "rag_a", "y")],
        ),
        ("ALTER TABLE a DROP CONSTRAINT a_pkey", [Drop("constraint", "a", "a_pkey")]),
        ("ALTER TABLE a DROP COLUMN x CASCADE", []),
        ("ALTER TABLE a ALTER COLUMN x TYPE int USING x::int", [Drop("column type", "a", "x")]),
        ("ALTER TABLE a ALTER x SET DATA TYPE int, ALTER y SET DEFAULT 1", [Drop("column type", "a", "x")]),
        ("CREATE TABLE a (x int)", []),
        ("ALTER TABLE", []),
        ("DROP", []),
    ],
)
def test_drops_are_read_from_a_text(sql: str, drops: list[Drop]) -> None:
    assert list(find_drops(sql)) == drops


# tables of another role


def test_tables_of_another_owner_are_refused_before_anything_begins(database_at: DatabaseAt) -> None:
    database = database_at(REVISIONS[0])
    with made_role(
        database,
        "GRANT USAGE, CREATE ON SCHEMA public TO _role_",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO _role_",
    ) as role:
        for revision in ("head", "base"):
            change = migrations.upgrade if revision == "head" else migrations.downgrade
            with pytest.raises(ConfigurationError) as refused:
                change(role, revision)
            said = next(each for each in check_health(Options(role)) if each.name == "tables")
            assert (refused.value.message, refused.value.remedy) == (said.finding, said.remedy)
        name = role.parameters["user"]
        assert refused.value.message.startswith(
            f"The role {name} is not a member of postgres, which owns rag_"
        )
        assert refused.value.remedy == (
            f'Migrate as postgres, or add --role postgres after GRANT "postgres" TO "{name}";'
        )
        assert migrations.status(role).current == REVISIONS[0]
        with connect(database) as connection:
            connection.execute(f'GRANT "postgres" TO "{name}"'.encode())
        assert migrations.upgrade(Options(role, role="postgres")).current == HEAD
