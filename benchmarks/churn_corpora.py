"""The two corpora of index_churn.py: made of directions, and of real text. Deterministic; numpy only.

Both have documents of about ten chunks, edits of chunks, and queries, as arrays of unit vectors of 768 dimensions.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from compare.workload import Text, Vector, Workload
from numpy.typing import NDArray
from word_vectors import WORDS, WordVectors

RANK = 256  # of the decomposition; the other dimensions are zero
VOCABULARY = 4_096
CHUNK = 600  # characters
CHUNKS_OF_A_DOCUMENT = 10
QUERY = 12  # words


class Corpus(Protocol):
    """Chunks of documents, and what becomes of them."""

    name: str
    documents: NDArray[np.int64]
    """The document of each chunk."""
    vectors: NDArray[np.float32]
    """Shape ``(chunks, 768)``."""

    def edit(self, version: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return which chunks a version edits, and their new vectors; versions are asked for in order, from 2."""
        ...

    def queries(self, count: int) -> NDArray[np.float32]:
        """Return what somebody searches with."""
        ...


class Topics:
    """The workload of retrieval.py: topics, documents and chunks are directions drawn at random.

    In 768 dimensions those are nearly orthogonal: all chunks of other topics are equally far.
    """

    name = "made of directions"

    def __init__(self, documents: int) -> None:
        self._workload = Workload(documents)
        self._places = [
            (document, place)
            for document in range(documents)
            for place in range(int(self._workload.chunk_counts[document]))
        ]
        self._numbers = {each: number for number, each in enumerate(self._places)}
        self.documents = np.array([document for document, _ in self._places])
        self.vectors = np.stack([self._workload.vector(Text(*each, 0)) for each in self._places])

    def edit(self, version: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        edited = [
            (document, place)
            for document in range(self._workload.documents)
            for place in self._workload.edited(document, version)
        ]
        vectors = [self._workload.vector(Text(*each, version - 1)) for each in edited]
        return np.array([self._numbers[each] for each in edited]), np.stack(vectors)

    def queries(self, count: int) -> NDArray[np.float32]:
        return np.stack([query.embedding for query in self._workload.queries(count)])


class RealText:
    """Source text and prose: this checkout, Python's library, the installed packages. Embedded by TF-IDF and SVD.

    An edit replaces a fifth of a chunk's words by a passage from elsewhere in its document. A query is twelve
    words in a row of a chunk.
    """

    name = "real text"

    def __init__(self, documents: int) -> None:
        texts = list(_read(documents))
        self.documents = np.array([number for number, chunks in enumerate(texts) for _ in chunks])
        self._words = [WORDS.findall(chunk) for chunks in texts for chunk in chunks]
        self._random = np.random.default_rng(0)
        self._vectors = WordVectors(self._words, RANK, VOCABULARY)
        self.vectors = self._vectors.embed(self._words)

    def edit(self, version: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        count = len(self._words)
        edited = np.sort(self._random.choice(count, round(0.15 * count), replace=False))
        for number in edited:
            words = self._words[number]
            others = np.flatnonzero(self.documents == self.documents[number])
            other = self._words[int(self._random.choice(others))]
            length = max(1, len(words) // 5)
            start = int(self._random.integers(0, max(1, len(words) - length)))
            taken = int(self._random.integers(0, max(1, len(other) - length)))
            self._words[number] = [*words[:start], *other[taken : taken + length], *words[start + length :]]
        return edited, self._vectors.embed([self._words[number] for number in edited])

    def queries(self, count: int) -> NDArray[np.float32]:
        random = np.random.default_rng(1)
        passages = []
        for number in random.choice(len(self._words), count, replace=False):
            words = self._words[number]
            start = int(random.integers(0, max(1, len(words) - QUERY)))
            passages.append(words[start : start + QUERY])
        return self._vectors.embed(passages)


def _read(documents: int) -> Iterator[list[str]]:
    """Yield documents of ten chunks: the beginnings of files, of every directory in turn."""
    checkout = Path(__file__).resolve().parents[1]
    library = Path(sysconfig.get_path("stdlib"))
    packages = Path(sysconfig.get_path("purelib"))
    own = [*checkout.glob("*.md"), *checkout.glob("docs/*.md"), *checkout.glob("src/**/*.py")]
    others = [
        *library.glob("*.py"),
        *library.glob("*/*.py"),
        *packages.glob("*/**/*.py"),
        *library.glob("*/*/*.py"),
    ]
    found = 0
    for path in [*sorted(own), *sorted(set(others) - set(own))]:
        if "test" in str(path.relative_to(path.anchor)).replace(str(checkout), ""):
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        for first in range(0, min(len(text), 4 * CHUNK * CHUNKS_OF_A_DOCUMENT), CHUNK * CHUNKS_OF_A_DOCUMENT):
            part = text[first : first + CHUNK * CHUNKS_OF_A_DOCUMENT]
            chunks = [part[start : start + CHUNK] for start in range(0, len(part), CHUNK)]
            chunks = [chunk for chunk in chunks if len(WORDS.findall(chunk)) >= 2 * QUERY]
            if len(chunks) >= CHUNKS_OF_A_DOCUMENT // 2:
                yield chunks
                found += 1
                if found == documents:
                    return
    raise SystemExit(f"There is text for {found} documents only.")


def unit(vectors: NDArray[np.float32]) -> Vector:
    """Return vectors of length 1."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
