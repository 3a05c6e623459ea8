"""Collections: parts of one corpus, kept by sets of documents, that everything which returns text may be limited to."""

from __future__ import annotations

import asyncio
import inspect
import json
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, sessionmaker

import query_data
import ragschema
from conftest import Command, DatabaseAt, connect, made_database, make_database, make_engine
from publishing import drop_triggers, embed, make_plan, over_asyncpg, publish_texts
from ragschema import (
    BulkDocument,
    Collection,
    CollectionDocument,
    Document,
    QueryError,
    StalePlan,
    UnknownCollection,
    aio,
    delete_document,
    hybrid_search,
    ingest,
    ingest_many,
    migrations,
    nearest_chunks,
    publish_many,
    purge_document,
)
from ragschema.collections import (
    AddedDocuments,
    CollectionError,
    RemovedDocuments,
    add_documents,
    create_collection,
    delete_collection,
    find_collection,
    list_collections,
    remove_documents,
    update_collection,
)
from ragschema.database.settings import Database
from ragschema.errors import DataLossRefused
from ragschema.publishing import ContentError, plan_version, publish
from ragschema.revisions.manifest import read_manifest

DOCUMENTS, CHUNKS = 1000, 4
IDS = [revision.revision for revision in read_manifest().revisions]
HEAD, BEFORE = IDS[-1], IDS[IDS.index("20261128142000") - 1]
MARK = "Whoever reads this has seen the secret"


@pytest.fixture(scope="module")
def database(server: Mapping[str, str], template: str) -> Iterator[Database]:
    """The module's: most tests roll back."""
    yield from make_database(server, template)


engine = pytest.fixture(scope="module")(make_engine)


@pytest.fixture(params=[True, False], ids=["triggers", "no triggers"])
def publishing_engine(
    request: pytest.FixtureRequest, server: Mapping[str, str], template: str
) -> Iterator[sa.Engine]:
    """On a database of its own, with its triggers and without."""
    with made_database(server, template) as database:
        if not request.param:
            drop_triggers(database)
        yield from make_engine(database)


@pytest.fixture
def name() -> str:
    """A name that no other test takes."""
    return f"collection {uuid4()}"


def make_documents(session: Session, count: int) -> list[str]:
    """Insert documents without versions; return their articles."""
    articles = [str(uuid4()) for _ in range(count)]
    session.execute(
        sa.text("INSERT INTO rag_documents (article_id) SELECT unnest(CAST(:articles AS text[]))"),
        {"articles": articles},
    )
    return articles


def members(session: Session, collection_id: UUID) -> set[str]:
    statement = sa.select(Document.article_id).join(
        CollectionDocument, CollectionDocument.document_id == Document.id
    )
    return {*session.scalars(statement.where(CollectionDocument.collection_id == collection_id))}


# The collections there are.


def test_a_collection_is_created_found_listed_changed_and_deleted(session: Session, name: str) -> None:
    made = create_collection(session, name, "Handbooks", text_config="english", details={"owner": "støtte"})
    assert (made.name, made.description, made.text_config, made.documents) == (
        name,
        "Handbooks",
        "english",
        0,
    )
    assert made.details == {"owner": "støtte"}
    (article,) = make_documents(session, 1)
    add_documents(session, made.id, [article])
    assert find_collection(session, name).documents == 1
    changed = update_collection(session, made.id, description="All handbooks", details={})
    assert (changed.name, changed.description, changed.details, changed.documents) == (
        name, "All handbooks", {}, 1,
    )  # fmt: skip
    assert changed in list_collections(session)
    deleted = delete_collection(session, made.id)
    assert (deleted.name, deleted.documents) == (name, 1)
    assert made.id not in {each.id for each in list_collections(session)}
    assert session.scalars(sa.select(Document.article_id).where(Document.article_id == article)).all()


