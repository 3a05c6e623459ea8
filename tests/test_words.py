"""At 3 a.m.: words of other programs, help in full, tables that wrap at words, prompts, durations, lists."""

from __future__ import annotations

import os
import pty
import re
import sys
import time
from pathlib import Path

import pytest
import typer

from conftest import Command, clean_environment
from ragschema import migrations
from ragschema.cli.app import whole_app
from ragschema.cli.arguments import parse_duration
from ragschema.cli.output import fit_columns
from ragschema.cli.words import (
    _CHAT,
    _COLLECTIONS,
    _DB,
    _DOCUMENTS,
    _GROUPS,
    _INDEX,
    _JOBS,
    _MIGRATE,
    _MODELS,
    _TENANTS,
)
from ragschema.database.settings import Database
from ragschema.revisions.manifest import describe_ids, read_manifest

ROOT_COMMAND = typer.main.get_command(whole_app())
GROUPS = {
    name: each
    for name, each in ROOT_COMMAND.commands.items()  # type: ignore[attr-defined]
    if hasattr(each, "commands")
}
IDS = [revision.revision for revision in read_manifest().revisions]


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("migrate up", "rag migrate"),
        ("migrate upgrade", "rag migrate"),
        ("migrate upgrade head", "rag migrate"),
        ("migrate upgrade +2", "rag migrate --to +2"),
        ("migrate upgrade 20251225170000", "rag migrate --to 20251225170000"),
        ("migrate up --dry-run", "rag migrate plan"),
        ("migrate upgrade head --sql", "rag migrate --sql"),
        ("migrate downgrade -1", "rag migrate rollback -1"),
        ("migrate downgrade base", "rag migrate rollback base"),
        ("migrate downgrade", "rag migrate rollback REVISION"),
        ("migrate down", "rag migrate rollback -1"),
        ("migrate current", "rag migrate status"),
        ("migrate heads", "rag migrate status"),
        ("migrate show head", "rag migrate history"),
        ("migrate branches", "rag migrate history"),
        ("migrate revision -m x", 'rag migrate create "MESSAGE"'),
        ("migrate revision --autogenerate -m x", 'rag migrate create "MESSAGE" --autogenerate'),
        ("migrate new x", 'rag migrate create "MESSAGE"'),
        ("migrate diff x", "rag migrate verify"),
        ("migrate check", "rag migrate verify"),
        ("migrate set 1", "rag migrate adopt --baseline REVISION"),
        ("migrate baseline", "rag migrate adopt --baseline REVISION"),
        ("migrate ensure_version", "rag migrate init"),
        ("migrate test", "rag migrate plan"),
        ("migrate info", "rag migrate status"),
        ("upgrade head", "rag migrate"),
        ("current", "rag migrate status"),
        ("status", "rag migrate status"),
        ("rollback -1", "rag migrate rollback -1"),
        ("psql", "rag db psql"),
        ("db up", "rag db start"),
        ("db shell", "rag db psql"),
        ("db upgrade", "rag migrate"),
        ("jobs ls", "rag jobs list"),
        ("jobs purge", "rag jobs prune --older-than 30d"),
    ],
)
def test_a_word_of_another_program_names_the_command(run: Command, words: str, command: str) -> None:
    said = run("rag", *words.split())
    assert (said.returncode, said.stdout) == (2, "")
    first, second = said.stderr.splitlines()
    assert first.startswith("Error: There is no command `rag ")
    assert second.startswith(f"Run `{command}`")


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        ("migrate --dry-run", "rag migrate plan"),
        ("migrate apply --dry-run", "rag migrate plan"),
        ("migrate rollback -1 --dry-run", "says what it would reverse, and asks"),
        ("migrate rollback --dry-run", "says what it would reverse, and asks"),
        ("migrate apply --url x", "--database-url URL"),
        ("migrate -u x status", "--database-url URL"),
        ("migrate status --password x", "every user sees a command line"),
        ("migrate apply --revisions-schema=x", "--schema NAME"),
        ("migrate apply --baseline 1", "rag migrate adopt --baseline REVISION"),
        ("migrate create -m x", "the message needs no option"),
        ("migrate --check", "rag migrate status --exit-code"),
        ("jobs prune --older-than 1d --dry-run", "without --yes the jobs are only counted"),
        ("migrate history --verbose", "--debug"),
        ("migrate status -o json", "--json"),
    ],
)
def test_an_option_of_another_program_names_ours(run: Command, words: str, instead: str) -> None:
    said = run("rag", *words.split())
    assert said.returncode == 2
    assert re.match(r"Error: `rag [a-z ]+` has no option -", said.stderr)
    assert instead in said.stderr


