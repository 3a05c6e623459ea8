"""Directories of the embedded server's Unix socket, whose path must be short."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from ragschema.embedded.places import server_user
from ragschema.errors import ConfigurationError

PATH_LIMIT = 107  # bytes: sun_path of a Unix socket address, less its closing NUL
LOCK_NAME = ".s.PGSQL.5432.lock"  # beside the socket, named for its port


def socket_directory(data: Path) -> Path:
    """Return where the socket is: the data directory, or a short path where that one is too long or odd."""
    is_short = len(os.fsencode(data / LOCK_NAME)) <= PATH_LIMIT
    is_plain = re.fullmatch(r"[\w./-]+", str(data), re.ASCII)
    return data if is_short and is_plain else short_directory(data)


def short_directory(data: Path) -> Path:
    """Return a path in /tmp, named for the server's user and its data directory."""
    user = server_user(data)
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    return Path("/tmp") / f"ragschema-{user[0] if user else os.geteuid()}-{digest}"  # noqa: S108 checked before use


def make_socket_directory(data: Path) -> Path:
    """Make the directory of the socket, private to the server's user, unless it is there.

    Raises:
        ConfigurationError: Something else is in its place.
    """
    directory = socket_directory(data)
    if directory == data:
        return directory
    user = server_user(data)
    owner = user[0] if user else os.geteuid()
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    status = directory.lstat()  # of the name itself: another user may have put a link there
    if user and stat.S_ISDIR(status.st_mode) and status.st_uid == 0:
        os.chown(directory, *user, follow_symlinks=False)
        status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner or stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigurationError(
            f"{directory} is not a private directory of uid {owner}.",
            "Remove it, or set RAG_EMBEDDED_DIR to a shorter path.",
        )
    return directory
