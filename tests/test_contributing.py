"""CONTRIBUTING.md is true: who follows it gets a column, another function and a table, and the tests pass."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, clean_environment, copy_checkout, copy_sources
from documents import code_blocks, section

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
SECTIONS = ("Add a column", "Change a function or a trigger", "Add a table", "What to run")
ANSWERS = """
Why: a test follows the page.

Locks: ACCESS EXCLUSIVE on rag_documents for a moment.
Data: none.
Deploy: expand (before the code that needs it).
Downgrade: drops what it holds.
"""


def apply_diff(root: Path, diff: str) -> None:
    """Change a file as a block of the page shows: its lines with - and without a mark stand there together."""
    header, *lines = diff.splitlines()
    path = root / header.removeprefix("--- ")
    old = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
    new = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
    text = path.read_text() if path.exists() else ""
    assert not old or text.count(old) == 1, f"{path.name} has not, once:\n{old}"
    path.write_text(text.replace(old, new) if old else new)


def answer(revision: Path) -> None:
    """Answer the questions of a draft, and delete its comment."""
    text = revision.read_text()
    title, code = text.partition("\n")[0], text[text.index("\n# ") :]
    code = re.sub(r"^#.*\n", "", code.lstrip("\n"), flags=re.M)
    revision.write_text(f'{title}\n{ANSWERS}"""\n\n{code.lstrip()}')


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    copy = copy_checkout(tmp_path)
    for name in ("tests", "docs"):
        copy_sources(ROOT / name, copy / name)
    for path in ROOT.iterdir():
        if path.is_file() and path.name not in (".git", ".env"):
            shutil.copy(path, copy)
    return copy


@pytest.mark.long
def test_who_follows_the_page_ends_with_tests_that_pass(checkout: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "uv").write_text('#!/bin/sh\nshift\nexec "$@"\n')  # uv run: in this environment
    (programs / "uv").chmod(0o755)
    environment = {n: v for n, v in clean_environment().items() if not n.startswith(("PYTEST", "RAGSCHEMA"))}
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), environment["PATH"]])
    environment |= {"PATH": path, "PYTHONPATH": str(checkout / "src"), "PYTEST_ADDOPTS": "-n0"}

    def run(command: str) -> str:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=checkout,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    for name in SECTIONS:
        for language, code in code_blocks(section(PAGE, name)):
            if language == "diff":
                apply_diff(checkout, code)
                continue
            for command in re.findall(r"^\$ (.+)$", code, re.M):
                shown = run(command)
                if " create " in command:
                    answer(Path(shown.strip()))
                if command.endswith("freeze"):
                    changed = {"alembic/fingerprints.json", "schema.sql", "docs/schema.md"}
                    assert changed < {line.removeprefix("changed ") for line in shown.splitlines()}
                if "pytest" in command:
                    assert re.search(r"\b(?:[89]|1\d) passed", shown)
    assert "rag_notes_touch_updated_at" in (checkout / "schema.sql").read_text()


def test_it_is_one_page() -> None:
    assert len(PAGE.splitlines()) <= 130
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (ROOT / link).is_file(), link


def test_the_newest_python_is_found_where_pyenv_keeps_it(tmp_path: Path) -> None:
    """Its shims show uv one version only; a release candidate and a build without the lock are no newest Python."""
    for version in ("3.9.18", "3.14.9", "3.14.10", "3.14.11rc1", "3.14.11t"):
        directory = tmp_path / "versions" / version / "bin"
        directory.mkdir(parents=True)
        (directory / "python").touch()
    found = subprocess.run(
        [ROOT / ".ci" / "ranges", "newest"],
        env=clean_environment() | {"PYENV_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == [str(tmp_path / "versions" / "3.14.10" / "bin" / "python")]
