"""Refusals: one fact has one text, whoever is asked, and one room that says it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from conftest import connect
from errors_of_source import SOURCE, parsed_sources
from ragschema import migrations
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.errors import DatabaseAhead, RagSchemaError, UnmanagedDatabase
from ragschema.migrations.health import check_health

FROZEN = ("operations_v1", "operations_v2")


def refusal_of(call: Callable[[], object]) -> tuple[type, str, str]:
    with pytest.raises(RagSchemaError) as refused:
        call()
    return type(refused.value), refused.value.message, refused.value.remedy


def of_health(database: Database) -> tuple[str, str]:
    return next((c.finding, c.remedy) for c in check_health(Options(database)) if c.name == "revision")


ASKED: dict[str, Callable[[Database], object]] = {
    "upgrade": migrations.upgrade,
    "plan": migrations.plan,
    "verify": migrations.verify,
    "wait": lambda database: migrations.wait(database, timeout=30),
}


def test_a_database_ahead_is_refused_in_one_text(database: Database) -> None:
    with connect(database) as connection:
        connection.execute("UPDATE rag_alembic_version SET version_num = '29990101000000'")
    refusals = {refusal_of(lambda ask=ask: ask(database)) for ask in ASKED.values()}  # type: ignore[misc]
    assert len(refusals) == 1
    [(kind, *said)] = refusals
    assert kind is DatabaseAhead
    assert said == [
        "The database is at revision 29990101000000, which this ragschema does not know.",
        "Nothing was changed. Use the ragschema that wrote it, or a newer one.",
    ]
    assert of_health(database) == tuple(said)


def test_tables_without_a_version_row_are_refused_in_one_text(database: Database) -> None:
    with connect(database) as connection:
        connection.execute("DELETE FROM rag_alembic_version")
    asked = ("upgrade", "plan", "verify")
    refusals = {refusal_of(lambda name=name: ASKED[name](database)) for name in asked}  # type: ignore[misc]
    assert len(refusals) == 1
    [(kind, *said)] = refusals
    assert kind is UnmanagedDatabase
    assert said[0] == (
        "The database has our tables, but no row of rag_alembic_version says at which revision."
    )
    assert of_health(database) == tuple(said)


def test_a_database_without_our_tables_is_refused_in_one_text(empty_database: Database) -> None:
    refusals = {
        refusal_of(lambda: migrations.verify(empty_database)),
        refusal_of(lambda: migrations.adopt(empty_database)),
    }
    assert [kind for kind, *_ in refusals] == [UnmanagedDatabase]


def test_a_revision_that_does_not_exist_is_refused_alike(database: Database) -> None:
    remedies = {
        refusal_of(lambda: migrations.plan(database, "1"))[2],
        refusal_of(lambda: migrations.adopt(database, baseline="1"))[2],
        refusal_of(lambda: migrations.downgrade(database, "1"))[2],
    }
    assert remedies == {"Run `rag migrate history` to see the revisions."}


@cache
def errors_raised() -> list[tuple[str, str, str]]:
    """Return the class, the first sentence and the module of every error of ours that is made."""
    nodes = {
        str(path.relative_to(SOURCE)): list(ast.walk(tree))
        for path, tree in parsed_sources().items()
        if path.relative_to(SOURCE).parts[0] not in FROZEN
    }
    classes = [node for each in nodes.values() for node in each if isinstance(node, ast.ClassDef)]
    ours = {"RagSchemaError"}
    for _ in range(3):  # as deep as errors are derived
        ours |= {node.name for node in classes if ours & {getattr(base, "id", "") for base in node.bases}}
    return [
        (ast.unparse(node.func), text_of(node.args[0]), module)
        for module, each in nodes.items()
        for node in each
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ours and node.args
    ]


def text_of(node: Any) -> str:
    """Return a string as written, ``{}`` for what is put into it."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    return "{}"


def test_no_fact_is_written_twice() -> None:
    places = defaultdict(list)
    for kind, text, module in errors_raised():
        if sum("{}" not in word for word in text.split()) > 3:  # "{} is empty." says nothing alone
            places[kind, text].append(module)
    assert len(places) > 100
    assert {each: modules for each, modules in places.items() if len(modules) > 1} == {}


def test_a_fact_that_has_an_error_of_its_own_is_raised_in_one_room() -> None:
    rooms = defaultdict(set)
    for kind, _, module in errors_raised():
        rooms[kind].add(module)
    assert rooms["DatabaseAhead"] == {"revisions/manifest.py"}
    assert rooms["UnmanagedDatabase"] == {"state/status.py"}
    assert rooms["DataLossRefused"] == {
        "migrations/loss_guard.py",
        "embedding_models/dropping.py",
        "tenants/dropping.py",
    }
