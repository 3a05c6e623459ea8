"""Plugins of alembic's autogenerate, and their forerunners: alembic has them since 1.18, and is supported from 1.16."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from alembic.autogenerate import comparators

_CHECKS = "alembic.ext.checkconstraint_byname"


def has_plugins() -> bool:
    """Whether this alembic has plugins; before, every comparison that was registered takes part."""
    return importlib.util.find_spec("alembic.runtime.plugins") is not None


def plugin_names(*names: str) -> list[str]:
    """Return alembic's own plugins that autogenerate needs, and others.

    The one that compares check constraints came with alembic 1.19, as one of ``alembic.autogenerate``, and left
    that name in 1.19.2. Without it ``rag migrate create`` does not draft them; ``rag migrate drift`` sees them.
    """
    has_checks = importlib.util.find_spec("alembic.ext") and importlib.util.find_spec(_CHECKS)
    return ["alembic.autogenerate.*", *([_CHECKS] if has_checks else []), *names]


def register_comparison(name: str, compare: Callable[..., None]) -> None:
    """Have autogenerate call a comparison of the schema after all others.

    Args:
        name: Of the plugin.
        compare: Takes the autogenerate context, the operations and the schemas.
    """
    if not has_plugins():
        comparators.dispatch_for("schema")(compare)  # in the order in which they are registered
        return
    from alembic.runtime.plugins import Plugin
    from alembic.util import DispatchPriority

    plugin: Any = Plugin(name)
    plugin.add_autogenerate_comparator(compare, "schema", "routines", priority=DispatchPriority.LAST)
