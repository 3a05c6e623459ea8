"""The settings as they stand: the process environment over the ``.env`` files from here upwards."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from ragschema.database.urls import Setting
from ragschema.errors import ConfigurationError

_OURS = re.compile(r"\s*(export\s+)?(DATABASE_URL|DB_|POSTGRES_|RAG_)")


def upwards(directory: Path) -> list[Path]:
    """Return a directory and those above it, to the root of its repository or the home directory.

    Outside of both it is the directory alone: what stands above is nobody's project.
    """
    try:
        home = Path.home()
    except RuntimeError:  # a container's user without a home
        home = None
    places = [directory, *directory.parents]
    for number, place in enumerate(places[:-1], 1):
        if place == home or (place / ".git").exists():
            return places[:number]
    return [directory]


def refuse_another_users(path: Path, directory: Path) -> Path:
    """Return a path found above a directory; it must be this user's, root's or the directory's owner's.

    Raises:
        ConfigurationError: It belongs to somebody else, who would say which database is used.
    """
    if path.parent != directory and path.stat().st_uid not in (os.getuid(), 0, directory.stat().st_uid):
        raise ConfigurationError(
            f"{path} stands above the working directory and belongs to another user.",
            f"Work in {path.parent}, if it is to be used; else set DATABASE_URL.",
        )
    return path


class Environment:
    """The process environment over the ``.env`` files of a directory and those above, read when needed.

    Attributes:
        directory: Where the search begins.
    """

    def __init__(self, environ: Mapping[str, str], directory: Path) -> None:
        self.directory = directory
        self._environ = environ

    def get(self, name: str) -> Setting | None:
        """Return a setting from the first layer that has it."""
        return next((found for layer in self.layers() if (found := layer.get(name))), None)

    def layers(self) -> Iterator[Layer]:
        """Yield the process environment, then each ``.env``, the nearest first.

        A name that is set in one of them, even if empty, is hidden in those that follow.
        """
        real = Layer(self._environ, None, ())
        yield real
        above: list[Mapping[str, str | None]] = [self._environ]
        for file, values in self._files:
            yield Layer(values, file, tuple(above))
            above.append(values)

    def __iter__(self) -> Iterator[tuple[str, Setting]]:
        """Yield every setting that is not empty, ours or not."""
        return self.beginning("")

    def beginning(self, prefix: str) -> Iterator[tuple[str, Setting]]:
        """Yield the settings that are not empty and whose names begin so, in capitals or not."""
        for layer in self.layers():
            for name in layer.values:
                if name.upper().startswith(prefix) and (found := layer.get(name)) and found.value.strip():
                    yield name, found

    @cached_property
    def _files(self) -> list[tuple[Path, Mapping[str, str | None]]]:
        files = (place / ".env" for place in upwards(self.directory))
        return [(file, _read(refuse_another_users(file, self.directory))) for file in files if _is_file(file)]


class Layer:
    """One place of settings.

    Attributes:
        values: What it says; None for a name without a value.
    """

    def __init__(
        self, values: Mapping[str, str | None], file: Path | None, above: tuple[Mapping[str, str | None], ...]
    ) -> None:
        self.values = values
        self._file = file
        self._above = above

    def get(self, name: str) -> Setting | None:
        """Return a setting, unless a layer above has the name."""
        value = self.values.get(name)
        if value is None or any(name in values for values in self._above):
            return None
        if self._file is None and re.search("[\udc80-\udcff]", value) and not _OURS.match(name):
            return None  # another program's bytes
        return Setting(value, name if self._file is None else f"{name} in {self._file}", self._file)


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError as exc:
        raise _unreadable(file, exc) from exc


def _read(file: Path) -> Mapping[str, str | None]:
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    try:
        with file.open(encoding="utf-8-sig") as stream:
            bindings = list(parse_stream(stream))
        values = dotenv_values(file, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise _unreadable(file, exc) from exc
    for key, value, original, is_broken in bindings:
        if is_broken and _OURS.match(original.string):
            raise ConfigurationError(
                f"{file} cannot be read at line {original.line}.", "Close its quotes, or remove it."
            )
        if key and original.string.partition("=")[2].lstrip().startswith("'"):
            values[key] = value  # as in a shell, ${...} stands for itself in single quotes
    return values


def _unreadable(file: Path, exc: OSError | UnicodeDecodeError) -> ConfigurationError:
    return ConfigurationError(
        f"{file} cannot be read: {reason(exc)}.", "Make it readable UTF-8, or remove it."
    )


def reason(exc: OSError | UnicodeDecodeError) -> str:
    """Say why a file cannot be read."""
    return exc.strerror or type(exc).__name__ if isinstance(exc, OSError) else "it is not UTF-8"