def test_an_unknown_word_is_answered_as_ever(run: Command) -> None:
    assert "No such command 'statsu'. Did you mean 'status'?" in run("rag", "migrate", "statsu").stderr
    assert "No such option" in run("rag", "migrate", "status", "--nonsense").stderr
    assert "has no option --nonsense" in run("rag", "migrate", "rollback", "--nonsense").stderr


def test_every_word_names_a_command_that_exists_and_is_none_itself() -> None:
    tables = (_MIGRATE, _DB, _JOBS, _MODELS, _INDEX, _DOCUMENTS, _CHAT, _COLLECTIONS, _TENANTS)
    assert sum(len(table) for table in _GROUPS.values()) == sum(
        len(words.split()) for table in tables for words in table.values()
    )
    for group, table in _GROUPS.items():
        commands = ROOT_COMMAND.commands[group].commands  # type: ignore[attr-defined]
        for word, command in table.items():
            assert word not in commands
            _, named, *rest = command.split()
            verbs = ROOT_COMMAND.commands[named].commands  # type: ignore[attr-defined]
            assert not rest or rest[0].startswith("-") or rest[0].strip("`") in verbs, command


def summaries() -> list[tuple[str, str]]:
    found = []
    for name, group in GROUPS.items():
        for command in group.commands.values():
            paragraph = " ".join(command.help.partition("\n\n")[0].split())
            found.append((f"{name} {command.name}", paragraph.partition(". ")[0].rstrip(".")))
    return found


@pytest.mark.parametrize("group", ["migrate", "db", "jobs"])
def test_help_shows_whole_summaries_at_80_columns(run: Command, group: str) -> None:
    shown = run("rag", group, "--help", COLUMNS="80").stdout
    assert max(map(len, shown.splitlines())) <= 80
    text = " ".join(shown.split())
    for name, summary in summaries():
        if name.startswith(f"{group} "):
            assert summary in text, name
    assert "..." not in shown.partition("Options:")[2].replace("[ARGS]...", "")


def test_options_stand_in_groups(run: Command) -> None:
    shown = run("rag", "migrate", "--help", COLUMNS="80").stdout
    headings = re.findall(r"^(\w[^:\n]*):$", shown, re.M)
    assert headings == [
        "Options", "How to upgrade", "Which database",
        "Commands that change a database", "Commands for those who write revisions", "Commands that only look",
    ]  # fmt: skip
    which = shown.partition("Which database:")[2].partition("Commands that")[0]
    assert re.findall(r"^  (--[a-z-]+)", which, re.M) == [
        "--database-url", "--host", "--port", "--dbname", "--user", "--schema", "--role", "--wait",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["30", "0", "1.5", " 30 "])
def test_a_duration_without_a_unit_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="has no unit: write"):
        parse_duration(text)


def test_every_option_of_a_duration_refuses_a_bare_number(run: Command) -> None:
    found = 0
    for group, commands in GROUPS.items():
        for command in commands.commands.values():
            for option in command.params:
                if option.metavar == "DURATION":
                    found += 1
                    said = run("rag", group, command.name, option.opts[0], "30")
                    assert (said.returncode, "has no unit: write 30s, 30m or 30d" in said.stderr) == (2, True)
    assert found > 15


def test_prune_deletes_nothing_for_a_bare_number(run: Command, database: Database) -> None:
    said = run("rag", "jobs", "prune", "--older-than", "30", "--yes", DATABASE_URL=database.libpq_url())
    assert said.returncode == 2


def test_columns_wrap_at_words() -> None:
    rows = [["20261121120100", "expand", "a summary of many words that is far too long for its line"]]
    widths = fit_columns(rows, 50)
    assert widths[:2] == [14, 6]  # short ones whole
    assert widths[2] == 30
    assert fit_columns([["ab", "cd ef"]], 80) == [2, 5]
    narrow = fit_columns([["one two three", "four five six"]], 11)
    assert narrow[0] >= 5  # "three"
    assert sum(narrow) <= 11


@pytest.mark.parametrize("columns", [40, 80, 120])
@pytest.mark.parametrize("command", ["status", "history", "health"])
def test_a_table_on_a_terminal_breaks_no_word(
    columns: int, command: str, run: Command, database: Database
) -> None:
    migrations.stamp(database, IDS[-6], force=True)
    _, shown = on_a_terminal(["migrate", command], b"", database, columns)
    lines = [line.rstrip() for line in shown.replace("\r", "").splitlines()]
    words = {word for line in lines for word in line.split()}
    plain = plain_words(run, database, command)
    if columns >= 80:
        assert {each for each in IDS if each in plain} <= words
    assert not {word for word in words if word.startswith("2026112") and not word[:14].isdigit()}
    broken = [
        word for word in words if word.isalpha() and word not in plain and len(word) > 1 and columns >= 80
    ]
    assert broken == []