def test_updated_at_follows_our_changes_and_those_of_sql(engine: sa.Engine, name: str) -> None:
    with Session(engine) as session, session.begin():
        made = create_collection(session, name, "One")
    with Session(engine) as session, session.begin():
        changed = update_collection(session, made.id, description="Two")
    assert changed.updated_at > made.updated_at == made.created_at == changed.created_at
    with Session(engine) as session, session.begin():
        session.execute(sa.update(Collection).where(Collection.id == made.id).values(description="Three"))
        assert find_collection(session, name).updated_at > changed.updated_at


@pytest.mark.parametrize("blank", ["", " ", "\t", " \n\r\v\f "])
@pytest.mark.parametrize("column", ["name", "description"])
def test_blank_texts_are_refused_by_us_and_by_the_database(session: Session, column: str, blank: str) -> None:
    texts = {"name": "a", "description": "b", column: blank}
    with pytest.raises(CollectionError, match=f"The {column} of a collection is blank"):
        create_collection(session, texts["name"], texts["description"])
    with pytest.raises(IntegrityError, match=f"rag_collections_{column}_check"):
        session.execute(
            sa.text("INSERT INTO rag_collections (name, description) VALUES (:name, :description)"), texts
        )


def test_what_is_no_text_or_no_id_is_refused_before_the_database_is_asked(
    session: Session, name: str
) -> None:
    nothing: Any = None
    for values in ((nothing, "d", "simple"), (name, nothing, "simple"), (name, "d", nothing)):
        with pytest.raises(CollectionError, match="of a collection is NoneType, not str"):
            create_collection(session, values[0], values[1], text_config=values[2])
    by_name: Any = create_collection(session, name, "d").name
    for ask in (
        lambda: add_documents(session, by_name, ["a"]),
        lambda: add_documents(session, by_name, []),
        lambda: remove_documents(session, by_name, ["a"]),
        lambda: update_collection(session, by_name, description="e"),
        lambda: delete_collection(session, by_name),
    ):
        with pytest.raises(CollectionError, match="The id of a collection is a str, not a UUID"):
            ask()
    assert find_collection(session, name).description == "d"


def test_the_database_refuses_what_no_collection_can_be(session: Session, name: str) -> None:
    insert = "INSERT INTO rag_collections (name, description, metadata) VALUES (:name, :description, CAST(:m AS jsonb))"
    for values, constraint in (
        ({"name": "ü" * 251, "description": "d", "m": "{}"}, "name_check"),
        ({"name": name, "description": "d", "m": "[]"}, "metadata_check"),
        ({"name": name, "description": None, "m": "{}"}, "description"),
    ):
        with pytest.raises(IntegrityError, match=constraint), session.begin_nested():
            session.execute(sa.text(insert), values)


def test_what_cannot_be_stored_is_refused_before_it_is_sent(session: Session, name: str) -> None:
    made = create_collection(session, name, "One")
    other = create_collection(session, f"{name} too", "Two")
    refused: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (CollectionError, "longer than 500 bytes", lambda: create_collection(session, "ü" * 251, "d")),
        (CollectionError, "There is a collection", lambda: create_collection(session, name, "again")),
        (CollectionError, "There is a collection", lambda: update_collection(session, other.id, name=name)),
        (CollectionError, "NUL", lambda: create_collection(session, "a\0", "d")),
        (CollectionError, "NUL", lambda: create_collection(session, "a", "d", details={"a": "\0"})),
        (CollectionError, "cannot be JSON", lambda: update_collection(session, made.id, details={"a": {1}})),
        (CollectionError, "are a list", lambda: create_collection(session, "a", "d", details=["a"])),  # type: ignore[arg-type]
        (CollectionError, "Nothing of the collection", lambda: update_collection(session, made.id)),
        (ContentError, "no text search", lambda: create_collection(session, "a", "d", text_config="klingon")),
    ]  # fmt: skip
    for error, words, call in refused:
        with pytest.raises(error, match=words):
            call()
    assert find_collection(session, name) == made  # the transaction goes on


