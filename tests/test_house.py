"""The house: imports run downhill, so that a room can be read, and moved, without those above it."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter

from errors_of_source import SOURCE, parsed_sources

FLOORS = """
__init__ __main__
cli
authoring
importing
embedding_models index_health tenants
migrations
aio
collections graph
chat publishing queries
planning
state
jobs
models
database
schema
embeddings
embedded
revisions
sql
operations_v2
operations_v1 values json_text
errors faces words
"""
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS.split("\n")) for room in rooms.split()}


@cache
def read_imports() -> dict[str, set[str]]:
    """Return the modules of the package, each with those that it imports, inside functions too."""
    modules = {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in parsed_sources()
    }
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        found[name] = set()
        for node in ast.walk(parsed_sources()[path]):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ragschema":
                base = (node.module or "").removeprefix("ragschema").removeprefix(".")
                inner = {f"{base}.{alias.name}".removeprefix(".") for alias in node.names}
                found[name] |= {each if each in modules else base or "__init__" for each in inner} - {name}
            elif isinstance(node, ast.Import):
                found[name] |= {alias.name.removeprefix("ragschema.") for alias in node.names} & {*modules}
    return found


def test_no_module_imports_itself_by_way_of_others() -> None:
    TopologicalSorter(read_imports()).prepare()


def test_no_room_imports_itself_by_way_of_others() -> None:
    rooms: dict[str, set[str]] = {room: set() for room in FLOOR}
    for module, imported in read_imports().items():
        room = module.split(".")[0]
        rooms[room] |= {each.split(".")[0] for each in imported} - {room}
    TopologicalSorter(rooms).prepare()


def test_imports_run_downhill() -> None:
    upward = {
        (module, each)
        for module, imported in read_imports().items()
        for each in imported
        if each.split(".")[0] != module.split(".")[0]
        and FLOOR[each.split(".")[0]] <= FLOOR[module.split(".")[0]]
    }
    assert upward == set(), "the first of each pair stands below the second, which it imports, see FLOORS"


def test_nobody_takes_the_metadata_before_the_models_are_in_it() -> None:
    """Base is defined below its models: whoever imports it from there may find no table, and no difference."""
    takers = {
        str(path.relative_to(SOURCE))
        for path, tree in parsed_sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module == "ragschema.schema.base"
        and "Base" in {alias.name for alias in node.names}
    }
    assert takers == {
        "models.py",
        "schema/chat.py",
        "schema/collections.py",
        "schema/documents.py",
        "schema/embedding_models.py",
        "schema/graph.py",
        "schema/jobs.py",
        "schema/schedules.py",
    }


def test_no_module_hands_on_what_another_defines() -> None:
    """A room's __init__ is its face, and models.py that of the schema; elsewhere a name has one home."""
    handed_on = {
        f"{path.relative_to(SOURCE)}: {alias.name}"
        for path, tree in parsed_sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert handed_on == set()


def test_a_module_begins_with_a_noun() -> None:
    """Its first line says what is found there; a clause says it of nobody."""
    clauses = (
        "what where which who how when is are tells watches read look looking moving letting loading writing"
    )
    found = {}
    for path, tree in parsed_sources().items():
        first = (ast.get_docstring(tree) or "").partition("\n")[0]
        if not path.relative_to(SOURCE).parts[0].startswith("operations_v"):  # frozen
            found[str(path.relative_to(SOURCE))] = first
    assert {name: first for name, first in found.items() if not first.endswith(".")} == {}
    assert {name: first for name, first in found.items() if first.lower().split()[0] in clauses.split()} == {}


def test_modules_that_publish_are_read_in_one_sitting() -> None:
    lines = {path.name: path.read_text().count("\n") for path in (SOURCE / "publishing").glob("*.py")}
    assert {name: count for name, count in lines.items() if count > 300} == {}
