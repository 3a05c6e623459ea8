"""The line that takes a backup takes one, which can be restored; it never shows a password."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from conftest import Command, connect, made_database
from ragschema import embedded, migrations
from ragschema.database.backup import backup_command
from ragschema.database.settings import Database, find_database
from ragschema.errors import RagSchemaError
from ragschema.revisions.manifest import read_manifest

CONTRACTS = [each.revision for each in read_manifest().revisions if each.deploy == "contract"]


@pytest.mark.parametrize("schema", ["public", 'Our "own"'])
def test_the_line_that_status_shows_takes_a_backup_that_can_be_restored(
    server: Mapping[str, str], empty_database: Database, run: Command, tmp_path: Path, schema: str
) -> None:
    migrations.upgrade(empty_database, schema=schema)
    with connect(empty_database) as connection:
        connection.execute(
            f"""INSERT INTO "{schema.replace('"', '""')}".rag_documents (article_id) VALUES ('a')"""
        )
    status = run("rag", "migrate", "status", "--schema", schema, DATABASE_URL=empty_database.libpq_url())
    (line,) = [line.partition("\t")[2] for line in status.stdout.splitlines() if line.startswith("backup\t")]
    program, *arguments = shlex.split(line)
    assert program == "pg_dump"
    subprocess.run([embedded.program("pg_dump"), *arguments], cwd=tmp_path, check=True)
    (dump,) = tmp_path.glob("*.dump")
    with made_database(server) as restored:
        subprocess.run(
            [embedded.program("pg_restore"), "--exit-on-error", f"--dbname={restored.libpq_url()}", dump],
            check=True,
        )
        assert migrations.status(restored, schema=schema).state == "OK"
        assert migrations.verify(restored, schema=schema).is_clean


def test_the_line_shows_no_password(tmp_path: Path) -> None:
    url = "postgresql://u:s3cret@h:5433/d?sslmode=require&sslpassword=s3cret"
    line = backup_command(find_database(url), "public")
    assert "s3cret" not in line
    assert line == (
        "pg_dump --format=custom --file=d.dump '--dbname=postgresql://u@h:5433/d?sslmode=require'"
    )


def test_an_empty_database_has_nothing_to_back_up(empty_database: Database) -> None:
    assert migrations.status(empty_database).backup is None


def test_migrate_says_when_to_take_one(empty_database: Database, run: Command) -> None:
    url = empty_database.libpq_url()
    fresh = run("rag", "migrate", "--to", "20251225170000", DATABASE_URL=url)
    assert "backup" not in fresh.stderr
    expanded = run("rag", "migrate", "--expand-only", DATABASE_URL=url)
    assert "backup" not in expanded.stderr
    with pytest.raises(RagSchemaError):
        migrations.upgrade(empty_database, "+99")
    contracted = run("rag", "migrate", DATABASE_URL=url)
    assert f"Contract revisions are pending, {CONTRACTS[0]}" in contracted.stderr
    assert "have a backup, made by pg_dump --format=custom" in contracted.stderr
    manifest = read_manifest()
    before = manifest.revisions[[each.deploy for each in manifest.revisions].index("contract") - 1].revision
    assert run("rag", "migrate", "rollback", before, "--yes", DATABASE_URL=url).returncode == 0
    relative = run("rag", "migrate", "--to", "+1", DATABASE_URL=url)
    assert f"A contract revision is pending, {CONTRACTS[0]}: have a backup" in relative.stderr
    assert "pg_dump line" in run("rag", "migrate", "--help").stdout.replace("\n  ", " ")