def test_in_autocommit_mode_it_is_refused_in_the_same_words(engine: sa.Engine, name: str) -> None:
    """There is no savepoint, and nothing to save."""
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        made = create_collection(connection, name, "d", text_config="english")
        with pytest.raises(ContentError, match="no text search"):
            create_collection(connection, f"{name} too", "d", text_config="klingon")
        with pytest.raises(ContentError, match="no text search"):
            plan_version(
                connection,
                name,
                ["a"],
                source_hash="h",
                chunker_version="c",
                embedder_version="e",
                text_config="klingon",
            )
        with pytest.raises(CollectionError, match="There is a collection"):
            create_collection(connection, name, "again")
        with pytest.raises(UnknownCollection):
            update_collection(connection, uuid4(), name="a")
        delete_collection(connection, made.id)


def test_a_collection_that_is_not_there_is_named(session: Session) -> None:
    nobody = uuid4()
    calls: list[Callable[[], object]] = [
        lambda: update_collection(session, nobody, name="a"),
        lambda: delete_collection(session, nobody),
        lambda: add_documents(session, nobody, ["a"]),
        lambda: add_documents(session, nobody, []),
        lambda: remove_documents(session, nobody, ["a"]),
        lambda: make_plan(session, "a", ["text"], collection_ids=[nobody]),
    ]
    for call in calls:
        with pytest.raises(UnknownCollection, match=f"There is no collection {nobody}"):
            call()
    with pytest.raises(UnknownCollection, match="There is no collection 'nobody'"):
        find_collection(session, "nobody")


# Their documents.


def test_ten_thousand_documents_join_in_one_statement_and_again_without_a_change(
    session: Session, name: str
) -> None:
    made = create_collection(session, name, "Many")
    articles = make_documents(session, 10_000)
    statements: list[str] = []
    sa.event.listen(
        session.connection(), "before_cursor_execute", lambda *arguments: statements.append(arguments[2])
    )
    done = add_documents(session, made.id, [*articles, "unknown 2", "unknown 1", articles[0]])
    assert done == AddedDocuments(10_000, 0, ("unknown 1", "unknown 2"))
    assert add_documents(session, made.id, articles[:7]) == AddedDocuments(0, 7, ())
    gone = remove_documents(session, made.id, [*articles[:9_990], "unknown"])
    assert gone == RemovedDocuments(9_990, ("unknown",))
    assert remove_documents(session, made.id, articles[:1]) == RemovedDocuments(0, (articles[0],))
    assert len(statements) == 4
    assert members(session, made.id) == {*articles[9_990:]}
    assert session.scalar(sa.text("SELECT count(*) FROM rag_documents")) >= 10_000


def test_nothing_joins_where_one_of_the_collections_is_not_there(session: Session, name: str) -> None:
    from ragschema.publishing.memberships import join_collections

    made = create_collection(session, name, "One")
    (article,) = make_documents(session, 1)
    with pytest.raises(UnknownCollection):
        join_collections(session, [(made.id, article), (uuid4(), article)])
    assert members(session, made.id) == set()


def test_a_purged_document_leaves_its_collections(session: Session, name: str) -> None:
    made = create_collection(session, name, "One")
    article = str(uuid4())
    publish_texts(session, article, ["a text"], collection_ids=[made.id])
    assert find_collection(session, name).documents == 1
    purge_document(session, article)
    assert find_collection(session, name).documents == 0


# Publishing into them.


def test_a_document_joins_in_the_transaction_that_publishes_it(
    publishing_engine: sa.Engine, name: str
) -> None:
    article = str(uuid4())
    with Session(publishing_engine) as session, session.begin():
        made = create_collection(session, name, "One", text_config="english")
        other = create_collection(session, f"{name} too", "Two", text_config="german")
    with Session(publishing_engine) as session:
        plan = make_plan(session, article, ["Trains ran"], collection_ids=[made.id, other.id, made.id])
        publish(session, plan, [embed("Trains ran")])
        assert members(session, made.id) == members(session, other.id) == {article}
        session.rollback()
        assert members(session, made.id) == set()
    with Session(publishing_engine) as session, session.begin():
        publish(session, plan, [embed("Trains ran")])
    with Session(publishing_engine) as session, session.begin():
        assert (
            session.scalars(sa.select(Document.text_config).filter_by(article_id=article)).one() == "english"
        )
        remove_documents(session, made.id, [article])
        again = make_plan(session, article, ["Trains ran"], collection_ids=[made.id])
        assert again.is_up_to_date
        publish(session, again)  # which writes no version
        assert members(session, made.id) == members(session, other.id) == {article}


