"""Imports: documents of other libraries' tables become ours, with the embeddings that they have.

`import_documents` reads the tables as a stream, in a read-only transaction, and publishes by `publish_many`. How
the tables of a library are read is data: a `Preset`, one of `PRESETS` or a file that `read_map` reads.
"""

from __future__ import annotations

from ragschema.importing.maps import read_map
from ragschema.importing.preset_queries import Question
from ragschema.importing.presets import PRESETS, Preset
from ragschema.importing.reports import Dimensions, Import, Refusal
from ragschema.importing.running import import_documents
from ragschema.importing.runs import Wishes

__all__ = [
    "PRESETS",
    "Dimensions",
    "Import",
    "Preset",
    "Question",
    "Refusal",
    "Wishes",
    "import_documents",
    "read_map",
]
