"""The commands ``rag graph``."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Command, DatabaseAt, connect
from ragschema.database.settings import Database
from test_graph_neo4j import EDGES, NODES, ROLES, write_csv, write_lines
from test_json import check


def test_a_graph_goes_in_and_out(run: Command, database: Database, tmp_path: Path) -> None:
    url = {"DATABASE_URL": database.libpq_url()}
    path = write_lines(tmp_path / "all.jsonl", [*NODES, *EDGES])
    would = run("rag", "graph", "import", str(path), "--dry-run", **url)
    assert would.stdout.splitlines() == [
        "Would read 4 nodes and 3 relationships from all.jsonl.",
        "would be added: 3 entities; would be changed: 1",
        "would be added: 2 relations; would be changed: 1",
    ]
    done = run("rag", "graph", "import", str(path), **url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "Read 4 nodes and 3 relationships from all.jsonl.\nadded: 3 entities; changed: 1\n"
    )
    stats = run("rag", "graph", "stats", **url)
    assert "entity\tUser\t2\t2\t2" in stats.stdout
    assert "relation\tKNOWS\t2\t2\t2" in stats.stdout
    out = tmp_path / "out.jsonl"
    exported = run("rag", "graph", "export", str(out), **url)
    assert exported.stdout == f"Wrote 4 nodes and 3 relationships to {out}.\n"
    to_stdout = run("rag", "graph", "export", "-", **url)
    assert to_stdout.stdout == out.read_text()
    assert {json.loads(line)["id"] for line in out.read_text().splitlines()} == {"0", "1", "2", "3"}


def test_csv_by_several_names(run: Command, database: Database, tmp_path: Path) -> None:
    url = {"DATABASE_URL": database.libpq_url()}
    paths = [str(path) for path in write_csv(tmp_path)]
    refused = run("rag", "graph", "import", *paths, **url)
    assert refused.returncode == 1
    assert "no property name for its name" in refused.stderr
    assert "--skip-refused" in refused.stderr
    done = run("rag", "graph", "import", *paths, "--name", "name", "--name", "title", **url)
    assert "added: 3 entities" in done.stdout, done.stderr
    directory = tmp_path / "csv"
    directory.mkdir()
    exported = run("rag", "graph", "export", str(directory), **url)
    assert exported.stdout.startswith("Wrote 3 nodes and 3 relationships"), exported.stderr
    assert (directory / "edges-Person-Movie.csv").read_text().count("\n") == ROLES.count("\n")
    for wrong in ("", ",", "ab"):
        assert (
            run("rag", "graph", "export", str(directory), "--array-delimiter", wrong, **url).returncode == 2
        )


def test_json(run: Command, database: Database, tmp_path: Path) -> None:
    url = {"DATABASE_URL": database.libpq_url()}
    path = write_lines(tmp_path / "all.jsonl", [*NODES, {"type": "odd"}])
    for command, arguments in (
        ("graph import", [str(path), "--skip-refused"]),
        ("graph export", [str(tmp_path / "out.jsonl")]),
        ("graph stats", []),
        ("graph verify", []),
    ):
        result = run("rag", *command.split(), *arguments, "--json", **url)
        assert result.returncode == 0, result.stderr
        check(command, result.stdout)
    both = run("rag", "graph", "export", "-", "--json", **url)
    assert both.returncode == 2


def test_verify_says_what_is_broken(run: Command, database: Database) -> None:
    url = {"DATABASE_URL": database.libpq_url()}
    well = run("rag", "graph", "verify", **url)
    assert (well.returncode, well.stdout) == (0, "Every entity and relation is what its mentions say.\n")
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO rag_entities (entity_type, name, is_current) VALUES ('a', 'Unsaid', true)"
        )
    broken = run("rag", "graph", "verify", **url)
    assert broken.returncode == 4
    assert "entity 'Unsaid'" in broken.stderr
    assert "wrongly current" in broken.stderr
    as_json = run("rag", "graph", "verify", "--json", **url)
    assert as_json.returncode == 4
    check("graph verify", as_json.stdout)


def test_an_older_database_is_refused(run: Command, database_at: DatabaseAt, tmp_path: Path) -> None:
    url = {"DATABASE_URL": database_at("20261128160030").libpq_url()}
    path = write_lines(tmp_path / "all.jsonl", NODES)
    for command in (["stats"], ["verify"], ["import", str(path)], ["export", str(tmp_path / "out.jsonl")]):
        result = run("rag", "graph", *command, **url)
        assert result.returncode == 3, (command, result.stderr)
        assert "rag migrate" in result.stderr