def test_a_configuration_that_is_given_comes_before_the_collections(session: Session, name: str) -> None:
    made = create_collection(session, name, "One", text_config="english")
    article = str(uuid4())
    publish_texts(session, article, ["a text"], collection_ids=[made.id], text_config="german")
    assert session.scalars(sa.select(Document.text_config).filter_by(article_id=article)).one() == "german"


def test_a_plan_for_a_collection_that_was_deleted_since_is_stale(session: Session, name: str) -> None:
    made = create_collection(session, name, "One")
    article = str(uuid4())
    plan = make_plan(session, article, ["a text"], collection_ids=[made.id])
    delete_collection(session, made.id)
    with pytest.raises(StalePlan, match="planned for a collection that was deleted since"):
        publish(session, plan, [embed("a text")])


def test_what_loads_many_documents_lets_all_of_them_join(publishing_engine: sa.Engine, name: str) -> None:
    """New ones, changed ones, and those that are up to date; by their embeddings, and by a model."""
    with Session(publishing_engine) as session, session.begin():
        made = create_collection(session, name, "One", text_config="english")
        other = create_collection(session, f"{name} too", "Two")
    prefix = str(uuid4())

    def document(key: str, text: str, *ids: UUID) -> BulkDocument:
        return BulkDocument(f"{prefix} {key}", [text], [embed(text)], text, "c1", "e1", collection_ids=ids)

    with publishing_engine.connect() as connection:
        publish_many(connection, [document("a", "one"), document("b", "two")])
        loaded = publish_many(
            connection,
            [
                document("a", "one", made.id),
                document("b", "changed", made.id, other.id),
                document("c", "new", made.id),
                document("d", "in none"),
            ],
        )
        assert (loaded.added, loaded.changed, loaded.skipped) == (2, 1, 1)
        with pytest.raises(UnknownCollection):
            publish_many(connection, [document("e", "lost", uuid4())])
    sessions = sessionmaker(publishing_engine)

    def embed_all(texts: list[str]) -> list[Any]:
        return [embed(text) for text in texts]

    asked = [document("a", "one", other.id), document("f", "by a model", other.id)]
    ingested = ingest_many(sessions, asked, embed_all)
    assert (ingested.published, ingested.up_to_date) == (1, 1)
    ingest(
        sessions,
        f"{prefix} g",
        ["alone"],
        embed_all,
        source_hash="1",
        chunker_version="c1",
        embedder_version="e1",
        collection_ids=[other.id],
    )
    with Session(publishing_engine) as session:
        found = {
            each.id: {article.removeprefix(f"{prefix} ") for article in members(session, each.id)}
            for each in (made, other)
        }
        assert found == {made.id: {*"abc"}, other.id: {*"abfg"}}
        configs = sa.select(Document.article_id, Document.text_config).where(
            Document.article_id.startswith(prefix)
        )
        assert {key[-1]: config for key, config in session.execute(configs)} == {
            "a": "simple", "b": "simple", "c": "english", "d": "simple", "f": "simple", "g": "simple",
        }  # fmt: skip


def test_a_deleted_document_that_is_loaded_again_joins_nothing(engine: sa.Engine, name: str) -> None:
    article = str(uuid4())
    with Session(engine) as session, session.begin():
        made = create_collection(session, name, "One")
        publish_texts(session, article, ["a text"])
        delete_document(session, article)
    again = BulkDocument(article, ["a text"], [embed("a text")], "1", "c1", "e1", collection_ids=[made.id])
    with engine.connect() as connection:
        assert publish_many(connection, [again]).deleted == 1
    assert ingest_many(sessionmaker(engine), [again], None).deleted == 1
    with Session(engine) as session:
        assert members(session, made.id) == set()


