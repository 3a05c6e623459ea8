"""The lock around Alembic in a process that may have threads: its environment lives in module globals."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alembic.config import Config

    from ragschema.migrations.request import Request

ALEMBIC_LOCK = threading.Lock()


@contextmanager
def alembic_config(request: Request, output: StringIO | None = None) -> Iterator[tuple[Any, Config]]:
    """Let one thread use Alembic: yield its commands, and the configuration to call them with.

    Raises:
        UsageError: Alembic refuses what it is asked; its own words say why.
    """
    from alembic import command
    from alembic.util import CommandError

    from ragschema.revisions.scripts import make_config, refused_by_alembic

    with ALEMBIC_LOCK:
        try:
            yield command, make_config(request, output=output)
        except CommandError as exc:
            raise refused_by_alembic(exc) from exc
