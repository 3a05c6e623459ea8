"""The creation of a data directory, by initdb."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from pathlib import Path

from ragschema.embedded.data_directory import mark
from ragschema.embedded.places import server_user
from ragschema.embedded.programs import run_program
from ragschema.errors import DatabaseUnreachable

CTYPES = ("C.UTF-8", "en_US.UTF-8", "UTF-8", "C")
"""What tells letters from other characters, the first that the system has; in C every non-ASCII one is a letter."""


def initialise(data: Path, password: str | None) -> None:
    """Make a data directory beside its place and move it there: a killed run leaves no half of one.

    Args:
        data: The data directory.
        password: The superuser's, where every login needs one.

    Raises:
        DatabaseUnreachable: initdb refuses.
    """
    for leftover in data.parent.glob(glob.escape(f".{data.name}.ragschema-") + "*"):
        shutil.rmtree(leftover, ignore_errors=True)
    building = make_directory_beside(data)
    try:
        if user := server_user(data):
            os.chown(building, *user)
        for ctype in CTYPES:
            with tempfile.TemporaryFile("w+") as secret:  # without a name: nobody finds it after a kill -9
                secret.write(password or "")
                secret.seek(0)
                login = (
                    ["--auth=trust"] if password is None else ["--auth=scram-sha-256", "--pwfile=/dev/stdin"]
                )
                result = run_program(
                    "initdb", building, "-U", "postgres", *login, "--encoding=UTF8", "--no-sync",
                    "--locale=C", f"--lc-ctype={ctype}", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
                    standard_input=secret,
                )  # fmt: skip
            if result.returncode == 0 or "locale name" not in result.stdout:
                break
        if result.returncode:
            raise DatabaseUnreachable(
                f"A PostgreSQL data directory cannot be made in {data}.",
                "Set RAG_EMBEDDED_DIR to a directory on a local disk, or DATABASE_URL to a server.",
                result.stdout.strip(),
            )
        mark(building)
        building.rename(data)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def make_directory_beside(data: Path) -> Path:
    """Make an empty directory on the same disk, which `initialise` removes if nobody else does."""
    return Path(tempfile.mkdtemp(prefix=f".{data.name}.ragschema-", dir=data.parent))
