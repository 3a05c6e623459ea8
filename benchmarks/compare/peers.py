"""Run the peer scripts: a virtual environment for each, a process for each, requests as JSON lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compare.systems import Answer, Republished
from compare.workload import DIMENSION, Text
from ragschema.database.settings import Database

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Package:
    """A peer: what to install, the script that drives it, and the ways it re-ingests a changed document."""

    name: str
    script: str
    requirements: tuple[str, ...]
    ways: tuple[str, ...]


LANGCHAIN = Package(
    "langchain-postgres",
    "peer_langchain.py",
    ("langchain-postgres==0.0.19", "langchain-classic>=1,<2"),  # the latter has the SQL record manager
    ("index", "delete + add"),
)
LLAMA_INDEX = Package(
    "llama-index",
    "peer_llama_index.py",
    ("llama-index-vector-stores-postgres==0.9.0",),
    ("delete + insert",),
)


class Peer:
    """A running peer script; a context manager that ends it.

    Args:
        package: What it runs.
        database: Where to.
        documents: How many the workload has.
        dimension: Of the embeddings.
        is_described: Whether documents have metadata.
        text: Pattern of the files whose passages are the workload; None: one that is made up.
    """

    def __init__(
        self,
        package: Package,
        database: Database,
        documents: int,
        dimension: int = DIMENSION,
        is_described: bool = False,
        text: str | None = None,
    ) -> None:
        self.name = package.name
        self.package = package
        self.database = database
        self._process = subprocess.Popen(
            [
                python(package),
                HERE / package.script,
                json.dumps(dict(database.parameters)),
                str(documents),
                str(dimension),
                json.dumps(is_described),
                json.dumps(text),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(HERE.parent), "PYTHONWARNINGS": "ignore"},
        )

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Send a request; return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"The script of {self.name} failed: its traceback is above.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def create(self, *, index: bool) -> None:
        self.ask("create", index=index)

    def load(self, documents: Sequence[int], version: int, way: str = "add") -> float:
        """Write documents as they are in a version; return the seconds it took."""
        return float(self.ask("load", documents=list(documents), version=version, way=way)["seconds"])

    def build_index(self) -> float:
        return float(self.ask("build_index")["seconds"])

    def search(self, kind: str, count: int, start: int, stop: int) -> list[Answer]:
        answer = self.ask("search", kind=kind, count=count, start=start, stop=stop)
        return [
            Answer(seconds, [Text(*which) for which in found], cpu)
            for seconds, cpu, found in zip(answer["seconds"], answer["cpu"], answer["found"], strict=True)
        ]

    def delete(self, documents: Sequence[int]) -> float:
        """Delete documents at once; return the CPU seconds that the script took."""
        return float(self.ask("delete", documents=list(documents))["cpu"])

    def republish(self, document: int, states: Sequence[int], way: str) -> Republished:
        answer = self.ask("republish", document=document, states=list(states), way=way)
        return Republished(answer["seconds"], answer["texts"])


def python(package: Package) -> Path:
    """Return the Python of a package's virtual environment, made on first use."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache / "ragschema-benchmarks" / package.requirements[0]
    executable = place / "bin" / "python"
    if not (place / "ready").exists():
        print(f"installing {' '.join(package.requirements)}", file=sys.stderr)
        subprocess.run(["uv", "venv", "-q", "--clear", "--python", sys.executable, place], check=True)
        install = ["uv", "pip", "install", "-q", "--exclude-newer", "2026-11-20T00:00:00Z"]
        subprocess.run([*install, "--python", executable, *package.requirements], check=True)
        (place / "ready").touch()
    return executable


def versions(package: Package) -> str:
    """Return the installed versions that matter."""
    names = ("langchain-postgres", "langchain-core", "llama-index-vector-stores-postgres", "llama-index-core",
             "sqlalchemy", "psycopg", "psycopg2-binary", "pgvector")  # fmt: skip
    listed = subprocess.run(
        ["uv", "pip", "list", "-q", "--format", "json", "--python", python(package)],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    installed = {each["name"]: each["version"] for each in json.loads(listed)}
    return ", ".join(f"{name} {installed[name]}" for name in names if name in installed)
