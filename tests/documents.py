"""What stands in the Markdown pages: their sections, their blocks of code, and how a script of theirs runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from conftest import clean_environment
from ragschema.settings import Database

_HEADING = re.compile(r"^## (.+)$", re.M)


def section(text: str, name: str) -> str:
    """Return the section of a page below a heading of the second level."""
    parts = _HEADING.split(text)
    return parts[parts.index(name) + 1]


def block(text: str, language: str) -> str:
    """Return the first block of code in a language."""
    return blocks(text, language)[0]


def blocks(text: str, language: str) -> list[str]:
    """Return the blocks of code in a language; there is at least one."""
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)
    assert found, f"no block of {language}"
    return found


def printed(script: str) -> list[str]:
    """Return what a script says that its prints print, in comments behind them."""
    return re.findall(r"print\(.*# (.+)$", script, re.M)


def imported(script: str) -> set[str]:
    """Return the packages that a script imports."""
    return set(re.findall(r"^(?:from|import) (\w+)", script, re.M))


def run_script(script: str, directory: Path, database: Database) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, with nothing but DATABASE_URL in the environment."""
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=directory,
        env=clean_environment() | {"DATABASE_URL": database.libpq_url()},
        capture_output=True,
        text=True,
        check=False,
    )
