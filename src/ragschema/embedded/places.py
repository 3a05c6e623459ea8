"""Places where root keeps the data and the programs of a server that does not run as root.

PostgreSQL refuses to run as root, so the server runs as ``postgres`` or ``nobody``. Where that user cannot pass
through the directories above the data, as through /root, the data goes below /var/lib/ragschema, and a symbolic
link stands in its place; so do the programs, as a copy. No mode of a directory that was there is changed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from ragschema.errors import ConfigurationError

log = logging.getLogger(__name__)

STATE = Path("/var/lib/ragschema")
"""Root's own; as the file system hierarchy has it for what a program keeps."""


def server_user(data: Path) -> tuple[int, int] | None:
    """Return the uid and gid to run the server as, or None for our own: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    import pwd

    if data.exists() and (owner := data.stat()).st_uid != 0:
        return owner.st_uid, owner.st_gid
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise ConfigurationError(
        "PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as.",
        "Add one, run as a normal user, or set DATABASE_URL.",
    )


def real_place(data: Path) -> Path:
    """Return where a data directory really is: elsewhere, where our own link stands in its place."""
    return _elsewhere(data) if is_our_link(data) else data


def is_our_link(data: Path) -> bool:
    """Whether the link that `settle` makes stands in a data directory's place, and no other link."""
    return data.is_symlink() and data.readlink() == _elsewhere(data)


def settle(data: Path) -> Path:
    """Return where a data directory is or is to be, and make the directories above it.

    Raises:
        ConfigurationError: Root may not make the place of its own.
    """
    ids = server_user(data)
    if ids is None or not (is_our_link(data) or _is_to_be_elsewhere(data, ids)):
        _make_parents(data)
        return data
    place = _elsewhere(data)
    _make_state()
    _make_parents(place)
    _make_parents(data)
    if not data.is_symlink():
        log.info(
            "Data of %s goes to %s: uid %s, which runs the server, cannot pass to it", data, place, ids[0]
        )
        with suppress(FileExistsError):  # another process of ours was faster
            data.symlink_to(place)
    return place


def refuse_blocked(data: Path, ids: tuple[int, int]) -> None:
    """Refuse a data directory that the server's user cannot pass to.

    Raises:
        ConfigurationError: That is so.
    """
    if (directory := find_blocked(data, ids)) is not None:
        raise ConfigurationError(
            f"The embedded server runs as uid {ids[0]} and cannot pass through {directory}.",
            f"Set RAG_EMBEDDED_DIR to a directory that it can pass to, such as {STATE / 'mine'}; run as a normal"
            " user; or set DATABASE_URL.",
        )


def reachable_program(executable: Path, ids: tuple[int, int]) -> Path:
    """Return a program's path, or its copy's where the server's user cannot pass to it.

    Raises:
        ConfigurationError: Root may not make the copy.
    """
    if find_blocked(executable, ids) is None and _allows(executable, ids, stat.S_IXUSR):
        return executable
    installed, status = executable.parents[2], executable.with_name("postgres").stat()  # the package
    name = f"{installed} {status.st_size} {status.st_mtime_ns}"
    place = STATE / f"programs-{_digest(name)}"
    if not place.is_dir():
        _make_state()
        log.info("Copying PostgreSQL to %s: uid %s, which runs the server, cannot pass to it", place, ids[0])
        _copy_programs(installed, place)
    return place / executable.relative_to(installed.parent)


def find_blocked(path: Path, ids: tuple[int, int]) -> Path | None:
    """Return the topmost of the directories above a path, of those there are, that a user cannot pass through."""
    for directory in reversed(path.parents):
        if directory.exists() and not _allows(directory, ids, stat.S_IXUSR):
            return directory
    return None


def _allows(path: Path, ids: tuple[int, int], right: int) -> bool:
    """Whether a path's mode gives a user a right, written as that of its owner."""
    status = path.stat()
    shift = 0 if status.st_uid == ids[0] else 3 if status.st_gid == ids[1] else 6
    return bool(status.st_mode & right >> shift)


def _is_to_be_elsewhere(data: Path, ids: tuple[int, int]) -> bool:
    return not os.path.lexists(data) and find_blocked(data, ids) is not None


def _elsewhere(data: Path) -> Path:
    return STATE / f"data-{_digest(str(data))}" / data.name


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:12]


def _make_parents(data: Path) -> None:
    """Make the directories above a path that are missing; root makes them passable whatever its umask."""
    for directory in reversed(data.parents):
        with suppress(FileExistsError):
            directory.mkdir()
            if os.geteuid() == 0:
                directory.chmod(stat.S_IMODE(directory.stat().st_mode) | 0o011)


def _make_state() -> None:
    try:
        with suppress(FileExistsError):
            STATE.mkdir(parents=True)
            STATE.chmod(0o755)
        status = STATE.lstat()
    except OSError as exc:
        raise ConfigurationError(
            f"The embedded server does not run as root, and {STATE} cannot be made for it: {exc.strerror}.",
            "Set RAG_EMBEDDED_DIR to a directory that the user postgres or nobody can pass to, with the package"
            " installed where it can too; run as a normal user; or set DATABASE_URL.",
        ) from exc
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
        raise ConfigurationError(
            f"{STATE} is not a directory that only root may write to.", "Remove it, or set DATABASE_URL."
        )


def _copy_programs(package: Path, place: Path) -> None:
    """Copy a package and the libraries that its wheel keeps beside it, readable to all.

    At once: a killed run leaves no half of them in their place.
    """
    building = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=STATE))
    unused = shutil.ignore_patterns("include", "__pycache__")
    try:
        for directory in (package, package.with_name(f"{package.name}.libs")):
            if directory.is_dir():
                shutil.copytree(directory, building / directory.name, symlinks=True, ignore=unused)
        for path in [building, *building.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        with suppress(OSError):  # another process of ours was faster
            building.rename(place)
    finally:
        shutil.rmtree(building, ignore_errors=True)
