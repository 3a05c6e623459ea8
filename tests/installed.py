"""Wheels built from the checkout, and environments of their own to install them in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT, clean_environment


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own."""

    directory: Path

    @property
    def package(self) -> Path:
        """The directory of the installed package."""
        return self.directory / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "ragschema"

    def run(
        self, program: str, *arguments: str, cwd: Path = Path("/"), **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, from ``/``, with nothing else in the environment variables."""
        return subprocess.run(
            [self.directory / "bin" / program, *arguments],
            cwd=cwd,
            env={"PATH": "/usr/bin:/bin"} | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def uv(*arguments: str | Path) -> None:
    """Run uv in the checkout."""
    program = os.environ.get("UV") or shutil.which("uv") or "uv"
    environment = clean_environment()
    environment.pop("PYTHONPYCACHEPREFIX", None)  # what it compiles belongs beside what it installs
    result = subprocess.run(
        [program, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def build(source: Path, output: Path, *options: str) -> None:
    """Build distributions with the hatchling that is installed here.

    With no option it is the sdist, and a wheel from that sdist; with ``--wheel`` a wheel from the source.
    """
    uv(
        "build", "--quiet", "--no-build-isolation", "--python", sys.executable, *options,
        "--out-dir", output, source,
    )  # fmt: skip


def make_environment(directory: Path) -> Environment:
    """Make an empty virtual environment."""
    uv("venv", "--quiet", "--python", sys.executable, directory)
    return Environment(directory)


def install_alone(wheel: Path, directory: Path) -> Environment:
    """Install a wheel alone in a new environment, which takes the rest from this one; compile its bytecode.

    A path in a .pth file comes after the environment's own packages, and .pth files behind it, such as the
    checkout's, are not read: ragschema is the wheel's.
    """
    environment = make_environment(directory)
    uv(
        "pip", "install", "--quiet", "--python", directory, "--no-deps", "--no-cache", "--compile-bytecode",
        wheel,
    )  # fmt: skip
    (environment.package.parent / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment
