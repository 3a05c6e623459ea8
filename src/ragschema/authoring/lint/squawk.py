"""squawk, a linter for SQL: what it is asked, and which of its rules the design decides otherwise."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ragschema.errors import ConfigurationError, RagSchemaError

POSTGRESQL = "14"  # the oldest major version that is supported

EXCLUDED: Mapping[str, str] = {
    "require-lock-timeout": "the connection of every migration sets lock_timeout",
    "require-statement-timeout": "a statement waits no longer than lock_timeout, and a build may take hours",
    "require-timeout-settings": "the old name of the two",
    "prefer-robust-stmts": "a revision is one transaction, or heals itself; IF NOT EXISTS hides what is left over",
    "prefer-bigint-over-int": "keys are UUIDs; the integers count within one document",
    "prefer-bigint-over-smallint": "as prefer-bigint-over-int",
    "require-enum-value-ordering": "an appended label is the ordinary case, and drift compares their order",
    "ban-drop-not-null": "it widens: rows and code stay right until the new code writes NULL",
}

# A contract revision runs after the last code that used what it removes: that is what its label says.
ALLOWED_IN_CONTRACT = frozenset(
    {
        "ban-drop-column",
        "ban-drop-constraint",
        "ban-drop-default",
        "ban-drop-domain",
        "ban-drop-function",
        "ban-drop-generated-expression",
        "ban-drop-index",
        "ban-drop-policy",
        "ban-drop-sequence",
        "ban-drop-table",
        "ban-drop-trigger",
        "ban-drop-type",
        "ban-drop-view",
    }
)

# What these fear is the rows and the users of a table: one that the revision itself creates has none. squawk
# sees that for some of them only.
ABOUT_ROWS_AND_USERS = frozenset(
    {
        "adding-field-with-default",
        "adding-foreign-key-constraint",
        "adding-not-nullable-field",
        "adding-required-field",
        "adding-serial-primary-key-field",
        "changing-column-type",
        "constraint-missing-not-valid",
        "disallowed-unique-constraint",
        "renaming-column",
        "renaming-table",
        "require-concurrent-index-creation",
    }
)

# A rule that says less than another one about the same statement.
_COVERED_BY = {
    "constraint-missing-not-valid": {
        "adding-foreign-key-constraint",
        "adding-serial-primary-key-field",
        "disallowed-unique-constraint",
    }
}


@dataclass(frozen=True)
class Violation:
    """What squawk says of a place in a text.

    Attributes:
        rule: The name of its rule.
        offset: The place, in characters from the start of the text.
        message: What is wrong, in its words.
        remedy: What to do, in its words; often empty.
    """

    rule: str
    offset: int
    message: str
    remedy: str


def run_squawk(texts: Mapping[str, str]) -> dict[str, list[Violation]]:
    """Let squawk read SQL, each text a transaction of its own; return what it says, by the text's name.

    Raises:
        ConfigurationError: squawk is not installed.
    """
    with TemporaryDirectory(prefix="ragschema-lint-") as name:
        directory = Path(name)
        config = directory / "squawk.toml"  # else it takes what it finds above the working directory
        config.touch()
        paths = {name: directory / f"{name}.sql" for name in texts}
        for key, path in paths.items():
            path.write_text(texts[key], encoding="utf-8")
        options = ["--reporter", "json", "--pg-version", POSTGRESQL, "--config", str(config)]
        done = subprocess.run(
            [_find_squawk(), *options, *map(str, paths.values())],
            cwd=directory,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
    try:
        reports = json.loads(done.stdout)
    except json.JSONDecodeError as exc:
        raise RagSchemaError(
            "squawk did not answer.", "Run `squawk --version` to see why.", done.stderr.strip()
        ) from exc
    found: dict[str, list[Violation]] = {name: [] for name in texts}
    for report in reports:
        name = Path(report["file"]).stem
        offset = _offset(texts[name], report["line"], report["column"])
        found[name].append(Violation(report["rule_name"], offset, report["message"], report["help"] or ""))
    return found


def is_covered(rule: str, others: set[str]) -> bool:
    """Whether another rule that is broken by the same statement says more."""
    return not others.isdisjoint(_COVERED_BY.get(rule, ()))


def _find_squawk() -> str:
    beside = Path(sys.executable).with_name("squawk")
    found = str(beside) if beside.is_file() else shutil.which("squawk")
    if found is None:
        raise ConfigurationError(
            "squawk, which reads the SQL of the revisions, is not installed.",
            "Install ragschema[lint], or squawk-cli beside ragschema.",
        )
    return found


def _offset(text: str, line: int, column: int) -> int:
    return sum(map(len, text.splitlines(keepends=True)[:line])) + column
