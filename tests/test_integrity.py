"""The history's integrity: rag.sum, HEAD, one head, and what every revision must say and be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from conftest import ROOT, clean_environment
from ragschema.errors import ConfigurationError, RagSchemaError
from ragschema.revisions import checks, docstrings, locations, manifest, scripts, sums
from ragschema.revisions.checks import Problem
from ragschema.revisions.files import RevisionFile, helper_files, read_revision_files
from ragschema.revisions.sums import SumChange

INITIAL = "20251225160000_initial_rag_schema.py"
TITLE = "20251225170000_add_title_and_url.py"
NEW = "20260101000000_add_a_column.py"

REVISION = '''"""Add a column

Somebody needs it.

Locks: ACCESS EXCLUSIVE on rag_jobs, a catalogue change only.
Data: none.
Deploy: expand (before the code that writes it).
Downgrade: drops the column.
"""

import sqlalchemy as sa
from alembic import op

revision = "20260101000000"
down_revision = "20251225170000"


def upgrade() -> None:
    op.add_column("rag_jobs", sa.Column("priority", sa.Integer()))


def downgrade() -> None:
    op.drop_column("rag_jobs", "priority")
'''


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """A copy of the first two revisions, with their rag.sum and HEAD."""
    directory = tmp_path / "alembic"
    shutil.copytree(
        ROOT / "alembic", directory, ignore=shutil.ignore_patterns("__pycache__", "rag.sum", "HEAD")
    )
    for path in (directory / "versions").iterdir():
        if path.name not in (INITIAL, TITLE):
            path.unlink()
    sums.write_sum(directory / "versions")
    return directory / "versions"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def add(versions: Path, *edits: tuple[str, str], name: str = NEW) -> Path:
    """Write a revision after the two, as `create` does: the good one, with some of its text replaced."""
    path = versions / name
    path.write_text(REVISION)
    for old, new in edits:
        edit(path, old, new)
    sums.add_revision(path)
    return path


def messages(problems: list[Problem]) -> list[str]:
    return [f"{problem.file}:{problem.line or ''} {problem.message}" for problem in problems]


# The package as it is


@pytest.mark.author
def test_the_packaged_revisions_are_valid() -> None:
    assert checks.validate() == []


def test_every_frozen_file_is_in_rag_sum() -> None:
    lines = (ROOT / "alembic/versions/rag.sum").read_text().splitlines()[1:]
    names = [line.partition(" ")[0] for line in lines]
    helpers = (ROOT / "src/ragschema").glob("operations_v*/**/*.py")
    routines = (ROOT / "alembic").glob("routines/*")
    revisions = (ROOT / "alembic/versions").glob("*.py")
    assert sorted(names) == sorted(
        [
            *(path.relative_to(ROOT / "src/ragschema").as_posix() for path in helpers),
            *(path.relative_to(ROOT / "alembic").as_posix() for path in routines),
            *(path.name for path in revisions),
        ]
    )
    of_revisions = [name for name in names if name[0].isdigit()]
    assert of_revisions == sorted(of_revisions)


def test_checksums_are_read_without_alembic() -> None:
    code = "import sys; from ragschema.revisions.manifest import read_manifest; read_manifest();"
    code += "print({'alembic', 'sqlalchemy', 'psycopg'} & set(sys.modules))"
    found = subprocess.check_output([sys.executable, "-c", code], text=True, env=clean_environment())
    assert found == "set()\n"


# rag.sum


def test_rag_sum_is_a_chain_under_its_own_hash(versions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "helper_files", dict)
    (versions / INITIAL).write_text('revision = "1"\ndown_revision = None\n')
    (versions / TITLE).write_text('revision = "2"\ndown_revision = "1"\n')
    sums.write_sum(versions)
    assert (versions / "rag.sum").read_text() == (  # by sha256sum
        "sha256:f8fe18dade88d67553793d0177092bc3b247cbd84d4a3a74681702c71987836e\n"
        "20251225160000_initial_rag_schema.py sha256:d03b211380576c4f5549651c29de9fa3a1e6da189f9a6aedcec2836f7d7ddce6\n"
        "20251225170000_add_title_and_url.py sha256:c6bb0e3c9918dbdbb9357060f88d2cc19a024322a81b1c93a9d5536a632cf620\n"
    )
    assert (versions / "HEAD").read_text() == "2\n"


def checksums(versions: Path) -> list[str]:
    return [sums.file_checksum(path) for path in sorted(versions.glob("*.py"))]


def test_new_files_are_new_lines_at_the_end(versions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever they are called: a routine's name sorts before most of those that have landed."""
    _, *landed = (versions / "rag.sum").read_text().splitlines()
    new = versions / "a_v1.sql"
    new.write_text("SELECT 1\n")
    helpers = {"routines/a_v1.sql": new, **helper_files()}
    monkeypatch.setattr(sums, "helper_files", lambda: helpers)
    path = add(versions)
    assert sums.write_sum(versions).added == ["routines/a_v1.sql"]
    _, *lines = (versions / "rag.sum").read_text().splitlines()
    assert lines[: len(landed)] == landed
    assert [line.partition(" ")[0] for line in lines[len(landed) :]] == [path.name, "routines/a_v1.sql"]
    assert not sums.compare_sum(versions)


