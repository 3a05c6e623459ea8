"""Lint: every rule with an unsafe and a safe revision, and the whole of what is said of the unsafe one."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent, indent

import pytest
from alembic import command
from alembic.script import ScriptDirectory

from conftest import ROOT, run_psql
from lint_examples import EXAMPLES, Example
from ragschema import operations_v1
from ragschema.authoring.lint import Finding, lint
from ragschema.authoring.lint.advice import ADVICE
from ragschema.authoring.lint.findings import NEXT
from ragschema.authoring.lint.rules import RULES
from ragschema.authoring.lint.squawk import EXCLUDED
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.errors import ConfigurationError, UsageError
from ragschema.migrations.request import Request
from ragschema.revisions.scripts import make_config, script_directory
from ragschema.sql.splitting import split_sql
from ragschema.sql.statements import find_created, find_locked, find_removed, read_index

NEW = "20260101000000"

REVISION = '''"""Try something

Somebody needs it.

Locks: some.
Data: {data}.
Deploy: {deploy}.
Downgrade: nothing.
"""

import sqlalchemy as sa
from alembic import op
from ragschema.operations_v1 import {helpers}
from sqlalchemy.dialects import postgresql
{imports}
revision = "20260101000000"
down_revision = "20251225170000"


def upgrade() -> None:
{upgrade}


def downgrade() -> None:
{downgrade}
'''

Lint = Callable[..., list[Finding]]


@pytest.fixture
def scripts(tmp_path: Path) -> ScriptDirectory:
    """The first two revisions, in a copy."""
    directory = tmp_path / "alembic"
    shutil.copytree(
        ROOT / "alembic", directory, ignore=shutil.ignore_patterns("__pycache__", "20[!2]*", "202[!5]*")
    )
    return ScriptDirectory(directory)


@pytest.fixture
def lint_revision(scripts: ScriptDirectory) -> Lint:
    """Write a revision after the two, and lint it."""

    def run(
        upgrade: str,
        *,
        deploy: str = "expand",
        data: str = "none",
        imports: str = "",
        downgrade: str = 'raise RuntimeError("restore the backup")',
        citus: bool = False,
    ) -> list[Finding]:
        text = REVISION.format(
            upgrade=indent(dedent(upgrade).strip(), "    "),
            downgrade=indent(dedent(downgrade).strip(), "    "),
            deploy=deploy,
            data=data,
            imports=imports,
            helpers=", ".join(operations_v1.__all__),
        )
        Path(scripts.versions, f"{NEW}_try.py").write_text(text)
        return lint([NEW], ScriptDirectory(scripts.dir), citus=citus)

    return run


def rules(findings: list[Finding]) -> list[tuple[str, int]]:
    return [(finding.rule, finding.line) for finding in findings]


# The package as it is


@pytest.mark.author
def test_the_packaged_revisions_have_no_findings() -> None:
    assert lint() == []


# The examples


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_the_unsafe_revision_is_told_what_to_write_instead(lint_revision: Lint, example: Example) -> None:
    findings = lint_revision(example.unsafe, deploy=example.deploy, imports=example.imports)
    assert "\n".join(map(str, findings)) == example.message.strip()


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_the_safe_revision_has_no_findings(lint_revision: Lint, example: Example) -> None:
    deploy = example.safe_deploy or example.deploy
    assert lint_revision(example.safe, deploy=deploy, data=example.safe_data) == []


def test_every_rule_has_an_example() -> None:
    shown = {example.message.strip().splitlines()[0].rpartition(" ")[2] for example in EXAMPLES.values()}
    assert shown >= {rule.__name__.replace("_", "-") for rule in RULES} | ADVICE.keys()


def offered(message: str) -> list[str]:
    """Return the revisions that a message offers: the code between its sentences."""
    code = dedent("\n".join(line for line in message.splitlines() if not line or line.startswith("    ")))
    parts = code.split("# and in a contract revision")[0].split(NEXT)
    return [part for part in parts if "def upgrade" in part]


OFFERED = {
    f"{name} {number}": part
    for name, example in EXAMPLES.items()
    for number, part in enumerate(offered(example.message), start=1)
}


@pytest.mark.parametrize("code", OFFERED.values(), ids=OFFERED)
def test_the_code_that_is_offered_can_be_pasted_and_has_no_findings(lint_revision: Lint, code: str) -> None:
    tree = ast.parse(code)
    upgrade = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "upgrade")
    assert lint_revision("\n".join(map(ast.unparse, upgrade.body))) == []


# What the examples find there, made by hand: columns and indexes that a revision before them would have made.
STAGE = """
ALTER TABLE rag_jobs ADD COLUMN document_id uuid, ADD COLUMN importance int, ADD COLUMN old text;
ALTER TABLE rag_jobs DROP CONSTRAINT rag_jobs_pkey;
CREATE UNIQUE INDEX rag_jobs_id_idx ON rag_jobs (id);
CREATE INDEX rag_jobs_old_idx ON rag_jobs (old);
ALTER TABLE rag_chunks DROP CONSTRAINT rag_chunks_ordinal_check,
    ADD CONSTRAINT rag_chunks_ordinal_check CHECK (ordinal >= 0) NOT VALID;
