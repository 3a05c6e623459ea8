"""Statement builders: each returns a statement and executes nothing, `search_settings` apart.

Search reads current chunks. Rows are plain columns, cheap to load; ``chunk_id`` finds the whole `Chunk`.
"""

from ragschema.queries.arguments import QueryError
from ragschema.queries.diff import version_diff
from ragschema.queries.hybrid import hybrid_search
from ragschema.queries.nearest import nearest_chunks
from ragschema.queries.settings import search_settings
from ragschema.queries.versions import chunk_history, pending_embeddings, version_chunks

__all__ = [
    "QueryError",
    "chunk_history",
    "hybrid_search",
    "nearest_chunks",
    "pending_embeddings",
    "search_settings",
    "version_chunks",
    "version_diff",
]
