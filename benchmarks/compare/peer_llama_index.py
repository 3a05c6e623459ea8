"""llama-index-vector-stores-postgres as its documentation says: `PGVectorStore` with `hnsw_kwargs`.

A changed document is re-ingested by ``delete_ref_doc`` and an insert of all its nodes, which is what
``update_ref_doc`` does.
"""

from __future__ import annotations

from typing import Any

import psycopg2
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.postgres import PGVectorStore

from compare.peer import Embedder, serve
from compare.workload import Query, Workload

TABLE = "chunks"
HNSW = {
    "hnsw_m": 16,
    "hnsw_ef_construction": 64,
    "hnsw_ef_search": 40,
    "hnsw_dist_method": "vector_cosine_ops",
}


class Model(BaseEmbedding):
    _embedder: Embedder = PrivateAttr()

    def __init__(self, embedder: Embedder) -> None:
        super().__init__(embed_batch_size=512)
        self._embedder = embedder

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embedder.embed([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embedder.embed(texts)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embedder.embed([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


class LlamaIndex:
    def __init__(self, parameters: dict[str, str], workload: Workload, embedder: Embedder) -> None:
        self.parameters = parameters
        self.workload = workload
        self.model = Model(embedder)

    def create(self, index: bool) -> None:
        with psycopg2.connect(**self.parameters) as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE IF EXISTS data_{TABLE}")
        where = "@/{dbname}?host={host}&port={port}".format(**self.parameters)
        user = self.parameters["user"]
        self.store = PGVectorStore.from_params(
            connection_string=f"postgresql+psycopg2://{user}{where}",
            async_connection_string=f"postgresql+asyncpg://{user}{where}",
            table_name=TABLE,
            embed_dim=self.workload.dimension,
            hnsw_kwargs=dict(HNSW) if index else None,
        )
        self.index = VectorStoreIndex(
            [],
            storage_context=StorageContext.from_defaults(vector_store=self.store),
            embed_model=self.model,
        )

    def build_index(self) -> None:
        """Make the store anew with an index, which builds it over the rows that are there."""
        self.store = self.store.from_params(
            connection_string=self.store.connection_string,
            async_connection_string=self.store.async_connection_string,
            table_name=TABLE,
            embed_dim=self.workload.dimension,
            hnsw_kwargs=dict(HNSW),
        )
        self.store._initialize()
        self.index = VectorStoreIndex.from_vector_store(self.store, embed_model=self.model)

    def load(self, documents: dict[int, list[str]], way: str) -> None:
        self.index.insert_nodes(
            [node for number, texts in documents.items() for node in self._nodes(number, texts)]
        )

    def search(self, query: Query) -> list[str]:
        filters: list[Any] = []
        if query.articles is not None:
            articles = [self.workload.article_id(number) for number in query.articles]
            filters.append(MetadataFilter(key="article_id", value=articles, operator=FilterOperator.IN))
        if query.title is not None:
            filters.append(MetadataFilter(key="title", value=query.title))
        if query.below is not None:
            key, number = query.below
            filters.append(MetadataFilter(key=key, value=number, operator=FilterOperator.LT))
        found = self.store.query(
            VectorStoreQuery(
                query_embedding=query.embedding.tolist(),
                similarity_top_k=10,
                filters=MetadataFilters(filters=filters) if filters else None,
            )
        )
        return [node.get_content() for node in found.nodes]

    def republish(self, document: int, texts: list[str], way: str) -> None:
        self.index.delete_ref_doc(self.workload.article_id(document))
        self.index.insert_nodes(self._nodes(document, texts))

    def delete(self, documents: list[int]) -> None:
        articles = [self.workload.article_id(document) for document in documents]
        of_them = MetadataFilter(key="article_id", value=articles, operator=FilterOperator.IN)
        self.store.delete_nodes(filters=MetadataFilters(filters=[of_them]))

    def _nodes(self, document: int, texts: list[str]) -> list[TextNode]:
        article_id = self.workload.article_id(document)
        metadata = {
            "article_id": article_id,
            "title": self.workload.title(document),
            **self.workload.metadata(document),
        }
        return [
            TextNode(
                text=text,
                metadata=dict(metadata),
                excluded_embed_metadata_keys=[*metadata],
                relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=article_id)},
            )
            for text in texts
        ]


if __name__ == "__main__":
    serve(LlamaIndex)