def test_async_code_does_the_same(database: Database, name: str) -> None:
    async def use(url: sa.URL) -> None:
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            made = await aio.collections.create_collection(connection, name, "One", details={"a": [1]})
            assert made.details == {"a": [1]}
            plan = await aio.plan_version(
                connection,
                name,
                ["a text"],
                source_hash="1",
                chunker_version="c1",
                embedder_version="e1",
                collection_ids=[made.id],
            )
            await aio.publish(connection, plan, [embed("a text")])
            assert (await aio.collections.add_documents(connection, made.id, [name])).present == 1
            hits = await connection.execute(nearest_chunks(embed("a text"), collection_ids=[made.id]))
            assert [hit.article_id for hit in hits] == [name]
            assert await aio.collections.find_collection(connection, name) in (
                await aio.collections.list_collections(connection)
            )
            assert (await aio.collections.remove_documents(connection, made.id, [name])).removed == 1
            changed = await aio.collections.update_collection(connection, made.id, description="Two")
            assert changed.details == {"a": [1]}
            assert (await aio.collections.delete_collection(connection, made.id)).name == name
            await connection.rollback()
        await engine.dispose()

    asyncio.run(use(database.url()))
    asyncio.run(use(over_asyncpg(database)))


# What returns text.


def public_functions() -> Iterator[Callable[..., Any]]:
    """Yield every function that a service may import from the package or one of its rooms, once."""
    seen = set()
    for module in (
        ragschema,
        *(
            import_module(f"ragschema.{each.name}")
            for each in pkgutil.iter_modules(ragschema.__path__)
            if each.ispkg and each.name not in ("cli", "authoring", "operations_v1", "operations_v2")
        ),
    ):
        for exported in getattr(module, "__all__", ()):
            function = getattr(module, exported)
            is_plain = inspect.isfunction(function) and not inspect.iscoroutinefunction(function)
            if is_plain and function not in seen:
                seen.add(function)
                yield function


def answer(session: Session, function: Callable[..., Any], given: dict[str, Any], **more: Any) -> str | None:
    """Return what a function says in this database, its statement executed; None where it cannot be asked so."""
    parameters = inspect.signature(function).parameters
    values = {key: value for key, value in given.items() if key in parameters} | more
    needed = {
        key
        for key, each in parameters.items()
        if each.default is each.empty and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    }
    if needed - values.keys():
        return None
    with session.begin_nested() as savepoint:
        try:
            said = function(**values)
            if isinstance(said, sa.sql.expression.Executable):
                said = session.execute(said).all()
            elif inspect.isgenerator(said):
                said = list(said)
            return repr(said)
        except (ragschema.RagSchemaError, sa.exc.SQLAlchemyError, TypeError):
            return None
        finally:
            savepoint.rollback()


@pytest.fixture(scope="module")
def secret(engine: sa.Engine) -> dict[str, Any]:
    """A document in one collection of two, of two versions, whose texts hold the mark: arguments to ask for it."""
    article = str(uuid4())
    with Session(engine) as session, session.begin():
        inside = create_collection(session, f"inside {article}", "Holds it").id
        outside = create_collection(session, f"outside {article}", "Does not").id
        texts = [f"{MARK} {number}" for number in range(3)]
        first = publish_texts(session, article, texts[:2], collection_ids=[inside])
        second = publish_texts(session, article, texts[1:], collection_ids=[inside])
        waiting = make_plan(session, f"{article} too", [f"{MARK} waits"], collection_ids=[inside])
        publish(session, waiting, None)
    return {
        "inside": inside,
        "outside": outside,
        "article_id": article,
        "article_ids": [article],
        "version_id": first.id,
        "old_version_id": first.id,
        "new_version_id": second.id,
        "document_id": first.document_id,
        "embedding": embed(texts[1]),
        "text": MARK,
        "limit": 1000,
    }


TEXTS = {
    "nearest_chunks",
    "hybrid_search",
    "version_chunks",
    "version_diff",
    "chunk_history",
    "pending_embeddings",
    "local_search",
}


