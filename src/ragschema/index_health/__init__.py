"""Health of our HNSW indexes: what searches find by them, measured, and the rebuild that brings it back.

Plain functions, as those of `ragschema.migrations`: what ``rag index`` calls, and what a service may.
"""

from ragschema.index_health.health import IndexHealth, check_indexes
from ragschema.index_health.maintenance import Maintenance, maintain
from ragschema.index_health.rebuilding import Rebuild, Rebuilt, rebuild
from ragschema.index_health.recall import Recall

__all__ = [
    "IndexHealth",
    "Maintenance",
    "Rebuild",
    "Rebuilt",
    "Recall",
    "check_indexes",
    "maintain",
    "rebuild",
]
