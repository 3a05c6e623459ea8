"""Faces of packages: public names, each loaded on its first use from the module that the package's stub names."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any


def lazily(names: dict[str, Any]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package that offers what is imported in its ``__init__.pyi``.

    Args:
        names: The package's globals.
    """

    @cache
    def modules() -> dict[str, str]:
        import ast  # not before a name is asked for
        from pathlib import Path

        stub = ast.parse(Path(names["__file__"]).with_suffix(".pyi").read_text(encoding="utf-8"))
        imports = [each for each in stub.body if isinstance(each, ast.ImportFrom)]
        return {alias.name: str(each.module) for each in imports for alias in each.names}

    def load(name: str) -> Any:
        if name == "__all__":
            return sorted(modules())
        if name.startswith("__") or name not in modules():
            raise AttributeError(f"module {names['__name__']!r} has no attribute {name!r}")
        names[name] = getattr(import_module(modules()[name]), name)
        return names[name]

    return load, lambda: sorted({*names, *modules()})
