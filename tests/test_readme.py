"""The README is true: its transcript, its script, its table of commands, its links."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, Command, DatabaseAt, clean_environment, copy_checkout, shared_forks
from documents import assert_printed, block, imported, run_blocks, section
from ragschema import migrations
from ragschema.database.settings import Database
from ragschema.revisions.manifest import read_manifest

README = (ROOT / "README.md").read_text()


def with_head(lines: list[str]) -> list[str]:
    """Return a transcript with what ``...`` stands for: head."""
    head = read_manifest().head
    ended = [re.sub(r"(?<=is at )\.\.\.$", f"{head}.", line) for line in lines]
    return [re.sub(r"^create \.\.\.", f"create {head}", line) for line in ended]


def commands_now() -> list[str]:
    """The commands of the table's right column."""
    rows = [line.split("|") for line in section(README, "Deploy").splitlines() if line.startswith("| `")]
    return [command for row in rows for command in re.findall(r"`(rag [^`]+)`", row[2])]


def test_the_first_run_prints_what_it_shows(tmp_path: Path) -> None:
    text = block(section(README, "First run"), "console")
    for transcript in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, _, expected = transcript.partition("\n")
        result = subprocess.run(
            [str(Path(sys.executable).with_name("rag")), *shlex.split(command.removeprefix("uv run rag "))],
            cwd=tmp_path,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        shown = result.stdout.replace(str(tmp_path.resolve()), "~/ragschema")
        shown = re.sub(r"/tmp/ragschema-[-\w]+(?=:5432)", "~/ragschema/.ragschema/postgres", shown)
        shown = re.sub(r"^Made .* passable .*\n", "", shown, flags=re.M)  # as root, below a private directory
        in_order = sorted(re.sub(r"\(\d+\.\d+ s\)", "(0.00 s)", shown).splitlines())
        expected = re.sub(r"\(\d+\.\d+ s\)", "(0.00 s)", expected)
        assert in_order == sorted(with_head(expected.splitlines()))


def test_the_script_of_a_service_runs(tmp_path: Path, database: Database) -> None:
    script = block(section(README, "From a service"), "python")
    assert imported(script) == {"ragschema"}
    environment = {"DATABASE_URL": database.libpq_url()}
    assert_printed(*run_blocks([("python", script)], tmp_path, environment))


@pytest.mark.parametrize("command", commands_now())
def test_every_command_of_the_table_works(
    command: str, tmp_path: Path, run: Command, database_at: DatabaseAt, request: pytest.FixtureRequest
) -> None:
    arguments = shlex.split(command)[1:]
    verb = next((word for word in arguments[1:] if not word.startswith("-")), "")
    database: Database
    if verb in ("rollback", "adopt"):
        database = database_at("20251225170000")
    elif verb in ("status", "history", "health", "create", "stamp") or arguments[:1] == ["db"]:
        database = request.getfixturevalue("database")
    elif arguments in (["migrate"], ["migrate", "init"], ["migrate", "--to", "20251225160000"]):
        database = request.getfixturevalue("empty_database")
    else:
        database = database_at(read_manifest().revisions[-3].revision)
    if verb == "rollback":
        arguments.append("--yes")
    if verb == "adopt":
        migrations.stamp(database, "base", force=True)
    environment = {"DATABASE_URL": database.libpq_url()}
    if "--host" in arguments:  # the same options, for the server of the tests
        values = {"--host": "host", "--port": "port", "--database": "dbname", "--user": "user"}
        for option, name in values.items():
            arguments[arguments.index(option) + 1] = database.parameters[name]
        environment = {}
    if arguments[:1] == ["db"]:
        arguments += ["-c", "SELECT 1"]
        run("rag", "db", "start")
        request.addfinalizer(lambda: run("rag", "db", "destroy", "--yes"))
    if verb in ("create", "hash"):
        copy = copy_checkout(tmp_path)
        told = clean_environment() | environment | {"PYTHONPATH": str(copy / "src")}
        result = shared_forks().run("rag", arguments, copy, told)
    else:
        result = run("rag", *arguments, **environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_every_command_of_the_development_section_exists() -> None:
    commands = re.findall(r"^\$ uv run (.+)$", block(section(README, "Develop"), "console"), re.M)
    assert commands[0] == "pytest"
    assert re.search(r"^uv run pytest\b", (ROOT / ".ci" / "run").read_text(), re.M)
    for command in commands:
        for part in command.split(" && uv run "):
            program, *arguments = shlex.split(part)
            if program == "python" and arguments[0] != "-m":
                assert (ROOT / arguments[0]).is_file()
            else:
                assert Path(sys.executable).with_name(program).is_file()


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).is_file(), link


def test_its_exit_codes_are_those_of_the_command(run: Command) -> None:
    described = " ".join(run("rag", "--help").stdout.split())
    codes = re.search(r"Exit codes: (.*?interrupted)", " ".join(README.split()))
    assert codes is not None
    for code in re.findall(r"(?<!\d)(\d+)(?= |,)", codes[1]):
        assert re.search(rf"\b{code}\b", described), code
