"""The end of a data directory: what may be deleted, and what is left alone."""

from __future__ import annotations

import shutil
import socket
from contextlib import suppress
from pathlib import Path

from ragschema.embedded import places, server, sockets
from ragschema.embedded.creation import make_directory_beside
from ragschema.embedded.data_directory import MARKER, installed_version, is_marked, read_version
from ragschema.embedded.programs import program
from ragschema.errors import ConfigurationError


def destroy(data: Path, *, without_marker: bool = False) -> None:
    """Stop the server and delete its data directory, every row in it included.

    Args:
        data: The data directory; an absolute path, with no symbolic link in it but the one that `running` makes
            as root.
        without_marker: Also one that an earlier ragschema made, which has no marker.

    Raises:
        ConfigurationError: It does not hold a server of ours, or somebody else runs a server on it.
    """
    program("postgres")
    check_destroyable(data, without_marker=without_marker)
    place = places.real_place(data)
    with server.transition(place):
        check_destroyable(data, without_marker=without_marker)
        server.stop_now(place)
        shutil.rmtree(sockets.short_directory(place), ignore_errors=True)
        server.beside(place, "kept").unlink(missing_ok=True)
        if place != data:
            data.unlink()
        doomed = make_directory_beside(place)
        place.rename(doomed)  # at once: a killed run leaves no half of a data directory in its place
        shutil.rmtree(doomed)


def discard(data: Path) -> None:
    """Stop the server of a data directory whose process is gone, and forget its socket; the caller deletes it.

    Raises:
        RagSchemaError: It does not stop.
    """
    if is_marked(data):
        with server.transition(data):
            server.stop_now(data)
            shutil.rmtree(sockets.short_directory(data), ignore_errors=True)


def check_destroyable(data: Path, *, without_marker: bool = False) -> None:
    """Refuse what `destroy` leaves alone.

    Raises:
        ConfigurationError: It does not hold a server of ours, or somebody else runs a server on it.
    """
    nothing = "Nothing was deleted."
    if not places.is_our_link(data):
        for path in (data, *data.parents):
            if path.is_symlink():
                raise ConfigurationError(
                    f"{path} is a symbolic link: what it leads to is not deleted.",
                    f"{nothing} Name the directory itself in RAG_EMBEDDED_DIR.",
                )
    place = places.real_place(data)
    with server.checked(place):
        version = read_version(place)
        if version is None:
            raise ConfigurationError(f"There is no embedded server in {place}.", nothing)
        if not is_marked(place) and not (without_marker and _looks_like_ours(place, version)):
            raise ConfigurationError(
                f"{place} was not made by ragschema: it has no {MARKER} for PostgreSQL {version}.",
                f"{nothing} One that an earlier ragschema made: `rag db destroy --without-marker`.",
            )
        if _is_anothers(place):
            raise ConfigurationError(
                f"A server that ragschema did not start runs on {place}.", f"{nothing} Stop it first."
            )


def _looks_like_ours(data: Path, version: str) -> bool:
    """Whether a data directory without a marker is one that earlier versions made: beside it they locked a file."""
    return version == installed_version() and server.beside(data, "lock").is_file()


def _is_anothers(data: Path) -> bool:
    """Whether a server runs on a data directory that we did not start, or cannot see, as in another container."""
    lines = server.pid_file(data)
    if len(lines) < 6:
        return False
    port, directory, address = lines[3:6]
    if server.is_running(data):
        return (directory, address) != (str(sockets.socket_directory(data)), "")
    with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        probe.connect(f"{directory}/.s.PGSQL.{port}")
        return True
    return False
