"""Partitions of embedding models: what the registry says there should be, as PostgreSQL prints it; psycopg alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql

from ragschema.database.server import Connection

COLUMN_MODEL = 1
"""Id of the model whose embeddings are the column ``rag_chunks.embedding``."""
COLUMN_INDEX = "rag_chunks_current_embedding_idx"
REGISTRY = "rag_embedding_models"
PARENT = "rag_chunk_embeddings"
SINCE = "20261128130120"
"""The revision that makes the table of partitions."""

_REGISTRY = """
SELECT id, key, dimensions, distance, index_type, hnsw_m, hnsw_ef_construction, state, created_at, activated_at
FROM {} ORDER BY id
"""
_OPCLASSES = {"cosine": "cosine", "l2": "l2", "inner_product": "ip"}
# By the product, which pgvector reckons by vector instructions as it does not the norm: that took a tenth of a COPY.
# A float32 holds the square of any float16, so that both are true of the same embeddings.
_NORM_CHECK = "CHECK ((inner_product(embedding, embedding) > (0)::double precision))"
_FORMER_NORM_CHECK = "CHECK ((l2_norm(embedding) > (0)::double precision))"
_INHERITS = re.compile(rf" INHERITS \({PARENT}\)")


@dataclass(frozen=True)
class RegisteredModel:
    """An embedding model as it is registered.

    Attributes:
        id: 1 is the column ``rag_chunks.embedding``, n the partition ``rag_chunk_embeddings_n``.
        key: What services and commands call it.
        dimensions: Of its embeddings.
        distance: ``cosine``, ``l2`` or ``inner_product``.
        index_type: What its HNSW index holds: ``vector``, ``halfvec`` or ``bit``; ``none``: it has no index.
        hnsw_m: Neighbours that an element of the index keeps a layer.
        hnsw_ef_construction: Candidates kept while an element is inserted.
        state: ``building``, ``active``, ``standby`` or ``retired``.
        created_at: When it was registered; None of the column where no model is.
        activated_at: When it last became the active one.
    """

    id: int
    key: str
    dimensions: int
    distance: str
    index_type: str
    hnsw_m: int
    hnsw_ef_construction: int
    state: str
    created_at: datetime | None
    activated_at: datetime | None

    @property
    def is_column(self) -> bool:
        """Whether its embeddings are the column of the chunks."""
        return self.id == COLUMN_MODEL

    @property
    def table(self) -> str:
        """The table that holds its embeddings."""
        return "rag_chunks" if self.is_column else f"{PARENT}_{self.id}"

    @property
    def index(self) -> str:
        """The name of its index."""
        return COLUMN_INDEX if self.is_column else f"{self.table}_idx"

    @property
    def is_live(self) -> bool:
        """Whether its embeddings are kept."""
        return self.state != "retired"

    @property
    def needs_index(self) -> bool:
        """Whether searches rely on its index."""
        return self.index_type != "none" and self.state in ("active", "standby")


THE_COLUMN = RegisteredModel(COLUMN_MODEL, "default", 768, "cosine", "vector", 16, 64, "active", None, None)
"""The one model of a database where none is registered."""


def read_models(connection: Connection, schema: str) -> list[RegisteredModel]:
    """Return the registered models by id; none before the revision that registers them.

    Raises:
        psycopg.Error: This role may not read the registry, or not all of it.
    """
    try:
        with connection.transaction():  # a savepoint, where one is open: an error ends no more than this
            return [RegisteredModel(*row) for row in connection.execute(registry(schema)).fetchall()]
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return []


def registry(schema: str) -> sql.Composed:
    """Return the query of the registered models of a schema, by id: the fields of `RegisteredModel`."""
    return sql.SQL(_REGISTRY).format(sql.Identifier(schema, REGISTRY))


def read_models_if_shown(connection: Connection, schema: str) -> list[RegisteredModel] | None:
    """Return the registered models; None where this role may not see them: it compares as far as it sees."""
    try:
        return read_models(connection, schema)
    except psycopg.errors.InsufficientPrivilege:
        return None


def checks_of(model: RegisteredModel) -> dict[str, str]:
    """Return the CHECK constraints of a model's partition by name, as PostgreSQL prints them."""
    checks = {
        f"{model.table}_dimensions_check": f"CHECK ((vector_dims(embedding) = {model.dimensions}))",
    }
    if model.distance == "cosine":
        checks[f"{model.table}_norm_check"] = _NORM_CHECK
    return checks


