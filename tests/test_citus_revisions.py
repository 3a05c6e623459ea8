"""Revisions of tenants on Citus: what they destroy is refused, what they only replace is not; and how far back they go.

In a database of their own on every node.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from checkouts import Checkout, use_checkout
from citus_clusters import made_cluster_database
from conftest import connect
from ragschema import migrations
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.errors import RevisionRefused
from ragschema.index_health import check_indexes, rebuild
from ragschema.state.cluster import LAST_WAY_BACK
from ragschema.tenants import create_tenant, distribute_tenant, drop_tenant, list_tenants

pytestmark = pytest.mark.citus

NAME = 'The "tenant" of 100%'


@pytest.fixture(scope="module")
def cluster() -> Iterator[Database]:
    with made_cluster_database("revisions") as database:
        yield database


@pytest.fixture
def database(cluster: Database) -> Iterator[Database]:
    """A tenant on a node, with two collections."""
    create_tenant(NAME, cluster)
    distribute_tenant(NAME, cluster)
    with connect(cluster) as connection:
        for name in ("manuals", "letters"):
            insert = (
                f"INSERT INTO {quoted('rag_collections')} (name, description) VALUES (%s, 'what is in it')"
            )
            connection.execute(insert.encode(), (name,))
    yield cluster
    drop_tenant(NAME, cluster, allow_data_loss=True)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    return use_checkout(tmp_path, monkeypatch)


def quoted(table: str) -> str:
    schema = NAME.replace('"', '""').replace("%", "%%")
    return f'"{schema}".{table}'


def execute(sql: str) -> str:
    return f"op.execute({sql!r})"


def by_do(sql: str) -> str:
    """Return a statement whose text does not tell what it does."""
    return execute(f"DO $do$ BEGIN EXECUTE $sql$ {sql} $sql$; END $do$")


def revision(database: Database) -> str | None:
    return next(each.revision for each in list_tenants(database) if each.schema == NAME)


def count_collections(database: Database) -> int:
    with connect(database) as connection:
        row = connection.execute(f"SELECT count(*) FROM {quoted('rag_collections')}".encode(), ()).fetchone()
        assert row is not None
        return int(row[0])


CUT = "ALTER TABLE rag_collections ALTER COLUMN description TYPE varchar(4) USING left(description, 4)"


@pytest.mark.parametrize(
    ("upgrade", "told"),
    [
        (execute("DELETE FROM rag_collections"), "2 rows of rag_collections (deleted by revision"),
        (
            by_do("DELETE FROM rag_collections WHERE name = 'letters'"),
            "1 row of rag_collections (deleted by",
        ),
        (by_do("TRUNCATE rag_collections CASCADE"), "2 rows of rag_collections (truncated by"),
        (
            by_do("ALTER TABLE rag_collections DROP COLUMN description"),
            "2 values of rag_collections.description (dropped",
        ),
        (by_do("DROP TABLE rag_collections CASCADE"), "2 rows of rag_collections (dropped by"),
        (execute(CUT), "2 values of rag_collections.description (cut by"),
    ],
)
def test_what_a_revision_destroys_on_a_node_is_refused(
    checkout: Checkout, database: Database, upgrade: str, told: str
) -> None:
    before = revision(database)
    checkout.add(upgrade)
    done = checkout.run("rag", "migrate", "--schema", NAME, database=database)
    assert (done.returncode, told in done.stderr) == (1, True), done.stderr
    assert (revision(database), count_collections(database)) == (before, 2)


def test_what_a_revision_replaces_on_a_node_is_no_loss(checkout: Checkout, database: Database) -> None:
    """Citus notes each function in a table of its own, and each table: rows of those are nobody's."""
    function = "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'"
    checkout.add(execute(function), execute("DROP FUNCTION mine()"))
    checkout.add(execute("CREATE TABLE rag_mine (id int)"), execute("DROP TABLE rag_mine"))
    wider = "ALTER TABLE rag_collections ALTER COLUMN name TYPE varchar(300)"
    last = checkout.add(execute(wider) + "\n" + execute("DROP FUNCTION mine()"), execute(function))
    done = checkout.run("rag", "migrate", "--schema", NAME, database=database)
    assert (done.returncode, revision(database)) == (0, last), done.stderr
    done = checkout.run("rag", "migrate", "rollback", "--schema", NAME, "--yes", "-3", database=database)
    assert (done.returncode, revision(database)) == (0, checkout.base), done.stderr
    assert count_collections(database) == 2


def test_an_index_is_found_on_its_node_whatever_the_tenant_is_called(database: Database) -> None:
    (found,) = check_indexes(database, schema=NAME)
    assert (found.recall, found.note) == (None, "it has no rows")
    assert found.size > 0
    assert [each.index for each in rebuild(database, schema=NAME).rebuilt] == [found.index]


def test_a_tenant_of_a_node_goes_back_as_far_as_it_can(database: Database) -> None:
    """And no farther: that is said before anything is changed, by who asks and by who only looks."""
    options = Options(database, schema=NAME)
    head = revision(database)
    for target in ("20261128170090", "base"):
        with pytest.raises(RevisionRefused, match=f"cannot go back past {LAST_WAY_BACK}"):
            migrations.foresee_rollback(options, target)
        with pytest.raises(RevisionRefused, match="Roll back to"):
            migrations.downgrade(options, target, allow_data_loss=True)
        assert revision(database) == head
    migrations.downgrade(options, LAST_WAY_BACK)
    assert revision(database) == LAST_WAY_BACK
    assert migrations.verify(options).is_clean
    migrations.upgrade(options)
    assert revision(database) == head
    assert migrations.verify(options).is_clean
