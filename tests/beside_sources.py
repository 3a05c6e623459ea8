"""Scripts that fill a database by other libraries, each in an environment of its own, as a service of theirs does."""

LANGCHAIN = """
import os
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_postgres import PGVector
url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
store = PGVector(DeterministicFakeEmbedding(size=768), collection_name="wiki", connection=url, use_jsonb=True)
store.add_documents([
    Document(page_content=f"{name} {page}", metadata={"source": name, "page": page})
    for name in ("one", "two") for page in range(3)
])
"""
LANGCHAIN_V2 = """
import os
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_postgres import PGEngine, PGVectorStore
url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
engine = PGEngine.from_connection_string(url)
engine.init_vectorstore_table("notes", 768)
store = PGVectorStore.create_sync(engine, DeterministicFakeEmbedding(size=768), "notes")
store.add_documents([
    Document(page_content=f"{name} {page}", metadata={"source": name, "page": page})
    for name in ("one", "two") for page in range(3)
])
"""
LLAMA_INDEX = """
import os, random
import sqlalchemy as sa
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.vector_stores.postgres import PGVectorStore
url = sa.make_url(os.environ["DATABASE_URL"])
store = PGVectorStore(
    connection_string=url.set(drivername="postgresql+psycopg2"), async_connection_string="postgresql+asyncpg://none",
    table_name="paper", embed_dim=768, schema_name="public", use_jsonb=False,
)
store.add([
    TextNode(
        text=f"{name} {page}", embedding=[random.random() for _ in range(768)], metadata={"page": page},
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=name)},
    )
    for name in ("one", "two") for page in range(3)
])
"""
HAYSTACK = """
import random
from haystack import Document
from haystack_integrations.document_stores.pgvector import PgvectorDocumentStore
from haystack.utils import Secret
store = PgvectorDocumentStore(connection_string=Secret.from_env_var("DATABASE_URL"), embedding_dimension=768)
store.write_documents([
    Document(content=f"{name} {page}", embedding=[random.random() for _ in range(768)],
        meta={"source_id": name, "split_id": page, "page": page})
    for name in ("one", "two") for page in range(3)
])
"""
FILLED = {
    "langchain": ("langchain-postgres", LANGCHAIN),
    "langchain-v2": ("langchain-postgres", LANGCHAIN_V2),
    "llama-index": ("llama-index-vector-stores-postgres", LLAMA_INDEX),
    "haystack": ("pgvector-haystack", HAYSTACK),
}
"""By the preset that reads its tables: the package, and the script."""
