"""A plan as data, and as the JSON document that ``rag migrate plan --out`` writes.

The document has ``format`` 1, the attributes of `Plan` and of what is in it, and ``hazards_count``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ragschema.errors import ConfigurationError
from ragschema.planning.hazards import Hazard
from ragschema.revisions.docstrings import Deploy
from ragschema.revisions.manifest import RevisionId

Method = Literal["rehearsal", "static"]

FORMAT = 1


@dataclass(frozen=True)
class Lock:
    """A lock that a statement takes on a table that exists.

    Attributes:
        table: The table.
        mode: The strongest mode, as PostgreSQL's documentation names it.
        rows: The server's estimate of its rows; None where it has never counted them.
        bytes: Its total size, with indexes and TOAST.
    """

    table: str
    mode: str
    rows: int | None
    bytes: int


@dataclass(frozen=True)
class StatementPlan:
    """A statement.

    Attributes:
        sql: Its text.
        autocommit: Whether it commits by itself, outside the revision's transaction.
        locks: Its locks on tables that exist.
        rewrites: The tables that exist and are written anew.
        hazards: What may hurt.
    """

    sql: str
    autocommit: bool
    locks: tuple[Lock, ...]
    rewrites: tuple[str, ...]
    hazards: tuple[Hazard, ...]


@dataclass(frozen=True)
class RevisionPlan:
    """A pending revision, or the head script, which makes what all of them leave.

    Attributes:
        revision: Its id; of the head script, head.
        summary: The first line of its docstring.
        deploy: ``expand`` or ``contract``.
        checksum: SHA-256 of its file.
        method: How its locks were found: ``static`` also for those after one that fails in rehearsal.
        hazards: Those of the revision as a whole.
        statements: Its statements, in order.
    """

    revision: RevisionId
    summary: str
    deploy: Deploy
    checksum: str
    method: Method
    hazards: tuple[Hazard, ...]
    statements: tuple[StatementPlan, ...]


@dataclass(frozen=True)
class Plan:
    """An upgrade of a database, before it is run.

    Attributes:
        database: The database, without its password.
        schema: The schema of the tables.
        current: The revision the database is at, None where it is empty.
        target: The revision the upgrade ends at.
        catalogue: SHA-256 of the catalogue of the schema.
        method: ``rehearsal`` on a scratch server with the target's schema, or ``static``: from the text alone.
        notes: How the plan was made, where that matters.
        revisions: The pending revisions, in order; before them those that are owed.
        expand_only: Whether it passes over contract revisions.
        is_creation: Whether the head script makes everything at once; its one step has the id of head.
    """

    database: str
    schema: str
    current: str | None
    target: RevisionId
    catalogue: str
    method: Method
    notes: tuple[str, ...]
    revisions: tuple[RevisionPlan, ...]
    expand_only: bool = False
    is_creation: bool = False

    @property
    def hazards_count(self) -> int:
        """How many hazards there are."""
        return sum(
            len(revision.hazards) + sum(len(statement.hazards) for statement in revision.statements)
            for revision in self.revisions
        )


def document(plan: Plan) -> dict[str, object]:
    """Return a plan as it is in JSON."""
    return {"format": FORMAT, **asdict(plan), "hazards_count": plan.hazards_count}


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan to a file.

    Raises:
        ConfigurationError: It cannot be written.
    """
    try:
        path.write_text(json.dumps(document(plan), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as exc:
        raise ConfigurationError(
            f"The plan cannot be written to {path}: {exc.strerror or exc}.", "Name another file with --out."
        ) from exc


def read_plan(path: Path) -> Plan:
    """Read a plan from a file.

    Raises:
        ConfigurationError: There is none in it, or one in a newer format.
    """
    remedy = "Make one with `rag migrate plan --out FILE`."
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] == FORMAT:
            return _plan_of(found)
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc.strerror or exc}.", remedy) from exc
    except (ValueError, TypeError, KeyError) as exc:
        raise ConfigurationError(f"{path} is not a plan.", remedy) from exc
    raise ConfigurationError(
        f"The plan in {path} has format {found['format']}; this ragschema reads {FORMAT}.",
        "Make a new plan with this ragschema.",
    )


def _plan_of(found: Mapping[str, Any]) -> Plan:
    names = ("database", "schema", "current", "target", "catalogue", "method")
    revisions = tuple(
        RevisionPlan(
            **{name: each[name] for name in ("revision", "summary", "deploy", "checksum", "method")},
            hazards=_hazards_of(each),
            statements=tuple(
                StatementPlan(
                    statement["sql"],
                    statement["autocommit"],
                    tuple(Lock(**lock) for lock in statement["locks"]),
                    tuple(statement["rewrites"]),
                    _hazards_of(statement),
                )
                for statement in each["statements"]
            ),
        )
        for each in found["revisions"]
    )
    return Plan(
        **{name: found[name] for name in names},
        notes=tuple(found["notes"]),
        revisions=revisions,
        expand_only=found.get("expand_only", False),  # plans made before these were there have none
        is_creation=found.get("is_creation", False),
    )


def _hazards_of(found: Mapping[str, Any]) -> tuple[Hazard, ...]:
    return tuple(Hazard(**hazard) for hazard in found["hazards"])
