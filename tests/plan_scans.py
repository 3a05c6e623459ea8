"""Scans of a statement's plan: what it reads, and what of that was executed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy import Executable, event
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler


@dataclass(frozen=True)
class Scan:
    """One node of a plan that reads a table, or fills a bitmap for one that does."""

    kind: str
    table: str | None
    index: str | None
    was_executed: bool
    rows: float


EXPLAIN = "EXPLAIN (ANALYZE, FORMAT JSON, COSTS OFF, TIMING OFF, BUFFERS OFF) "


def scans(session: Session, statement: Executable) -> list[Scan]:
    """Execute a statement with a plan made for its values; return what it read."""

    def explain(*arguments: Any) -> tuple[str, Any]:
        return EXPLAIN + arguments[2], arguments[3]

    connection = session.connection()
    event.listen(connection, "before_cursor_execute", explain, retval=True)
    try:
        cursor = connection.execute(statement).cursor
        assert cursor is not None
        return scans_of(cursor.fetchall())
    finally:
        event.remove(connection, "before_cursor_execute", explain)


def generic_scans(session: Session, statement: sa.ClauseElement) -> list[Scan]:
    """Execute a statement as a prepared one, with a plan made for any values; return what it read."""
    compiled = statement.compile(session.connection().engine)
    assert isinstance(compiled, SQLCompiler)
    state = compiled.construct_expanded_state()
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", state.statement)))
    prepared = re.sub(r"%\((\w+)\)s", lambda match: f"${names.index(match[1]) + 1}", state.statement)
    values = [state.parameters[name] for name in names]
    literals = [str(value.tolist()) if isinstance(value, np.ndarray) else value for value in values]
    raw = session.connection().connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    raw.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    raw.execute(f"PREPARE asked AS {prepared}".encode())
    try:
        given = sql.SQL(", ").join(map(sql.Literal, literals))
        execution = sql.SQL("EXECUTE asked ({})").format(given) if names else sql.SQL("EXECUTE asked")
        return scans_of(raw.execute(sql.SQL(EXPLAIN) + execution).fetchall())
    finally:
        raw.execute("DEALLOCATE asked")


def scans_of(rows: Sequence[Any]) -> list[Scan]:
    """Return the scans of a plan; on Citus of that of the tenant's node, under the names that they have here."""

    def walk(node: dict[str, Any]) -> Iterator[Scan]:
        table, index = (_without_shard(node.get(key)) for key in ("Relation Name", "Index Name"))
        if table or index:
            yield Scan(node["Node Type"], table, index, node["Actual Loops"] > 0, node["Actual Rows"])
        for child in node.get("Plans", []):
            yield from walk(child)
        for task in node.get("Distributed Query", {}).get("Job", {}).get("Tasks", []):
            (((remote,),),) = (task["Remote Plan"],)
            yield from walk(remote["Plan"])

    (((root,),),) = rows
    return list(walk(root["Plan"]))


def _without_shard(name: str | None) -> str | None:
    return None if name is None else re.sub(r"_\d{6,}$", "", name)


def indexes_read(found: list[Scan]) -> set[str]:
    return {scan.index for scan in found if scan.index is not None and scan.was_executed}


def tables_read_whole(found: list[Scan]) -> set[str | None]:
    return {scan.table for scan in found if scan.kind == "Seq Scan" and scan.was_executed}