def index_definition(model: RegisteredModel) -> str:
    """Return the statement that makes the index of a model's partition, as PostgreSQL prints it.

    Without a schema: the search_path must begin with ours, and have pgvector's.
    """
    cast = f"embedding::{'vector' if model.index_type == 'vector' else 'halfvec'}({model.dimensions})"
    if model.index_type == "bit":
        item = f"(binary_quantize({cast})::bit({model.dimensions})) bit_hamming_ops"
    else:
        item = f"({cast}) {model.index_type}_{_OPCLASSES[model.distance]}_ops"
    return (
        f"CREATE INDEX {model.index} ON {model.table} USING hnsw ({item})"
        f" WITH (m='{model.hnsw_m}', ef_construction='{model.hnsw_ef_construction}') WHERE is_current"
    )


def partition_statements(
    schema: str, model: RegisteredModel, checks: Mapping[str, str] | None = None
) -> tuple[sql.Composed, sql.Composed]:
    """Return the statements that make a model's partition, like its parent, and attach it.

    The foreign key comes with ATTACH, which then takes SHARE ROW EXCLUSIVE on rag_chunks; where the table has it
    before, ATTACH drops its triggers there, under ACCESS EXCLUSIVE. So does PARTITION OF with the parent.

    Args:
        schema: The schema of our tables.
        model: The model.
        checks: Its CHECK constraints by name, if not `checks_of` it.
    """
    table, parent = sql.Identifier(schema, model.table), sql.Identifier(schema, PARENT)
    constraints = [
        sql.SQL("CONSTRAINT {} {}").format(sql.Identifier(name), sql.SQL(text))
        for name, text in (checks_of(model) if checks is None else checks).items()
    ]
    like = sql.SQL("LIKE {} INCLUDING CONSTRAINTS INCLUDING DEFAULTS INCLUDING INDEXES INCLUDING STORAGE")
    return (
        sql.SQL("CREATE TABLE {} ({})").format(
            table, sql.SQL(", ").join([like.format(parent), *constraints])
        ),
        sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES IN ({})").format(parent, table, model.id),
    )


def concurrent_index(model: RegisteredModel) -> str:
    """Return the statement that builds that index concurrently."""
    return index_definition(model).replace("CREATE INDEX ", "CREATE INDEX CONCURRENTLY ", 1)


def expected_partitions(
    wanted: Mapping[str, str], found: Mapping[str, str], models: Iterable[RegisteredModel]
) -> dict[str, str]:
    """Return the catalogue of the partitions that the registered models need.

    Args:
        wanted: The expected catalogue without them: a partition's columns and constraints are its parent's.
        found: The catalogue of the database: the index of a model that is being built may be there or not, and a
            partition may have the check of the norm that partitions were made with before.
        models: The registered models.
    """
    expected: dict[str, str] = {}
    for model in models:
        if model.is_column or not model.is_live:
            continue
        table = model.table
        expected[f"table {table}"] = f"table INHERITS ({PARENT}) FOR VALUES IN ('{model.id}')"
        for name, text in wanted.items():
            kind, _, rest = name.partition(" ")
            of, _, member = rest.partition(".")
            if of == PARENT and kind in ("column", "constraint"):
                member = f"{table}_pkey" if member == f"{PARENT}_pkey" else member
                expected[f"{kind} {table}.{member}"] = text
        for name, text in checks_of(model).items():
            constraint = f"constraint {table}.{name}"
            is_former = text == _NORM_CHECK and found.get(constraint) == _FORMER_NORM_CHECK
            expected[constraint] = _FORMER_NORM_CHECK if is_former else text
        index = f"index {table}.{model.index}"
        if model.index_type != "none" and (model.needs_index or _is_built(found.get(index))):
            expected[index] = index_definition(model)
    return expected


def _is_built(definition: str | None) -> bool:
    return definition is not None and not definition.endswith(" INVALID")


def stray_partitions(found: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """Return the partitions, as objects of a catalogue, that no registered model has."""
    return [
        name
        for name, text in found.items()
        if name.startswith("table ") and _INHERITS.search(text) and name not in expected
    ]
