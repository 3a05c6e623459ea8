"""What stands in the Markdown pages: their sections, their blocks of code, and running these as a reader would."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterable
from difflib import unified_diff
from doctest import ELLIPSIS, OutputChecker
from pathlib import Path

from conftest import clean_environment, shared_forks

_ASKING = """
import os as _os, sys as _sys
_sys.path.append({tests!r})
from asking import ask as _ask
_sys.path.pop()
def _run(program, arguments):
    done = _ask({address!r}, program, arguments, _os.getcwd(), _os.environ)
    print(done.stdout, end="", flush=True)
    print(done.stderr, end="", file=_sys.stderr, flush=True)
    done.check_returncode()
"""
_HEADING = re.compile(r"^## (.+)$", re.M)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
_PROMPT = re.compile(r"^\$ ", re.M)
_SHOWN = re.compile(r"print\(.*\)  # (.+)$|^ *# (\S.*)$", re.M)


def section(text: str, name: str) -> str:
    """Return the section of a page below a heading of the second level."""
    parts = _HEADING.split(text)
    return parts[parts.index(name) + 1]


def code_blocks(text: str) -> list[tuple[str, str]]:
    """Return the blocks of code in order, each with its language."""
    return [(match[1], match[2]) for match in _BLOCK.finditer(text)]


def blocks(text: str, language: str) -> list[str]:
    """Return the blocks of code in a language; there is at least one."""
    found = [code for spoken, code in code_blocks(text) if spoken == language]
    assert found, f"no block of {language}"
    return found


def block(text: str, language: str) -> str:
    """Return the first block of code in a language."""
    return blocks(text, language)[0]


def printed(script: str) -> list[str]:
    """Return what a script says that its prints print, in comments behind them."""
    return re.findall(r"print\(.*# (.+)$", script, re.M)


def imported(script: str) -> set[str]:
    """Return the packages that a script imports."""
    return set(re.findall(r"^(?:from|import) (\w+)", script, re.M))


def run_script(script: str, directory: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script in a fork of its own, its environment what is left of this one and what is given."""
    return shared_forks().run("python", ["-c", script], directory, clean_environment() | environment)


def said_to_be_printed(blocks: Iterable[tuple[str, str]]) -> str:
    """Return what blocks say that they print; see `run_blocks`."""
    said = ""
    for language, code in blocks:
        if language == "python":
            said += "".join(f"{shown[1] or shown[2]}\n" for shown in _SHOWN.finditer(code))
        elif language == "console":
            said += "".join(each.partition("\n")[2] for each in _PROMPT.split(code)[1:])
    return said


def run_blocks(
    blocks: Iterable[tuple[str, str]], directory: Path, environment: dict[str, str]
) -> tuple[str, str]:
    """Run blocks in order, those in Python as one script; return what they say they print, and what they print.

    In Python, what is printed stands in a comment: behind ``print(...)``, or on lines of its own. In a console
    block it follows the command, a line that begins with ``$``, and ``...`` stands for any text.

    A command is ``rag`` or ``alembic``, and runs in a fork.

    Args:
        blocks: Of Python and of ``console``; others are passed over.
        directory: Where they run.
        environment: What the script's environment has beside what is left of this one.
    """
    script, expected = [_ASKING.format(tests=str(Path(__file__).parent), address=shared_forks().address)], ""
    for language, code in blocks:
        if language == "python":
            script.append(code)
            expected += "".join(f"{shown[1] or shown[2]}\n" for shown in _SHOWN.finditer(code))
        elif language == "console":
            for transcript in _PROMPT.split(code)[1:]:
                command, _, printed = transcript.partition("\n")
                program, *arguments = shlex.split(command.removeprefix("uv run "))
                script.append(f"_run({program!r}, {arguments!r})")
                expected += printed
    result = run_script("\n".join(script), directory, environment)
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr, result.stderr
    return expected, result.stdout


def assert_printed(expected: str, printed: str) -> None:
    """Compare line by line; ``...`` in what is expected stands for any text."""
    differences = unified_diff(
        expected.splitlines(), printed.splitlines(), "expected", "printed", lineterm=""
    )
    assert OutputChecker().check_output(expected, printed, ELLIPSIS), "\n".join(differences)
