"""Walks through the graph, against walks in memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from conftest import make_database, make_engine
from graph_data import add_graph
from ragschema import aio, create_async_engine
from ragschema.database.settings import Database
from ragschema.graph import GraphError, neighbours, paths


@pytest.fixture(scope="module")
def database(server: Mapping[str, str], template: str) -> Iterator[Database]:
    """The module's: the tests roll back."""
    yield from make_database(server, template)


engine = pytest.fixture(scope="module")(make_engine)


def random_edges(number: int, entities: int) -> list[tuple[str, str, str, float]]:
    chosen = random.Random(number)
    pairs = {
        (f"e{chosen.randrange(entities)}", f"t{chosen.randrange(3)}", f"e{chosen.randrange(entities)}")
        for _ in range(number)
    }
    weights = chosen.sample(range(1, 10 * len(pairs)), len(pairs))  # no two alike, so that the order is known
    return [(*pair, float(weight)) for pair, weight in zip(sorted(pairs), weights, strict=True)]


def distances(
    edges: list[tuple[str, str, str, float]], begun: str, direction: str = "both"
) -> dict[str, int]:
    """Return how many relations away each entity is."""
    found, level, hops = {begun: 0}, {begun}, 0
    while level:
        hops += 1
        out = {edge[2] for edge in edges if edge[0] in level and direction != "in"}
        into = {edge[0] for edge in edges if edge[2] in level and direction != "out"}
        level = (out | into) - found.keys()
        found |= dict.fromkeys(level, hops)
    return found


@pytest.mark.parametrize("direction", ["both", "out", "in"])
@pytest.mark.parametrize("hops", [1, 2, 3])
def test_neighbours_are_those_of_a_walk_in_memory(session: Session, hops: int, direction: str) -> None:
    edges = random_edges(90, 60)
    ids = add_graph(session, edges)
    names = {id_: name for name, id_ in ids.items()}
    for begun in ("e1", "e2", "e3"):
        found = neighbours(session, [ids[begun]], hops=hops, direction=direction)  # type: ignore[arg-type]
        wanted = {name: far for name, far in distances(edges, begun, direction).items() if 1 <= far <= hops}
        assert {each.name: each.hops for each in found} == wanted
        assert [each.hops for each in found] == sorted(each.hops for each in found)
        for each in found:
            ends = (names[each.from_id], each.name)
            source, target = ends if each.is_outgoing else ends[::-1]
            assert (source, each.relation_type, target, each.weight) in edges


def test_of_a_hub_the_weightiest_relations_are_followed(session: Session) -> None:
    ids = add_graph(session, [("hub", "t", f"leaf {number}", float(number)) for number in range(60)])
    found = neighbours(session, [ids["hub"]], fanout=3)
    assert [each.name for each in found] == ["leaf 59", "leaf 58", "leaf 57"]
    assert [each.weight for each in found] == [59, 58, 57]
    assert len(neighbours(session, [ids["hub"]], fanout=50, frontier=20)) == 20
    assert len(neighbours(session, [ids["leaf 1"]], hops=2)) == 1 + 25


def test_several_entities_are_begun_at_once(session: Session) -> None:
    ids = add_graph(session, [("a", "t", "b"), ("c", "t", "d"), ("a", "t", "c")])
    found = neighbours(session, [ids["a"], ids["c"]])
    assert {each.name for each in found} == {"b", "d"}
    assert neighbours(session, []) == []


def test_only_some_types_are_followed(session: Session) -> None:
    ids = add_graph(session, [("a", "knows", "b"), ("a", "owns", "c"), ("b", "knows", "d")])
    found = neighbours(session, [ids["a"]], hops=2, relation_types=["knows"])
    assert [each.name for each in found] == ["b", "d"]
    assert neighbours(session, [ids["a"]], relation_types=[]) == []
    assert paths(session, ids["c"], ids["d"], relation_types=["knows"]) == []
    assert len(paths(session, ids["c"], ids["d"])) == 1


def test_what_is_not_current_is_not_walked(session: Session) -> None:
    ids = add_graph(session, [("a", "t", "b"), ("b", "t", "c"), ("a", "t", "d")])
    hide = "UPDATE rag_{} SET is_current = false, is_imported = false WHERE {} = :id"
    session.execute(sa.text(hide.format("relations", "target_id")), {"id": ids["d"]})
    assert [each.name for each in neighbours(session, [ids["a"]], hops=2)] == ["b", "c"]
    session.execute(sa.text(hide.format("entities", "id")), {"id": ids["b"]})
    assert neighbours(session, [ids["a"]], hops=2) == []
    assert neighbours(session, [ids["b"]]) == []
    assert paths(session, ids["a"], ids["c"]) == []


