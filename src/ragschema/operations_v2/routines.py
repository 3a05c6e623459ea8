"""Functions and triggers, each from a file of its own: ``routines/NAME_vN.sql`` beside ``versions/``.

A file has one CREATE statement and is frozen once it has landed; a change is the next version of it, which a new
revision creates. The newest version of each is what the models declare.
"""

from __future__ import annotations

from pathlib import Path

from ragschema.operations_v1.statements import quote, run

_PACKAGE = Path(__file__).resolve().parents[1]
_PACKAGED = _PACKAGE / "alembic"  # in a wheel; in a checkout it is beside src/
_DIRECTORY = (_PACKAGED if _PACKAGED.is_dir() else _PACKAGE.parents[1] / "alembic") / "routines"


def create_function(name: str, version: int) -> None:
    """Create a function, or replace it by another version with the same arguments and result.

    Its ``SET search_path FROM CURRENT`` means the schema being migrated, then pgvector's, then pg_temp, where
    anybody may make tables.
    """
    run(_SET_PATH)
    run(_read(name, version))
    run("SELECT set_config('search_path', current_setting('ragschema.search_path'), true)")


_SET_PATH = """
SELECT set_config('ragschema.search_path', current_setting('search_path'), true),
    set_config('search_path', concat_ws(', ', quote_ident(current_schema()), (
        SELECT extnamespace::regnamespace::text FROM pg_extension
        WHERE extname = 'vector' AND extnamespace::regnamespace::text <> quote_ident(current_schema())
    ), 'pg_temp'), true)
""".strip()


def drop_function(signature: str) -> None:
    """Drop a function, which nothing may use any more; ``signature`` is ``name(types of its arguments)``."""
    run(f"DROP FUNCTION {signature}")


def create_trigger(name: str, version: int) -> None:
    """Create a trigger; drop another version first. SHARE ROW EXCLUSIVE on its table: writers wait."""
    run(_read(name, version))


def drop_trigger(name: str, table: str) -> None:
    """Drop a trigger. ACCESS EXCLUSIVE on its table for a moment."""
    run(f"DROP TRIGGER {quote(name)} ON {quote(table)}")


def _read(name: str, version: int) -> str:
    return (_DIRECTORY / f"{name}_v{version}.sql").read_text(encoding="utf-8").strip().removesuffix(";")