def test_revisions_are_from_base_to_head_however_they_were_merged(versions: Path) -> None:
    expected = (versions / "rag.sum").read_text()
    first, *lines = expected.splitlines()
    (versions / "rag.sum").write_text("\n".join([first, *lines[:-2], lines[-1], lines[-2]]) + "\n")
    sums.write_sum(versions)
    assert (versions / "rag.sum").read_text() == expected


def test_rag_sum_is_the_same_whatever_the_line_endings(versions: Path) -> None:
    before = (versions / "rag.sum").read_bytes(), checksums(versions)
    for path in versions.glob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert checks.validate(versions) == []
    assert sums.write_sum(versions) == SumChange()
    assert ((versions / "rag.sum").read_bytes(), checksums(versions)) == before


def test_hash_names_what_changed_and_nothing_else(versions: Path) -> None:
    edit(versions / INITIAL, "Initial RAG schema", "Initial schema")
    assert sums.write_sum(versions) == SumChange(changed=[INITIAL])
    add_without_sum = versions / NEW
    add_without_sum.write_text(REVISION)
    assert sums.write_sum(versions) == SumChange(added=[NEW])
    add_without_sum.unlink()
    assert sums.write_sum(versions) == SumChange(removed=[NEW])
    assert sums.write_sum(versions) == SumChange()