def plain_words(run: Command, database: Database, command: str) -> set[str]:
    result = run("rag", "migrate", command, DATABASE_URL=database.libpq_url())
    return set((result.stdout + result.stderr + " revision summary").split())


def test_a_backup_line_on_a_terminal_can_be_copied(database: Database) -> None:
    _, shown = on_a_terminal(["migrate", "status"], b"", database, 40)
    assert f"backup: {migrations.status(database).backup}" in shown.replace("\r", "").splitlines()


def test_ctrl_c_at_a_prompt_is_130(database: Database) -> None:
    for arguments in (["migrate", "rollback", "-1"], ["migrate", "status", "--host", "127.0.0.1"]):
        code, shown = on_a_terminal(arguments, b"\x03", database, 80, until=(b"[y/N]", b"Password:"))
        assert code == 130, shown
        assert "Traceback" not in shown
    assert migrations.status(database).state == "OK"


def test_a_rollback_says_where_and_what_before_it_asks(database: Database) -> None:
    code, shown = on_a_terminal(["migrate", "rollback", "-2"], b"n\n", database, 200, until=(b"[y/N]",))
    assert code == 1
    before, _, _ = shown.partition("Reverse every revision after -2?")
    assert database.parameters["dbname"] in before
    assert f"is at {IDS[-1]}, this reverses 2 revisions, newest first, down to revision {IDS[-3]}:" in before
    assert before.index(f"  {IDS[-1]}  ") < before.index(f"  {IDS[-2]}  ")
    assert "destroys no rows" in before
    assert "A backup first: pg_dump --format=custom" in before


def test_a_rollback_says_what_each_revision_would_destroy(database: Database, run: Command) -> None:
    from conftest import connect

    with connect(database) as connection:
        connection.execute("INSERT INTO rag_jobs (job_type, payload) VALUES ('a', '{}'), ('b', '{}')")
    foreseen = migrations.foresee_rollback(database, "base")
    assert [each.revision for each in foreseen.reversals] == list(reversed(IDS))
    losses = {each.revision: each.losses for each in foreseen.reversals if each.losses}
    assert any("2 rows of rag_jobs" in loss for loss in losses[IDS[0]])
    said = run("rag", "migrate", "rollback", "base", "--yes", DATABASE_URL=database.libpq_url())
    assert said.returncode == 1
    assert "    destroys 2 rows of rag_jobs" in said.stderr
    assert said.stderr.index("destroys 2 rows") < said.stderr.index("Error: ")
    assert migrations.status(database).state == "OK"


def test_lists_of_ids_become_ranges(run: Command, empty_database: Database) -> None:
    assert describe_ids(["1", "2", "3"]) == "1, 2, 3"
    assert describe_ids(["20261121120100", "2", "3", "20261121121500"]) == (
        "20261121120100 to 20261121121500, 4 revisions"
    )
    migrations.upgrade(empty_database, IDS[1])
    from conftest import connect

    with connect(empty_database) as connection:
        connection.execute("DROP TABLE rag_jobs")
    failed = run("rag", "migrate", DATABASE_URL=empty_database.libpq_url())
    assert failed.returncode == 1
    assert f"not committed: {IDS[2]} to {IDS[-1]}, {len(IDS) - 2} revisions" in failed.stderr


def test_the_embedded_server_has_a_status(run: Command, tmp_path: Path) -> None:
    data = tmp_path / ".ragschema" / "postgres"
    none = run("rag", "db", "status", cwd=tmp_path)
    assert (none.returncode, none.stdout.splitlines()) == (
        0,
        ["state\tnone: `rag migrate` or `rag db start` makes it", f"directory\t{data}"],
    )
    assert list(tmp_path.iterdir()) == []


def on_a_terminal(
    arguments: list[str], typed: bytes, database: Database, columns: int, until: tuple[bytes, ...] = ()
) -> tuple[int, str]:
    """Run rag on a pseudo-terminal of its own; type when it shows one of some texts; return its exit code."""
    environment = clean_environment() | {"DATABASE_URL": database.libpq_url(), "COLUMNS": str(columns)}
    program = str(Path(sys.executable).with_name("rag"))
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(program, [program, *arguments], environment)
    shown, deadline, has_typed = b"", time.monotonic() + 60, not typed
    while time.monotonic() < deadline:
        try:
            read = os.read(terminal, 4096)
        except OSError:  # the terminal is gone with its process
            break
        if not read:
            break
        shown += read
        if not has_typed and any(text in shown for text in until):
            os.write(terminal, typed)
            has_typed = True
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown.decode()