def test_an_entity_that_was_merged_stands_for_the_one_that_was_kept(session: Session) -> None:
    ids = add_graph(session, [("kept", "t", "b")], names=["merged"])
    session.execute(
        sa.text(
            "UPDATE rag_entities SET merged_into = :kept, is_current = false, is_imported = false WHERE id = :merged"
        ),
        {"kept": ids["kept"], "merged": ids["merged"]},
    )
    assert [each.name for each in neighbours(session, [ids["merged"]])] == ["b"]
    (path,) = paths(session, ids["merged"], ids["b"])
    assert [each.name for each in path.entities] == ["kept", "b"]
    assert paths(session, ids["merged"], ids["kept"]) == []


@pytest.mark.parametrize("direction", ["both", "out", "in"])
@pytest.mark.parametrize("exhaustive", [True, False])
def test_paths_are_shortest_where_nothing_is_capped(
    session: Session, direction: str, exhaustive: bool
) -> None:
    edges = random_edges(80, 60)
    ids = add_graph(session, edges)
    chosen = random.Random(3)
    found = 0
    for _ in range(40):
        a, b = chosen.sample(sorted(ids), 2)
        far = distances(edges, a, direction).get(b, 99)
        there = paths(session, ids[a], ids[b], max_hops=5, direction=direction, exhaustive=exhaustive)  # type: ignore[arg-type]
        assert bool(there) == (far <= 5), (a, b, far)
        found += bool(there)
        for path in there:
            assert len(path.relations) == far
            names = [each.name for each in path.entities]
            assert (names[0], names[-1]) == (a, b)
            assert len({*names}) == len(names)
            for before, after, relation in zip(names[:-1], names[1:], path.relations, strict=True):
                ends = (relation.source_id, relation.target_id)
                assert ends in {(ids[before], ids[after]), (ids[after], ids[before])}
                assert direction == "both" or ends == (
                    (ids[before], ids[after]) if direction == "out" else (ids[after], ids[before])
                )
    assert found > 3


def test_caps_may_hide_the_shortest_path_and_exhaustive_does_not(session: Session) -> None:
    heavy = [("a", "t", f"noise {number}", 9.0) for number in range(30)]
    more = [("b", "t", f"other {number}", 9.0) for number in range(30)]
    ids = add_graph(
        session, [*heavy, *more, ("a", "t", "b", 0.1), ("a", "t", "c", 10.0), ("c", "t", "b", 10.0)]
    )
    (capped,) = paths(session, ids["a"], ids["b"])
    assert [each.name for each in capped.entities] == ["a", "c", "b"]
    (shortest,) = paths(session, ids["a"], ids["b"], exhaustive=True)
    assert [each.name for each in shortest.entities] == ["a", "b"]


def test_several_paths_of_one_length(session: Session) -> None:
    ids = add_graph(session, [(a, "t", b) for middle in "xyz" for a, b in (("a", middle), (middle, "b"))])
    found = paths(session, ids["a"], ids["b"])
    assert sorted(path.entities[1].name for path in found) == ["x", "y", "z"]
    assert len(paths(session, ids["a"], ids["b"], limit=2)) == 2
    assert paths(session, ids["a"], ids["b"], max_hops=1) == []
    assert paths(session, ids["a"], uuid4()) == []


def test_arguments_are_refused_before_anything_is_sent() -> None:
    nobody: Session = None  # type: ignore[assignment]
    id_ = uuid4()
    for refused in (
        lambda: neighbours(nobody, [id_], hops=4),
        lambda: neighbours(nobody, [id_], hops=True),
        lambda: neighbours(nobody, id_),  # type: ignore[arg-type]
        lambda: neighbours(nobody, ["a"]),  # type: ignore[list-item]
        lambda: neighbours(nobody, [id_], fanout=0),
        lambda: neighbours(nobody, [id_], direction="up"),  # type: ignore[arg-type]
        lambda: neighbours(nobody, [id_], relation_types="knows"),
        lambda: paths(nobody, "a", id_),  # type: ignore[arg-type]
        lambda: paths(nobody, id_, id_, max_hops=7),
        lambda: paths(nobody, id_, id_, limit=0),
    ):
        with pytest.raises(GraphError):
            refused()


def test_walks_in_async_code(database: Database, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        ids = add_graph(connection, [("async a", "t", "async b")])

    async def walk() -> tuple[list[str], list[UUID]]:
        asynchronous = create_async_engine(database.libpq_url())
        async with asynchronous.connect() as connection:
            near = await aio.graph.neighbours(connection, [ids["async a"]])
            (path,) = await aio.graph.paths(connection, ids["async a"], ids["async b"])
        await asynchronous.dispose()
        return [each.name for each in near], [each.entity_id for each in path.entities]

    assert asyncio.run(walk()) == (["async b"], [ids["async a"], ids["async b"]])