def test_every_public_function_that_returns_text_is_limited_to_collections(
    session: Session, secret: dict[str, Any]
) -> None:
    """Whatever is public is asked for the text of a document, as far as our arguments go."""
    given = {key: value for key, value in secret.items() if key not in ("inside", "outside")}
    given |= {"session": session, "connection": session.connection()}
    found = set()
    for function in public_functions():
        if MARK not in (answer(session, function, given) or ""):
            continue
        found.add(function.__name__)
        assert "collection_ids" in inspect.signature(function).parameters, function
        for allowed, is_there in (
            ([secret["inside"]], True),
            ([secret["outside"], secret["inside"]], True),
            ([secret["outside"]], False),
            ({uuid4()}, False),
            ([], False),
        ):
            said = answer(session, function, given, collection_ids=allowed)
            assert said is not None, function
            assert (MARK in said) is is_there, (function, allowed)
        for one in (str(secret["inside"]), secret["inside"], b"ab", ["ab"]):
            with pytest.raises(QueryError, match=r"collection_ids.* (not several|not UUID)"):
                function(
                    **{key: given[key] for key in given if key in inspect.signature(function).parameters},
                    collection_ids=one,
                )
    assert found >= TEXTS


def test_both_versions_of_a_difference_must_be_in_the_collections(session: Session, name: str) -> None:
    inside = create_collection(session, name, "One").id
    one = publish_texts(session, str(uuid4()), ["a secret"])
    other = publish_texts(session, str(uuid4()), ["no secret"], collection_ids=[inside])
    for pair in ((one.id, other.id), (other.id, one.id)):
        assert session.execute(ragschema.version_diff(*pair, collection_ids=[inside])).all() == []


@pytest.fixture(scope="module")
def corpus(server: Mapping[str, str], template: str) -> Iterator[sa.Engine]:
    """A thousand documents, and collections of a part of them, called by their size."""
    with made_database(server, template) as database:
        with connect(database) as connection:
            query_data.fill(connection, documents=DOCUMENTS, chunks=CHUNKS)
            for size in (1, 10, 200):
                connection.execute(
                    "WITH c AS (INSERT INTO rag_collections (name, description) VALUES (%(size)s::text, 'd')"
                    " RETURNING id) INSERT INTO rag_collection_documents (collection_id, document_id)"
                    " SELECT c.id, d.id FROM c, (SELECT id FROM rag_documents ORDER BY md5(article_id)"
                    " LIMIT %(size)s) d",
                    {"size": size},
                )
            connection.execute("ANALYZE rag_collections, rag_collection_documents")
        yield from make_engine(database)


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("size", [1, 10, 200])
def test_a_search_of_a_collection_is_full_and_finds_the_nearest(
    corpus: sa.Engine, size: int, mode: str
) -> None:
    """Of a thousandth, a hundredth and a fifth of the documents."""
    numbers = np.random.default_rng(size)
    recalls = []
    with Session(corpus) as session:
        session.execute(sa.text(f"SET LOCAL plan_cache_mode = {mode}"))
        collection = find_collection(session, str(size)).id
        rows = session.execute(
            sa.text(
                "SELECT c.id, CAST(c.embedding AS real[]) AS embedding FROM rag_chunks c"
                " JOIN rag_document_versions v ON v.id = c.version_id"
                " JOIN rag_collection_documents m ON m.document_id = v.document_id"
                " WHERE c.is_current AND m.collection_id = :id"
            ),
            {"id": collection},
        ).all()
        assert len(rows) == size * CHUNKS
        embeddings = np.array([row.embedding for row in rows], np.float32)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        others = (
            session.execute(sa.text("SELECT CAST(embedding AS real[]) FROM rag_chunks LIMIT 500"))
            .scalars()
            .all()
        )
        for number in range(12):
            base = (
                others[int(numbers.integers(len(others)))]
                if number % 2
                else embeddings[numbers.integers(len(rows))]
            )
            question = (np.array(base) + numbers.normal(0, 0.01, 768)).astype(np.float32)
            wanted = min(10, len(rows))
            nearest = [rows[place].id for place in np.argsort(-(embeddings @ question))[:wanted]]
            hits = session.scalars(nearest_chunks(question, limit=10, collection_ids=[collection])).all()
            assert len(hits) == wanted
            recalls.append(len({*hits} & {*nearest}) / wanted)
        mixed = session.scalars(
            hybrid_search(question, "common word", limit=10, collection_ids=[collection])
        ).all()
        assert len(mixed) == wanted
        assert {*mixed} <= {row.id for row in rows}
    assert np.mean(recalls) >= 0.97


