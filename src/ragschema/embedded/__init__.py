"""The embedded PostgreSQL: a server of our own for a machine with none."""

from ragschema.embedded.programs import program
from ragschema.embedded.server import destroy, is_made, is_running, parameters, running, start, stop

__all__ = ["destroy", "is_made", "is_running", "parameters", "program", "running", "start", "stop"]