def test_an_edited_helper_is_named(versions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "indexes.py"
    monkeypatch.setattr(sums, "helper_files", lambda: {"operations_v1/indexes.py": helper})
    helper.write_text("x = 1\n")
    sums.write_sum(versions)
    helper.write_text("x = 2\n")
    assert messages(checks.validate(versions)) == [
        "operations_v1/indexes.py: It is not the file that rag.sum was written for."
    ]


def test_create_adds_one_line_and_vouches_for_no_other(versions: Path) -> None:
    before = (versions / "rag.sum").read_text().splitlines()[1:]
    edit(versions / TITLE, "Citations show", "Citations should show")
    add(versions)
    assert (versions / "rag.sum").read_text().splitlines()[1:-1] == before
    assert (versions / "HEAD").read_text() == "20260101000000\n"
    assert messages(checks.validate(versions)) == [
        f"{TITLE}: It is not the file that rag.sum was written for."
    ]


def test_create_refuses_a_damaged_rag_sum(versions: Path) -> None:
    edit(versions / "rag.sum", "sha256:", "sha256:0")
    with pytest.raises(ConfigurationError, match=r"rag\.sum is missing or damaged, so 20260101000000_add"):
        add(versions)


@pytest.mark.parametrize("text", ["", "sha256:0\n", "<<<<<<< HEAD\n=======\n>>>>>>> b\n", None])
def test_a_damaged_rag_sum_is_a_problem(versions: Path, text: str | None) -> None:
    if text is None:
        (versions / "rag.sum").unlink()
    else:
        (versions / "rag.sum").write_text(text)
    problems = messages(checks.validate(versions))
    assert problems[-1] == "rag.sum: It is missing, or its lines do not fit together."
    sums.write_sum(versions)
    assert checks.validate(versions) == []


def test_swapped_lines_of_rag_sum_are_a_problem(versions: Path) -> None:
    """Even where the first line was made to fit."""
    _, *lines = (versions / "rag.sum").read_text().splitlines()
    lines = [*lines[:-2], lines[-1], lines[-2]]
    sums._write(versions, sums._texts(dict(line.split(" sha256:") for line in lines), "20251225170000"))
    assert messages(checks.validate(versions)) == [
        "rag.sum: It is missing, or its lines do not fit together."
    ]


def test_an_installed_package_is_not_hashed(monkeypatch: pytest.MonkeyPatch, versions: Path) -> None:
    monkeypatch.setattr(sums, "versions_directory", lambda: versions)
    monkeypatch.setattr(locations, "checkout", lambda: None)
    with pytest.raises(ConfigurationError, match="this is an installed package"):
        sums.write_sum()


# Heads


def git(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    identity = ["-c", "user.name=tester", "-c", "user.email=tester@example.org", "-c", "core.hooksPath="]
    return subprocess.run(
        ["git", *identity, *arguments],
        cwd=directory,
        env=clean_environment() | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_branches_that_add_a_revision_conflict_in_git(versions: Path) -> None:
    git(versions, "init", "-q", "-b", "main", ".")
    git(versions, "add", ".")
    git(versions, "commit", "-qm", "two revisions")
    for branch, number in (("one", "1"), ("two", "2")):
        git(versions, "switch", "-qc", branch, "main")
        add(versions, ("20260101000000", f"2026010100000{number}"), name=f"2026010100000{number}_x.py")
        git(versions, "add", ".")
        assert git(versions, "commit", "-qm", branch).returncode == 0
    merge = git(versions, "merge", "one")
    assert merge.returncode == 1
    assert "CONFLICT (content): Merge conflict in HEAD" in merge.stdout
    assert any(p.file == "HEAD" for p in checks.validate(versions))


MERGE = (
    'In a checkout run `alembic merge --rev-id "$(date -u +%Y%m%d%H%M%S)" -m "Merge heads" 20251225170000'
    " 20260101000000`, write its docstring and `pass` in both functions, and run `rag migrate hash`."
)


def test_two_heads_are_refused_with_the_command_that_merges_them(versions: Path) -> None:
    add(versions, ('"20251225170000"', '"20251225160000"'))
    with pytest.raises(ConfigurationError) as caught:
        checks.check_single_head(ScriptDirectory(versions.parent))
    assert str(caught.value) == (f"The revisions have 2 heads: 20251225170000, 20260101000000.\n{MERGE}")
    assert caught.value.exit_code == 78
    assert checks.validate(versions) == [
        Problem("HEAD", None, "The revisions have 2 heads: 20251225170000, 20260101000000.", MERGE)
    ]
    with pytest.raises(ConfigurationError, match="2 heads"):
        sums.write_sum(versions)


def test_one_head_is_accepted(versions: Path) -> None:
    checks.check_single_head(ScriptDirectory(versions.parent))


def test_the_merge_command_works_without_a_database_and_its_revision_is_valid(versions: Path) -> None:
    add(versions, ('"20251225170000"', '"20251225160000"'))
    shutil.copy(ROOT / "alembic.ini", versions.parents[1])
    command = MERGE.split("`")[1].replace("alembic ", f"{Path(sys.executable).with_name('alembic')} ", 1)
    subprocess.run(
        command,
        shell=True,
        cwd=versions.parents[1],
        env=clean_environment() | {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"},
        check=True,
        capture_output=True,
    )
    merge = next(versions.glob("*_merge_heads.py"))
    assert [p for p in checks.validate(versions) if "template" not in p.message and p.file != "HEAD"] == [
        Problem(merge.name, None, "It is not in rag.sum.", "Run `rag migrate hash`.")
    ]
    text = merge.read_text()
    text = text[text.index("\nrevision = ") :].replace(
        'raise RuntimeError("this upgrade is not written yet")', "pass"
    )
    text = text.replace('raise RuntimeError("this downgrade is not written yet")', "pass")
    merge.write_text(REVISION[: REVISION.index("import")] + text)
    assert sums.write_sum(versions) == SumChange(added=[merge.name])
    assert checks.validate(versions) == []
    checks.check_single_head(ScriptDirectory(versions.parent))


def test_a_wrong_head_file_is_a_problem(versions: Path) -> None:
    (versions / "HEAD").write_text("20251225160000\n")
    assert messages(checks.validate(versions)) == ["HEAD: It does not name the head, 20251225170000."]


# What a revision must say and be


def test_a_good_revision_has_no_problem(versions: Path) -> None:
    add(versions)
    assert checks.validate(versions) == []


def test_the_template_untouched_has_every_problem(versions: Path) -> None:
    """So that a new field of the template is checked too."""
    template = (ROOT / "alembic/script.py.mako").read_text()
    docstring = template[template.index('"""') : template.index("# Answer")].replace("${message}", "A title")
    add(versions, (REVISION[: REVISION.index("import")], docstring))
    assert messages(checks.validate(versions)) == [
        f"{NEW}:1 Why is still the template's text.",
        f"{NEW}:1 Locks: is still the template's text.",
        f"{NEW}:1 Data: is still the template's text.",
        f"{NEW}:1 Deploy: is still the template's text.",
        f"{NEW}:1 Downgrade: is still the template's text.",
    ]


UNSAFE = {
    "no docstring": (
        (REVISION[: REVISION.index("import")], ""),
        [
            "1 The docstring has no title.",
            "1 The docstring has no Why text.",
            "1 The docstring has no Locks:.",
            "1 The docstring has no Data:.",
            "1 The docstring has no Deploy:.",
            "1 The docstring has no Downgrade:.",
        ],
    ),
    "no why": (("Somebody needs it.\n", ""), ["1 The docstring has no Why text."]),
    "no locks": (
        ("Locks: ACCESS EXCLUSIVE on rag_jobs, a catalogue change only.\n", ""),
        ["1 The docstring has no Locks:."],
    ),
    "no data": (("Data: none.\n", ""), ["1 The docstring has no Data:."]),
    "no deploy": (
        ("Deploy: expand (before the code that writes it).\n", ""),
        ["1 The docstring has no Deploy:."],
    ),
    "no downgrade text": (("Downgrade: drops the column.\n", ""), ["1 The docstring has no Downgrade:."]),
    "another deploy": (
        ("expand (before", "at once (before"),
        ["1 Deploy: says neither expand nor contract: at once (before the code that writes it)."],
    ),
    "another id": (
        ('revision = "20260101000000"', 'revision = "20260101000001"'),
        [" The file's name and its revision '20260101000001' do not start with the same 14 digits."],
    ),
    "no upgrade": (("def upgrade", "def upgrades"), [" There is no function upgrade."]),
    "no downgrade": (("def downgrade", "def downgrades"), [" There is no function downgrade."]),
    "pass": (('op.drop_column("rag_jobs", "priority")', "pass"), ["22 downgrade does nothing."]),
    "ellipsis": (
        ('op.drop_column("rag_jobs", "priority")', '"""Nothing."""\n    return None'),
        ["22 downgrade does nothing."],
    ),
    "not written": (
        ('op.drop_column("rag_jobs", "priority")', 'raise RuntimeError("this downgrade is not written yet")'),
        ["22 downgrade is still the template's."],
    ),
    "models": (
        ("from alembic import op", "from alembic import op\nfrom ragschema.models import Job"),
        ["13 It imports ragschema.models, which may change after the revision has landed."],
    ),
    "models by name": (
        ("from alembic import op", "from alembic import op\nfrom ragschema import models"),
        ["13 It imports ragschema.models, which may change after the revision has landed."],
    ),
    "another library": (
        ("from alembic import op", "import numpy as np\nfrom alembic import op"),
        ["12 It imports numpy, which may change after the revision has landed."],
    ),
    "a neighbour": (
        ("from alembic import op", "from alembic import op\nfrom . import helpers"),
        ["13 It imports ., which may change after the revision has landed."],
    ),
    "public": (
        (
            'op.drop_column("rag_jobs", "priority")',
            'op.execute("ALTER TABLE public.rag_jobs DROP COLUMN priority")',
        ),
        ["23 It names the schema public."],
    ),
    "quoted public": (
        (
            'op.drop_column("rag_jobs", "priority")',
            "op.execute('ALTER TABLE \"public\" . rag_jobs DROP COLUMN priority')",
        ),
        ["23 It names the schema public."],
    ),
    "schema=public": (
        ('"rag_jobs", "priority"', '"rag_jobs", "priority", schema="public"'),
        ["23 It names the schema public."],
    ),
    "no parent": (
        ('"20251225170000"', '"20251225180000"'),
        [" It follows revision 20251225180000, which does not exist."],
    ),
    "two bases": (('"20251225170000"', "None"), [f" It follows no revision, and neither does {INITIAL}."]),
    "not Python": (
        ("def upgrade() -> None:", "def upgrade() -> None"),
        [f" {NEW} is not Python: line 18: expected ':'."],
    ),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_each_problem_of_a_revision_is_found_and_named(versions: Path, name: str) -> None:
    change, expected = UNSAFE[name]
    path = add(versions)
    edit(path, *change)
    sums._write(versions, sums._texts({}, "20260101000000"))  # only the revision's own problems are looked at
    found = [p for p in checks.validate(versions) if p.message not in ("It is not in rag.sum.",)]
    assert messages([p for p in found if p.file == NEW]) == [f"{NEW}:{line}" for line in expected]
    assert all(problem.remedy for problem in found)


def test_safe_forms_are_accepted(versions: Path) -> None:
    add(
        versions,
        ("import sqlalchemy as sa\n", "import json\nfrom datetime import UTC\n\nimport sqlalchemy as sa\n"),
        (
            "from alembic import op\n",
            "from alembic import op\nfrom ragschema.operations_v1 import add_check\n",
        ),
        ("from alembic import op\n", "from alembic import op\nfrom ragschema import operations_v1 as ops\n"),
        (
            'op.drop_column("rag_jobs", "priority")',
            'raise RuntimeError("restore the backup, not a public.dump")',
        ),
        ("Somebody needs it.", "Somebody in public. needs it."),
        ("\nData: none.\nDeploy: expand", "\nData: none. Deploy: contract"),
    )
    assert [p.message for p in checks.validate(versions)] == []


def test_a_problem_says_where_what_and_what_to_do() -> None:
    problem = Problem("20260101000000_x.py", 24, "downgrade does nothing.", "Reverse upgrade.")
    assert str(problem) == "20260101000000_x.py:24: downgrade does nothing.\n  Reverse upgrade."


# The docstring


def test_a_docstring_is_read_in_its_parts(versions: Path) -> None:
    script = ScriptDirectory(versions.parent).get_revision("20251225170000")
    assert docstrings.split_docstring(script.module.__doc__ or "") == {
        "title": "Add title and url to document versions",
        "Why": "Citations show a title and a link; both vary by version, so they sit on the version.",
        "Locks": "ACCESS EXCLUSIVE on rag_document_versions, a catalogue change only (nullable, no default).",
        "Data": "none.",
        "Deploy": "expand (before the code that writes them).",
        "Downgrade": "drops both columns and what they hold.",
    }


def test_every_packaged_revision_has_a_label() -> None:
    for script in scripts.script_directory().walk_revisions():
        text = docstrings.split_docstring(script.module.__doc__ or "")["Deploy"]
        assert docstrings.read_deploy(text) in ("expand", "contract")


@pytest.mark.parametrize("name", [NEW, TITLE])
def test_what_is_not_python_is_named_before_anything_is_run(versions: Path, name: str) -> None:
    """Of a file that is as rag.sum has it only the heading is read: whoever edited one is told all the same."""
    add(versions)
    sums.write_sum(versions)
    assert len(manifest._read_manifest(versions, frozenset()).revisions) == 3
    edit(versions / name, "def upgrade() -> None:", "def upgrade() -> None")
    with pytest.raises(RagSchemaError, match=rf"{name} is not Python: line \d+: expected ':'\."):
        manifest._read_manifest(versions, frozenset([("edited", 0, 0)]))


def test_the_heading_of_a_revision_says_what_the_whole_file_says() -> None:
    for file in read_revision_files(ROOT / "alembic" / "versions"):
        whole = RevisionFile(file.path, file.source)
        whole.__dict__["heading"] = whole.tree
        assert (file.revision, file.parents, file.docstring) == (
            whole.revision,
            whole.parents,
            whole.docstring,
        )
        assert len(file.heading.body) < len(whole.tree.body)