def test_a_rollback_destroys_no_collection_unasked(database_at: DatabaseAt, name: str) -> None:
    """And goes all the way, there and back, where it may."""
    database = database_at(HEAD)
    with connect(database) as connection:
        connection.execute("INSERT INTO rag_collections (name, description) VALUES ('one', 'kept')")
    before = migrations.status(database).current
    with pytest.raises(DataLossRefused, match="destroy data") as refused:
        migrations.downgrade(database, BEFORE)
    assert "1 row of rag_collections" in refused.value.evidence
    assert migrations.status(database).current == before
    migrations.downgrade(database, BEFORE, allow_data_loss=True)
    assert migrations.verify(database).is_clean
    migrations.upgrade(database)
    assert migrations.verify(database).is_clean


# By the command line.


def test_the_commands_say_what_they_did_and_what_is_unknown(
    database: Database, run: Command, name: str
) -> None:
    url = database.libpq_url()
    articles = [str(uuid4()) for _ in range(3)]
    with connect(database) as connection:
        connection.execute("INSERT INTO rag_documents (article_id) SELECT unnest(%s::text[])", (articles,))

    def collections(*words: str, code: int = 0) -> Any:
        done = run("rag", "collections", *words, "--json", DATABASE_URL=url)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if done.stdout else done.stderr

    made = collections("create", name, "--description", "Handbooks", "--text-config", "english")
    assert (made["name"], made["documents"], made["text_config"]) == (name, 0, "english")
    added = collections("add", name, *articles, "unknown", code=1)
    assert added == {"added": 3, "present": 0, "unknown": ["unknown"]}
    assert collections("add", name, articles[0]) == {"added": 0, "present": 1, "unknown": []}
    assert collections("remove", name, articles[0], "absent", code=1) == {"removed": 1, "absent": ["absent"]}
    assert [each["documents"] for each in collections("list")["collections"] if each["name"] == name] == [2]
    other = f"{name} of old"
    changed = collections("update", name, "--name", other, "--description", "Old handbooks")
    assert (changed["name"], changed["description"], changed["documents"]) == (other, "Old handbooks", 2)
    assert changed["text_config"] == "english"
    assert collections("update", other, "--name", name, "--text-config", "simple")["text_config"] == "simple"
    assert "Nothing of the collection is to be changed." in collections("update", name, code=1)
    assert "there is no terminal" in collections("delete", name, code=2)
    assert collections("delete", name, "--yes")["documents"] == 2
    assert "There is no collection" in collections("add", name, articles[0], code=2)
    with connect(database) as connection:
        left = connection.execute(
            "SELECT count(*) FROM rag_documents WHERE article_id = ANY(%s)", (articles,)
        )
        assert left.fetchone() == (3,)


def test_many_articles_come_from_a_file(database: Database, run: Command, name: str, tmp_path: Any) -> None:
    articles = [f"{name} {number} ü" for number in range(1000)]
    with connect(database) as connection:
        connection.execute("INSERT INTO rag_documents (article_id) SELECT unnest(%s::text[])", (articles,))
    (tmp_path / "keys").write_text("\n".join(articles) + "\n", encoding="utf-8")
    url = database.libpq_url()
    assert run("rag", "collections", "create", name, "--description", "d", DATABASE_URL=url).returncode == 0
    done = run("rag", "collections", "add", name, "--from", "keys", cwd=tmp_path, DATABASE_URL=url)
    assert (done.returncode, done.stdout) == (0, f"Added 1,000 documents to {name}.\n"), done.stderr
    for words in ([], ["a", "--from", "keys"]):
        refused = run("rag", "collections", "add", name, *words, cwd=tmp_path, DATABASE_URL=url)
        assert (refused.returncode, "Give one of the two" in refused.stderr) == (2, True)
