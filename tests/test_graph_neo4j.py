"""Graphs of Neo4j: read from its exports, written back without loss, resumed, and joined with what texts say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from conftest import connect, made_database
from ragschema.database.options import Options, find_options
from ragschema.database.settings import Database
from ragschema.errors import ImportRefused, LockNotObtained, RagSchemaError
from ragschema.importing.neo4j import GraphWishes, export_graph, import_graph
from ragschema.importing.neo4j.admin_csv import join, split
from ragschema.importing.neo4j.items import RECORDS, merge
from ragschema.importing.sessions import lock

NODES = [
    {
        "type": "node",
        "id": "0",
        "labels": ["User"],
        "properties": {
            "born": "2015-07-04T19:32:24",
            "name": "Adam",
            "place": {"crs": "wgs-84", "latitude": 33.46789, "longitude": 13.1, "height": None},
            "age": 42,
            "male": True,
            "kids": ["Sam", "Anna", "Grace"],
            "description": "The first",
        },
    },
    {
        "type": "node",
        "id": "1",
        "labels": ["User", "Admin"],
        "properties": {"name": "Jim", "ratio": 1.0, "age": 42},
    },
    {"type": "node", "id": "2", "labels": ["User"], "properties": {"name": " jim", "far": 1e22, "empty": []}},
    {"type": "node", "id": "3", "properties": {"name": 'a\tb\\c\n"d" ü 漢 \\u0041'}},
]
EDGES = [
    {
        "id": "0",
        "type": "relationship",
        "label": "KNOWS",
        "properties": {"bffSince": "P5M1DT12H", "since": 1993},
        "start": {"id": "0", "labels": ["User"]},
        "end": {"id": "1", "labels": ["User", "Admin"]},
    },
    {
        "id": "1",
        "type": "relationship",
        "label": "KNOWS",
        "properties": {"weight": 2.5},
        "start": {"id": "0", "labels": ["User"]},
        "end": {"id": "1", "labels": ["User", "Admin"]},
    },
    {
        "id": "2",
        "type": "relationship",
        "label": "KNOWS",
        "start": {"id": "2", "labels": ["User"]},
        "end": {"id": "3", "labels": []},
    },
]


@pytest.fixture
def options(database: Database) -> Options:
    return find_options(database)


def write_lines(path: Path, items: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))
    return path


def exported(options: Options, directory: Path) -> list[dict[str, Any]]:
    path = directory / "exported.jsonl"
    with path.open("w") as out:
        export_graph(options, json_lines=out)
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_id(items: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    found = {(item["type"], item["id"]): item for item in items}
    assert len(found) == len(items)
    return found


def read(database: Database, statement: str) -> list[Any]:
    with connect(database) as connection:
        return connection.execute(statement.encode()).fetchall()


def test_json_lines_go_in_and_out_without_loss(options: Options, database: Database, tmp_path: Path) -> None:
    """Also where two nodes are one entity here, and two relationships one relation."""
    path = write_lines(tmp_path / "all.jsonl", [*NODES, *EDGES])
    done = import_graph(options, [path])
    assert (done.nodes, done.entities_added, done.entities_changed) == (4, 3, 1)
    assert (done.relationships, done.relations_added, done.relations_changed) == (3, 2, 1)
    back = by_id(exported(options, tmp_path))
    assert back == by_id([*NODES, *EDGES])
    assert isinstance(back["node", "2"]["properties"]["far"], float)
    assert isinstance(back["node", "1"]["properties"]["ratio"], float)
    rows = read(
        database,
        "SELECT entity_type, name, description, is_current, is_imported FROM rag_entities ORDER BY 2",
    )
    assert ("User", "Adam", "The first", True, True) in rows
    assert {row[0] for row in rows} == {"User", "Node"}
    assert read(database, "SELECT weight FROM rag_relations ORDER BY weight") == [(1.0,), (2.5,)]


def test_importing_again_changes_nothing_and_then_what_has_changed(
    options: Options, database: Database, tmp_path: Path
) -> None:
    first = write_lines(tmp_path / "all.jsonl", [*NODES, *EDGES])
    import_graph(options, [first])
    ids = read(database, "SELECT id FROM rag_entities UNION SELECT id FROM rag_relations ORDER BY 1")
    again = import_graph(options, [first])
    assert (again.entities_added, again.entities_changed) == (0, 0)
    assert (again.relations_added, again.relations_changed) == (0, 0)
    changed = json.loads(json.dumps([*NODES, *EDGES]))
    changed[2]["properties"] = {"name": " jim", "near": 1}
    changed[4]["properties"] = {"since": 1994}
    third = import_graph(options, [write_lines(tmp_path / "new.jsonl", changed)])
    assert (third.entities_changed, third.relations_changed) == (1, 1)
    assert by_id(exported(options, tmp_path)) == by_id(changed)
    assert read(database, "SELECT id FROM rag_entities UNION SELECT id FROM rag_relations ORDER BY 1") == ids


@pytest.mark.parametrize(
    ("weight", "kept"),
    [(1e-300, 0.0), (-1e-300, 1.0), (1e300, 1.0), (10**400, 1.0), ("heavy", 1.0), (0.5, 0.5)],
)
def test_a_weight_that_the_column_cannot_say_stays_a_property(
    options: Options, database: Database, tmp_path: Path, weight: object, kept: float
) -> None:
    edge = EDGES[0] | {"properties": {"weight": weight}}
    import_graph(options, [write_lines(tmp_path / "all.jsonl", [*NODES, edge])])
    assert read(database, "SELECT weight FROM rag_relations") == [(kept,)]


PEOPLE = '''\
personId:ID(Person),name,born:date,tags:string[],score:float,visits:int,note,:LABEL
1,"Ann, ""A""",2001-02-03,a;b,1.5,7,"two
lines",Person;Admin
2,Bob,,,,,"",Person
'''
MOVIES = ":ID(Movie),title:string,year:long,:LABEL\n1,Matrix,1999,Movie\n"
ROLES = ':START_ID(Person),role,:END_ID(Movie),:TYPE\n1,"",1,ACTED_IN\n2,Neo,1,ACTED_IN\n2,Agent,1,ACTED_IN\n'


def write_csv(directory: Path) -> list[Path]:
    paths = [directory / name for name in ("roles.csv", "people.csv", "movies.csv")]
    for path, text in zip(paths, (ROLES, PEOPLE, MOVIES), strict=True):
        path.write_text(text)
    return paths


def test_csv_goes_in_and_out_without_loss(server: Mapping[str, str], template: str, tmp_path: Path) -> None:
    """Through both formats: the second database has what the first has."""
    wishes = GraphWishes(names=("name", "title"))
    out = tmp_path / "out"
    out.mkdir()
    with made_database(server, template) as first, made_database(server, template) as second:
        done = import_graph(find_options(first), write_csv(tmp_path), wishes)
        assert (done.nodes, done.entities_added, done.relationships, done.relations_added) == (3, 3, 3, 2)
        entities = "SELECT entity_type, name, properties FROM rag_entities ORDER BY 1, 2"
        assert read(first, entities)[1] == (
            "Person",
            'Ann, "A"',
            {
                "personId": "1",
                "name": 'Ann, "A"',
                "born": "2001-02-03",
                "tags": ["a", "b"],
                "score": 1.5,
                "visits": 7,
                "note": "two\nlines",
                RECORDS: [
                    {
                        "id": "1",
                        "space": "Person",
                        "labels": ["Person", "Admin"],
                        "types": {"born": "date", "score": "float", "visits": "int"},
                    }
                ],
            },
        )
        written = export_graph(find_options(first), directory=out)
        assert (written.nodes, written.relationships, written.has_own_ids) == (3, 3, True)
        files = [Path(name) for name in written.files]
        assert sorted(path.name for path in files) == [
            "edges-Person-Movie.csv",
            "nodes-Movie.csv",
            "nodes-Person.csv",
        ]
        assert "born:date" in (out / "nodes-Person.csv").read_text().splitlines()[0]
        back = import_graph(find_options(second), files, wishes)
        assert (back.nodes, back.relationships, back.relations_added) == (3, 3, 2)
        assert read(second, entities) == read(first, entities)
        of_relations = """
            SELECT jsonb_agg(n - 'of'), r.properties - ':neo4j'
            FROM rag_relations r, jsonb_array_elements(properties -> ':neo4j') n
            GROUP BY r.id ORDER BY r.properties -> 'role'
        """
        assert read(second, of_relations) == read(first, of_relations)


def test_rows_of_csv() -> None:
    assert split('a,"b ""c"", d",,""\r\n') == ["a", 'b "c", d', None, ""]
    assert split("a,,b\n") == ["a", None, "b"]
    assert split('"a\nb",c') == ["a\nb", "c"]
    for fields in (["a", None, "", 'q"', "x,y", "l\nm"], [None], ["", None]):
        assert split(join(fields)) == fields or fields == [None]
    with pytest.raises(ValueError, match="quotes"):
        split('a,"b"c,d')


def test_an_import_goes_on_where_it_was_interrupted(
    options: Options, database: Database, tmp_path: Path
) -> None:
    nodes = [
        {"type": "node", "id": str(n), "labels": ["N"], "properties": {"name": f"n{n}"}} for n in range(25)
    ]
    edges = [
        {
            "id": str(n),
            "type": "relationship",
            "label": "R",
            "start": {"id": str(n)},
            "end": {"id": str(n - 1)},
        }
        for n in range(1, 25)
    ]
    path = write_lines(tmp_path / "all.jsonl", [*nodes, *edges])

    def interrupt(number: int) -> None:
        if number >= 40:
            raise KeyboardInterrupt

    wishes = GraphWishes(batch_size=10)
    with pytest.raises(KeyboardInterrupt):
        import_graph(options, [path], wishes, progress=interrupt)
    assert read(database, "SELECT count(*) FROM rag_relations") == [(15,)]
    done = import_graph(options, [path], wishes)
    assert (done.resumed_after, done.relationships, done.relations_added) == (40, 9, 9)
    assert read(database, "SELECT count(*) FROM rag_relations") == [(24,)]
    after = import_graph(options, [path], wishes)
    assert (after.resumed_after, after.entities_changed, after.relations_changed) == (0, 0, 0)


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(
    options: Options, database: Database, tmp_path: Path
) -> None:
    path = write_lines(tmp_path / "all.jsonl", [*NODES, *EDGES])
    said = import_graph(options, [path], GraphWishes(batch_size=2), dry_run=True)
    assert said.is_dry_run
    assert read(database, "SELECT count(*) FROM rag_entities") == [(0,)]
    assert read(database, "SELECT count(*) FROM rag_jobs") == [(0,)]
    done = import_graph(options, [path], GraphWishes(batch_size=2))
    assert (said.entities_added, said.relations_added) == (done.entities_added, done.relations_added)


def test_names_of_merged_entities_and_aliases_lead_to_the_kept_ones(
    options: Options, database: Database, tmp_path: Path
) -> None:
    with connect(database) as connection:
        kept, merged = (
            connection.execute(
                "INSERT INTO rag_entities (entity_type, name, is_current, is_imported) VALUES ('User', %s, true, true)"
                " RETURNING id",
                (name,),
            ).fetchone()[0]  # type: ignore[index]
            for name in ("Robert", "Bob")
        )
        connection.execute(
            "UPDATE rag_entities SET merged_into = %s, is_current = false, is_imported = false WHERE id = %s",
            (kept, merged),
        )
        connection.execute(
            "INSERT INTO rag_entity_aliases (entity_type, entity_id, alias) VALUES ('User', %s, 'Bobby')",
            (kept,),
        )
    nodes = [
        {
            "type": "node",
            "id": str(number),
            "labels": ["User"],
            "properties": {"name": name, f"p{number}": number},
        }
        for number, name in enumerate(("bob", "BOBBY", "Carol"))
    ]
    edges = [
        {"id": str(n), "type": "relationship", "label": "R", "start": {"id": str(n)}, "end": {"id": "2"}}
        for n in range(2)
    ]
    done = import_graph(options, [write_lines(tmp_path / "all.jsonl", [*nodes, *edges])])
    assert (done.entities_added, done.entities_changed, done.relations_added) == (1, 2, 1)
    assert read(database, "SELECT source_id FROM rag_relations") == [(kept,)]
    back = by_id(exported(options, tmp_path))
    assert {id_ for kind, id_ in back if kind == "node"} == {"0", "1", "2"}
    assert {back["relationship", str(n)]["start"]["id"] for n in range(2)} == {"0", "1"}
    assert back["node", "1"]["properties"]["name"] == "BOBBY"


def test_an_entity_that_texts_mention_keeps_what_is_known_of_it(
    options: Options, database: Database, tmp_path: Path
) -> None:
    with connect(database) as connection:
        connection.execute(
            "INSERT INTO rag_entities (entity_type, name, description, properties)"
            " VALUES ('User', 'ADAM', 'From a text', '{\"age\": 41, \"mine\": 1}')"
        )
    done = import_graph(options, [write_lines(tmp_path / "all.jsonl", NODES)])
    assert (done.entities_added, done.entities_changed) == (2, 2)
    ((name, description, properties, is_current),) = read(
        database, "SELECT name, description, properties, is_current FROM rag_entities WHERE name_key = 'adam'"
    )
    assert (name, description, is_current) == ("ADAM", "From a text", True)
    assert (properties["age"], properties["mine"], properties["male"]) == (41, 1, True)
    assert by_id(exported(options, tmp_path))["node", "0"] == NODES[0]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("not json", "Expecting value"),
        ('{"type":"node","id":"9","labels":["A"],"properties":{"title":"x"}}', "no property name"),
        ('{"type":"node","id":"9","labels":["A"],"properties":{"name":" \\u200b"}}', "no property name"),
        ('{"type":"node","id":"9","labels":["A"],"properties":{"name":"x","y":"\\u0000"}}', "NUL"),
        ('{"type":"node","id":"9","labels":["A"],"properties":{"name":"x","y":NaN}}', "JSON compliant"),
        ('{"type":"node","id":"9","labels":[" "],"properties":{"name":"x"}}', "label is blank"),
        ('{"type":"node","id":"9","labels":["A"],"properties":{"name":"x",":neo4j":1}}', "keeps for itself"),
        ('{"type":"edge","id":"9"}', "neither node nor relationship"),
        ('{"type":"relationship","id":"9","label":"R","start":{"id":"0"}}', "it has no 'end'"),
        ('{"type":"relationship","id":"9","label":"R","start":{"id":"0"},"end":{"id":"77"}}', "no node '77'"),
        ("[1]", "no JSON object"),
    ],
)
def test_what_cannot_be_kept_is_refused_or_left_out(
    options: Options, database: Database, tmp_path: Path, line: str, reason: str
) -> None:
    path = tmp_path / "all.jsonl"
    path.write_text(f"{json.dumps(NODES[0])}\n{line}\n{json.dumps(NODES[1])}\n")
    with pytest.raises(ImportRefused, match=reason):
        import_graph(options, [path])
    assert read(database, "SELECT count(*) FROM rag_entities") == [(0,)]
    done = import_graph(options, [path], GraphWishes(skip_refused=True))
    assert (done.nodes, done.refused) == (2, 1)
    assert reason in done.refusals[0].reason


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty line"),
        ('[{"type":"node"}]', "no JSON lines"),
        ("name,age\nx,1\n", "no header"),
        (":ID,x:uuid\n1,2\n", "type nobody knows"),
    ],
)
def test_files_of_other_formats_are_refused(
    options: Options, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "some.file"
    path.write_text(text)
    with pytest.raises(ImportRefused, match=message):
        import_graph(options, [path])
    with pytest.raises(ImportRefused, match="cannot be read"):
        import_graph(options, [tmp_path / "none.jsonl"])
    path.write_bytes(b'{"type":"node","id":"\xff"}\n')
    with pytest.raises(ImportRefused, match="UTF-8"):
        import_graph(options, [path])


def test_one_import_at_a_time(options: Options, tmp_path: Path) -> None:
    from ragschema.database.connections import opened

    path = write_lines(tmp_path / "all.jsonl", NODES)
    with opened(options) as at:
        lock(at, "neo4j")
        with pytest.raises(LockNotObtained):
            import_graph(options, [path])


def test_nodes_of_two_databases_get_new_ids(options: Options, tmp_path: Path) -> None:
    for name in ("Adam", "Eve"):
        node = {"type": "node", "id": "0", "labels": ["User"], "properties": {"name": name}}
        import_graph(options, [write_lines(tmp_path / f"{name}.jsonl", [node])])
    back = exported(options, tmp_path)
    assert sorted(each["properties"]["name"] for each in back) == ["Adam", "Eve"]
    assert len({each["id"] for each in back} - {"0"}) == 2


def test_what_csv_cannot_say_is_refused(options: Options, tmp_path: Path) -> None:
    import_graph(options, [write_lines(tmp_path / "all.jsonl", NODES)])
    with pytest.raises(ImportRefused, match="CSV has no"):
        export_graph(options, directory=tmp_path)
    with pytest.raises(RagSchemaError, match=r"JSON lines or of CSV"):
        export_graph(options)


def test_records_of_nodes_are_merged() -> None:
    def node(id_: str, **properties: Any) -> dict[str, Any]:
        return {**properties, RECORDS: [{"id": id_}]}

    one, two = node("1", a=1, b=1), node("2", b=2, c=2)
    both = merge(one, two)
    assert both == {
        "a": 1,
        "b": 1,
        "c": 2,
        RECORDS: [{"id": "1", "properties": {"a": 1, "b": 1}}, {"id": "2", "properties": {"b": 2, "c": 2}}],
    }
    assert merge(both, one) == both
    assert merge(both, two) == both
    assert merge(both, node("2", b=3))[RECORDS][1] == {"id": "2", "properties": {"b": 3}}
    assert merge(one, node("1", a=2)) == node("1", a=2)
    assert merge({"mine": 1}, one) == {
        "mine": 1,
        "a": 1,
        "b": 1,
        RECORDS: [{"id": "1", "properties": {"a": 1, "b": 1}}],
    }
