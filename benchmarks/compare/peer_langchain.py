"""langchain-postgres as its documentation says: `PGVectorStore`, an HNSW index, metadata columns to filter by.

A changed document is re-ingested by the indexing API with incremental cleanup ("index"), or by deleting its
chunks and adding all of them again by id ("delete + add").
"""

from __future__ import annotations

from typing import Any

from langchain_classic.indexes import SQLRecordManager, index
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_postgres import Column, PGEngine, PGVectorStore
from langchain_postgres.v2.indexes import HNSWIndex

from compare.peer import Embedder, serve
from compare.workload import Query, Workload

TABLE = "chunks"


class Model(Embeddings):
    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embedder.embed(texts)

    def embed_query(self, text: str) -> list[float]:
        return self.embedder.embed([text])[0]


class LangChain:
    def __init__(self, parameters: dict[str, str], workload: Workload, embedder: Embedder) -> None:
        self.url = (
            f"postgresql+psycopg://{parameters['user']}@/{parameters['dbname']}"
            f"?host={parameters['host']}&port={parameters['port']}"
        )
        self.workload = workload
        self.model = Model(embedder)
        self.engine = PGEngine.from_connection_string(url=self.url)
        self.ids: dict[int, list[str]] = {}

    def create(self, index: bool) -> None:
        self.engine.init_vectorstore_table(
            table_name=TABLE,
            vector_size=self.workload.dimension,
            metadata_columns=[
                Column("article_id", "TEXT"),
                Column("title", "TEXT"),
                *(Column(name, "INTEGER") for name in self.workload.metadata(0)),
            ],
            overwrite_existing=True,
        )
        self.store = PGVectorStore.create_sync(
            engine=self.engine,
            table_name=TABLE,
            embedding_service=self.model,
            metadata_columns=["article_id", "title", *self.workload.metadata(0)],
        )
        self.records = SQLRecordManager(f"pgvector/{TABLE}", db_url=self.url)
        self.records.create_schema()
        self.ids.clear()
        if index:
            self.build_index()

    def build_index(self) -> None:
        self.store.apply_vector_index(HNSWIndex())

    def load(self, documents: dict[int, list[str]], way: str) -> None:
        if way == "index":
            for number, texts in documents.items():
                self._index(number, texts)
            return
        chunks = {number: self._chunks(number, texts) for number, texts in documents.items()}
        ids = iter(self.store.add_documents([chunk for each in chunks.values() for chunk in each]))
        self.ids.update({number: [next(ids) for _ in each] for number, each in chunks.items()})

    def search(self, query: Query) -> list[str]:
        wanted: dict[str, Any] = {}
        if query.articles is not None:
            wanted["article_id"] = {"$in": [self.workload.article_id(number) for number in query.articles]}
        if query.title is not None:
            wanted["title"] = query.title
        if query.below is not None:
            wanted[query.below[0]] = {"$lt": query.below[1]}
        embedding = query.embedding.tolist()
        found = self.store.similarity_search_by_vector(embedding, k=10, filter=wanted or None)
        return [chunk.page_content for chunk in found]

    def republish(self, document: int, texts: list[str], way: str) -> None:
        if way == "index":
            self._index(document, texts)
        else:
            self.store.delete(ids=self.ids[document])
            self.ids[document] = self.store.add_documents(self._chunks(document, texts))

    def delete(self, documents: list[int]) -> None:
        self.store.delete(ids=[id_ for document in documents for id_ in self.ids.pop(document)])

    def _index(self, document: int, texts: list[str]) -> None:
        index(
            self._chunks(document, texts),
            self.records,
            self.store,
            cleanup="incremental",
            source_id_key="article_id",
        )

    def _chunks(self, document: int, texts: list[str]) -> list[Document]:
        metadata = {
            "article_id": self.workload.article_id(document),
            "title": self.workload.title(document),
            **self.workload.metadata(document),
        }
        return [Document(page_content=text, metadata=dict(metadata)) for text in texts]


if __name__ == "__main__":
    serve(LangChain)
