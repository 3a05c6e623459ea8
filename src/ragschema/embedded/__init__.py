"""The embedded PostgreSQL: a server of our own for a machine with none."""

from ragschema.embedded.destruction import check_destroyable, destroy, discard
from ragschema.embedded.places import real_place
from ragschema.embedded.programs import program
from ragschema.embedded.server import is_made, is_running, parameters, running, start, stop

__all__ = [
    "check_destroyable",
    "destroy",
    "discard",
    "is_made",
    "is_running",
    "parameters",
    "program",
    "real_place",
    "running",
    "start",
    "stop",
]
