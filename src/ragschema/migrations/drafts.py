"""Text of a new revision's draft: the bodies of its functions, and the imports that they use.

``alembic/script.py.mako`` asks for it, so that ``rag migrate create`` and bare ``alembic revision`` write the same.
"""

from __future__ import annotations

import ast
import textwrap

from ragschema import operations_v2 as operations

_HOMES = {
    "sa": "import sqlalchemy as sa",
    "postgresql": "from sqlalchemy.dialects import postgresql",
    "op": "from alembic import op",
    "VECTOR": "from pgvector.sqlalchemy import VECTOR",
}


def offered_operations() -> str:
    """Return the names of the operations that a revision may import, and where from, as lines of a comment."""
    names = [name for name in operations.__all__ if name.islower()]
    return textwrap.fill(
        f"{', '.join(names)}: from {operations.__name__}, whose docstrings say what each takes",
        width=108,
        initial_indent="#     ",
        subsequent_indent="#     ",
        break_long_words=False,
    )


def body(drafted: str | None, direction: str) -> str:
    """Return the body of a function, without what Alembic writes around it; an error where nothing is drafted.

    Args:
        drafted: By autogenerate, indented from the second line on.
        direction: ``upgrade`` or ``downgrade``.
    """
    lines = [line for line in (drafted or "").splitlines() if not line.lstrip().startswith("# ###")]
    if not any(line.strip() not in ("", "pass") for line in lines):
        return f'raise RuntimeError("this {direction} is not written yet")'
    return "\n".join(lines).strip()


def imports(*bodies: str) -> str:
    """Return the imports that the bodies need, in the order of the house."""
    trees = (ast.parse(textwrap.dedent(f"    {text}")) for text in bodies)
    used = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
    lines = [line for name, line in _HOMES.items() if name in used]
    if ours := sorted(used & {*operations.__all__}):
        lines += ["", f"from {operations.__name__} import {', '.join(ours)}"]
    return "\n".join(lines).strip()
