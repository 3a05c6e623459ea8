"""Every command's ``--json`` is one document of its schema, and nothing else is on standard output."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import jsonschema
import pytest
import typer

from conftest import ROOT, Command, DatabaseAt, clean_environment, connect, copy_checkout, shared_forks
from ragschema import migrations
from ragschema.authoring.json_schemas import json_schemas_path, json_schemas_text
from ragschema.cli.app import whole_app
from ragschema.database.settings import Database
from ragschema.state.expected import COMMAND

SCHEMAS = json.loads((ROOT / "src" / "ragschema" / "cli" / "json_schemas.json").read_text())


def check(command: str, text: str) -> object:
    document = json.loads(text)
    schema = {"$defs": SCHEMAS["$defs"], **SCHEMAS["commands"][command]}
    formats = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(schema, format_checker=formats).validate(document)
    return document


def test_every_command_that_has_json_has_a_schema() -> None:
    found = set()
    commands = [("", typer.main.get_command(whole_app()))]
    for path, command in commands:
        if any("--json" in parameter.opts for parameter in command.params):
            found.add(path)
        inner = getattr(command, "commands", {})
        commands += [(f"{path} {name}".lstrip(), each) for name, each in inner.items()]
    assert found == set(SCHEMAS["commands"])


def test_the_schemas_are_those_of_the_results() -> None:
    assert json_schemas_path().read_text() == json_schemas_text(), f"Run `{COMMAND}` and commit the file."


def test_schemas_refuse_what_is_missing_and_what_is_more() -> None:
    objects = {name: each for name, each in SCHEMAS["$defs"].items() if each["type"] == "object"}
    assert len(objects) > 20
    for name, schema in objects.items():
        assert schema["additionalProperties"] is False, name
        assert set(schema["required"]) == set(schema["properties"]), name
    document: dict[str, object] = {"applied": [], "current": "20251225160000", "owed": []}
    check("migrate", json.dumps(document))
    unfinished: dict[str, object] = {"current": None, "owed": []}
    for wrong in (unfinished, document | {"more": 1}, document | {"current": "head"}):
        with pytest.raises(jsonschema.ValidationError):
            check("migrate", json.dumps(wrong))


def test_schemas_are_schemas() -> None:
    for schema in ({"$defs": SCHEMAS["$defs"]}, *SCHEMAS["commands"].values()):
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    "command",
    [
        "migrate",
        "migrate apply",
        "migrate rollback 20251225160000 --yes",
        "migrate stamp 20251225160000 --force",
        "migrate status",
        "migrate wait --timeout 1s",
        "migrate history",
        "migrate verify",
        "migrate health",
        "migrate adopt",
        "migrate init",
        "migrate repair",
        "migrate validate",
        "migrate syntax-check",
        "migrate lint",
        "migrate plan",
    ],
)
def test_json_at_head(command: str, run: Command, database: Database) -> None:
    result = run("rag", *shlex.split(command), "--json", DATABASE_URL=database.libpq_url())
    assert result.returncode == 0, result.stderr
    check(" ".join(word for word in command.split()[:2] if not word.startswith("-")), result.stdout)


def test_json_of_what_is_not_well(run: Command, database_at: DatabaseAt) -> None:
    database = database_at("20251225170000")
    url = database.libpq_url()
    with connect(database) as connection:
        connection.execute("DROP TABLE rag_jobs")
        connection.execute("CREATE INDEX theirs ON rag_chunks (created_at)")
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'theirs'::regclass")
    failed = run("rag", "migrate", "--json", DATABASE_URL=url)
    assert failed.returncode == 1
    assert failed.stdout == ""
    status = check("migrate status", run("rag", "migrate", "status", "--json", DATABASE_URL=url).stdout)
    assert isinstance(status, dict)
    assert status["state"] == "PENDING"
    assert status["last_failure"]["revision"] == "20261121100500"
    assert status["invalid_indexes"] == ["theirs"]
    drift = check("migrate verify", run("rag", "migrate", "verify", "--json", DATABASE_URL=url).stdout)
    assert isinstance(drift, dict)
    assert drift["differences"]
    health = check("migrate health", run("rag", "migrate", "health", "--json", DATABASE_URL=url).stdout)
    assert isinstance(health, dict)
    assert "warning" in {each["verdict"] for each in health["checks"]}


def test_json_of_a_plan_with_something_to_do(run: Command, database_at: DatabaseAt) -> None:
    database = database_at("20251225160000")
    plan = check(
        "migrate plan",
        run("rag", "migrate", "plan", "--json", DATABASE_URL=database.libpq_url()).stdout,
    )
    assert isinstance(plan, dict)
    assert plan["revisions"][0]["statements"][0]["locks"][0]["mode"] == "ACCESS EXCLUSIVE"


def test_json_of_adopting(run: Command, database: Database) -> None:
    migrations.stamp(database, "base", force=True)
    result = run("rag", "migrate", "adopt", "--json", DATABASE_URL=database.libpq_url())
    assert result.returncode == 0, result.stderr
    check("migrate adopt", result.stdout)


def test_json_of_writing_a_revision(tmp_path: Path) -> None:
    copy = copy_checkout(tmp_path)
    for command in ("migrate create Note", "migrate hash"):
        told = clean_environment() | {"PYTHONPATH": str(copy / "src")}
        result = shared_forks().run("rag", [*command.split(), "--json"], copy, told)
        assert result.returncode == 0, result.stderr
        check(" ".join(command.split()[:2]), result.stdout)


def test_json_of_the_embedded_server(run: Command) -> None:
    for command in (
        "db start",
        "db status",
        "db url",
        "db stop",
        "db status",
        "db destroy --yes",
        "db status",
    ):
        result = run("rag", *command.split(), "--json")
        assert result.returncode == 0, result.stderr
        check(" ".join(command.split()[:2]), result.stdout)