INSERT INTO rag_jobs (job_type, payload, error_message) VALUES ('embed', '{}', 'none');
"""


@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if offered(example.message)])
def test_the_code_that_is_offered_runs(scripts: ScriptDirectory, database: Database, name: str) -> None:
    shutil.copytree(ROOT / "alembic/versions", scripts.versions, dirs_exist_ok=True)
    config = make_config(Request(Options(database), check_drift="off"))
    config.set_main_option("script_location", scripts.dir)
    run_psql(database, STAGE)
    head = script_directory().get_current_head()
    for number, code in enumerate(offered(EXAMPLES[name].message), start=1):
        revision = f"2099010100000{number}"
        path = Path(scripts.versions, f"{revision}_try.py")
        path.write_text(
            f"import sqlalchemy as sa\nfrom alembic import op\n{code.strip()}\n"
            f'revision = "{revision}"\ndown_revision = "{head}"\n'
        )
        if "def downgrade" not in code:
            path.write_text(f"{path.read_text()}def downgrade() -> None:\n    raise RuntimeError\n")
        head = revision
    command.upgrade(config, "head")
    if "def downgrade" in code:
        command.downgrade(config, "-1")


def test_a_deletion_is_judged_wherever_it_stands_and_not_on_new_tables(lint_revision: Lint) -> None:
    deletion = "WITH gone AS (DELETE FROM rag_jobs RETURNING id) SELECT id FROM gone"
    assert rules(lint_revision(f'op.execute("{deletion}")')) == [("undeclared-deletion", 21)]
    assert lint_revision("op.execute('SELECT 1')", downgrade='op.execute("DELETE FROM rag_jobs")') == []
    block = "with op.get_context().autocommit_block():\n    op.execute(\"DO 'x'\")"
    assert rules(lint_revision("op.execute('SELECT 1')", downgrade=block)) == [("destructive-autocommit", 26)]
    assert (
        lint_revision(
            """
            op.create_table("rag_notes", sa.Column("id", sa.Uuid(), primary_key=True))
            op.execute("DELETE FROM rag_notes")
            """
        )
        == []
    )


# What squawk is asked


def test_what_stands_on_a_new_table_is_not_judged(lint_revision: Lint) -> None:
    assert (
        lint_revision(
            """
            op.create_table("rag_notes", sa.Column("id", sa.Uuid()), sa.Column("text", sa.Text()))
            op.create_index("rag_notes_text_idx", "rag_notes", ["text"])
            op.create_primary_key("rag_notes_pkey", "rag_notes", ["id"])
            op.create_unique_constraint("rag_notes_text_key", "rag_notes", ["text"])
            op.create_check_constraint("rag_notes_text_check", "rag_notes", "text <> ''")
            op.alter_column("rag_notes", "text", nullable=False)
            op.add_column("rag_notes", sa.Column("token", sa.Uuid(), server_default=sa.text("gen_random_uuid()")))
            """
        )
        == []
    )


def test_a_column_in_a_call_over_several_lines_has_its_own_line(lint_revision: Lint) -> None:
    findings = lint_revision(
        """
        op.create_table(
            "rag_notes",
            sa.Column("id", sa.Uuid(), primary_key=True),
            sa.Column("text", sa.String(20)),
        )
        """
    )
    assert rules(findings) == [("prefer-text-field", 24)]


def test_a_statement_of_a_function_beside_upgrade_has_its_own_line(lint_revision: Lint) -> None:
    findings = lint_revision("_build()", imports='\ndef _build() -> None:\n    op.drop_index("i")\n')
    assert rules(findings) == [("require-concurrent-index-deletion", 17)]


def test_the_excluded_rules_are_squawks_and_have_a_reason() -> None:
    squawk = Path(sys.executable).with_name("squawk")
    options = ["--reporter", "json", "--exclude", ",".join(EXCLUDED)]
    done = subprocess.run([squawk, *options], input="SELECT 1;", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]")
    assert all(EXCLUDED.values())


def test_a_configuration_of_squawk_found_on_the_way_changes_nothing(
    lint_revision: Lint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".squawk.toml").write_text('excluded_rules = ["renaming-table"]')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert rules(lint_revision('op.rename_table("rag_jobs", "rag_tasks")')) == [("renaming-table", 21)]


def test_without_squawk_the_extra_is_named(
    scripts: ScriptDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigurationError) as caught:
        lint(scripts=scripts)
    assert str(caught.value) == (
        "squawk, which reads the SQL of the revisions, is not installed.\n"
        "Install ragschema[lint], or squawk-cli beside ragschema."
    )


# Which revisions


def test_only_the_revisions_asked_for_are_linted(lint_revision: Lint, scripts: ScriptDirectory) -> None:
    assert lint_revision('op.rename_table("rag_jobs", "rag_tasks")') != []
    scripts = ScriptDirectory(scripts.dir)
    assert lint(["20251225160000"], scripts) == []
    assert {finding.revision for finding in lint(["head"], scripts)} == {NEW}
    assert {finding.revision for finding in lint(scripts=scripts)} == {NEW}


@pytest.mark.parametrize("revision", ["20990101000000", "base"])
def test_an_unknown_revision_is_refused(scripts: ScriptDirectory, revision: str) -> None:
    with pytest.raises(UsageError):
        lint([revision], scripts)


# What is allowed


@pytest.mark.parametrize(
    ("comment", "is_allowed"),
    [
        ("  # lint: allow require-concurrent-index-deletion: the table is empty", True),
        ("  # lint: allow require-concurrent-index-deletion:", False),
        ("  # lint: allow require-concurrent-index-deletion", False),
        ("  # lint: allow renaming-table: the table is empty", False),
    ],
)
def test_a_finding_is_allowed_by_name_and_with_a_reason(
    lint_revision: Lint, comment: str, is_allowed: bool
) -> None:
    statement = 'op.drop_index("rag_jobs_old_idx")'
    assert (lint_revision(statement + comment) == []) is is_allowed
    assert (lint_revision(f"{comment.strip()}\n{statement}") == []) is is_allowed
    assert lint_revision(f"x = 1{comment}\n{statement}") != []


# Our own rules, further


def test_the_downgrade_obeys_the_rules_of_transactions_too(lint_revision: Lint) -> None:
    findings = lint_revision(
        'op.execute("SELECT 1")',
        downgrade="""
        op.execute("RESET ALL")
        op.execute("SELECT 1; SELECT 2")
        with op.get_context().autocommit_block():
            op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON rag_jobs (job_type)")
        """,
    )
    assert rules(findings) == [
        ("session-set", 25),
        ("two-statements", 26),
        ("autocommit-not-alone", 27),
        ("concurrent-if-not-exists", 28),
    ]


def test_a_downgrade_may_raise_but_not_for_want_of_a_database(lint_revision: Lint) -> None:
    for reads in ("op.get_bind().scalar(sa.text('SELECT 1'))", "raise RuntimeError(\n    'restore'\n)"):
        findings = lint_revision('op.execute("SELECT 1")', downgrade=f"op.execute('SELECT 1')\n{reads}")
        assert rules(findings) == ([] if "raise" in reads else [("needs-a-database", 26)])


@pytest.mark.parametrize(
    ("upgrade", "is_found"),
    [
        ("ALTER TABLE rag_chunks ADD COLUMN a text | ALTER TABLE rag_jobs ADD COLUMN a text", True),
        (
            "ALTER TABLE rag_chunks ADD COLUMN a text | CREATE TRIGGER t AFTER DELETE ON rag_jobs EXECUTE FUNCTION f()",
            True,
        ),
        ("ALTER TABLE rag_chunks ADD COLUMN a text | CREATE TABLE n (a uuid REFERENCES rag_jobs)", True),
        ("CREATE TABLE n (a uuid REFERENCES rag_jobs, b uuid REFERENCES rag_documents)", False),
        (
            "CREATE TABLE n (a uuid) | ALTER TABLE n ADD COLUMN b text | ALTER TABLE rag_jobs ADD COLUMN b text",
            False,
        ),
        ("ALTER TABLE rag_chunks ADD COLUMN a text | ALTER TABLE rag_jobs VALIDATE CONSTRAINT c", False),
        ("ALTER TABLE rag_chunks ADD COLUMN a text | UPDATE rag_jobs SET status = 'new'", False),
        (
            "COMMIT | ALTER TABLE rag_chunks ADD COLUMN a text | ALTER TABLE rag_jobs ADD COLUMN b text | BEGIN",
            False,
        ),
    ],
)
def test_two_tables_are_locked_at_once_or_not(lint_revision: Lint, upgrade: str, is_found: bool) -> None:
    statements = "\n".join(f'op.execute("{statement}")' for statement in upgrade.split(" | "))
    findings = lint_revision(statements, deploy="contract")
    assert ("two-tables-locked" in {finding.rule for finding in findings}) is is_found


def test_an_index_that_is_dropped_locks_the_table_it_was_made_on(lint_revision: Lint) -> None:
    findings = lint_revision(
        """
        op.add_column("rag_chunks", sa.Column("kind", sa.Text()))
        op.drop_index("rag_jobs_status_created_at_idx")  # made by the first revision
        """
    )
    assert ("two-tables-locked", 22) in rules(findings)


# Reading SQL


@pytest.mark.parametrize(
    ("sql", "statements"),
    [
        ("a; b", ["a", "b"]),
        ("a;\n\n", ["a"]),
        ("-- a; b\n c /* ; */", ["c /* ; */"]),
        ("select 'a;b'';', E'\\';', \"a;\"\"\"; c", ["select 'a;b'';', E'\\';', \"a;\"\"\"", "c"]),
        ("do $$ a; $x$ b; $$; do $x$ ; $$ ; $x$", ["do $$ a; $x$ b; $$", "do $x$ ; $$ ; $x$"]),
        (
            "create function f() begin atomic a; b; end; c",
            ["create function f() begin atomic a; b; end", "c"],
        ),
        (" ;; -- nothing", []),
    ],
)
def test_sql_is_split_into_its_statements(sql: str, statements: list[str]) -> None:
    found = list(split_sql(sql))
    assert [text for _, text in found] == statements
    assert all(sql[offset:].startswith(text) for offset, text in found)


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ('ALTER TABLE ONLY "Odd" ADD FOREIGN KEY (a) REFERENCES other.b (id)', ["Odd", "b"]),
        ("ALTER TABLE IF EXISTS s.T ALTER c TYPE text", ["t"]),
        ("ALTER TABLE t VALIDATE CONSTRAINT c", []),
        ("ALTER TABLE t ALTER COLUMN c SET STATISTICS 100", []),
        ("ALTER TABLE t SET (fillfactor = 90)", []),
        ("ALTER TABLE t ALTER COLUMN c SET STORAGE EXTERNAL", ["t"]),
        ("CREATE UNIQUE INDEX i ON ONLY t USING btree (a)", ["t"]),
        ("CREATE INDEX CONCURRENTLY i ON t (a)", []),
        ("DROP INDEX IF EXISTS i, unknown", ["table_of_i"]),
        ("DROP INDEX CONCURRENTLY i", []),
        ("DROP TABLE IF EXISTS a, s.b CASCADE", ["a", "b"]),
        ("CREATE TABLE IF NOT EXISTS n (a int REFERENCES a, b int REFERENCES a)", ["n", "a"]),
        ("CREATE OR REPLACE TRIGGER x BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()", ["t"]),
        ("DROP TRIGGER IF EXISTS x ON t", ["t"]),
        ("CREATE POLICY p ON t USING (true)", ["t"]),
        ("TRUNCATE TABLE a, b", ["a", "b"]),
        ("LOCK TABLE a IN EXCLUSIVE MODE", ["a"]),
        ("UPDATE a SET b = 1", []),
        ("SELECT 1 FROM a", []),
    ],
)
def test_the_tables_that_a_statement_blocks_are_read_from_it(sql: str, tables: list[str]) -> None:
    assert find_locked(sql, {"i": "table_of_i"}) == tables


@pytest.mark.parametrize(
    ("sql", "things"),
    [
        ("DROP TABLE a, b", ["table a", "table b"]),
        ("DROP INDEX CONCURRENTLY IF EXISTS i", ["index i"]),
        ("ALTER TABLE a DROP COLUMN IF EXISTS b, DROP COLUMN c", ["column b of a", "column c of a"]),
        ("ALTER TABLE a DROP CONSTRAINT b", ["constraint b of a"]),
        ("ALTER TABLE a ALTER COLUMN b DROP NOT NULL", []),
    ],
)
def test_what_a_statement_removes_is_read_from_it(sql: str, things: list[str]) -> None:
    assert [str(thing) for thing in find_removed(sql)] == things


@pytest.mark.parametrize(
    ("sql", "things"),
    [
        ("CREATE TABLE a (b int, CONSTRAINT c CHECK (b > 0))", ["table a", "constraint c of a"]),
        ("CREATE INDEX i ON a (b)", ["index i of a"]),
        (
            "ALTER TABLE a ADD COLUMN b int, ADD CONSTRAINT c UNIQUE (b)",
            ["column b of a", "constraint c of a"],
        ),
        ("SELECT 1", []),
    ],
)
def test_what_a_statement_creates_is_read_from_it(sql: str, things: list[str]) -> None:
    assert [str(thing) for thing in find_created(sql)] == things


def test_an_index_is_taken_apart() -> None:
    index = read_index(
        'CREATE UNIQUE INDEX CONCURRENTLY "I" ON s.t USING gin (lower(a) text_ops, (b || \',\') DESC, "C")'
        " INCLUDE (d, e) WITH (m = 16, fastupdate = off) WHERE a IN (1, 2)"
    )
    assert index is not None
    assert (index.name, index.table, index.is_concurrent, index.has_if_not_exists) == ("I", "t", True, False)
    assert index.columns == ["lower(a) text_ops", "(b || ',') DESC", "C"]
    assert index.options == {
        "unique": True,
        "using": "gin",
        "include": ["d", "e"],
        "with_": {"m": 16, "fastupdate": "off"},
        "where": "a IN (1, 2)",
    }
