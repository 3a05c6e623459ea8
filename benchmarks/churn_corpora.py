"""The two corpora of index_churn.py: made of directions, and of real text. Deterministic; numpy only.

Both have documents of about ten chunks, edits of chunks, and queries, as arrays of unit vectors of 768 dimensions.
"""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from compare.workload import DIMENSION, Text, Vector, Workload
from numpy.typing import NDArray

WORDS = re.compile(r"[A-Za-z][a-z]+|[A-Z]{2,}")  # of a name in code, its parts
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
        lowered = [Counter(word.lower() for word in words) for words in self._words]
        seen = Counter(word for counts in lowered for word in counts)
        common = [word for word, number in seen.most_common(VOCABULARY) if number > 1]
        self._columns = {word: number for number, word in enumerate(common)}
        self._rarity = np.log(len(lowered) / np.array([seen[word] for word in common])).astype(np.float32)
        self._basis = self._decompose()
        self.vectors = self._embed(self._words)

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
        return edited, self._embed([self._words[number] for number in edited])

    def queries(self, count: int) -> NDArray[np.float32]:
        random = np.random.default_rng(1)
        passages = []
        for number in random.choice(len(self._words), count, replace=False):
            words = self._words[number]
            start = int(random.integers(0, max(1, len(words) - QUERY)))
            passages.append(words[start : start + QUERY])
        return self._embed(passages)

    def _decompose(self) -> NDArray[np.float32]:
        """Return the first right singular vectors, by a randomized decomposition."""
        random = np.random.default_rng(2)
        basis = random.standard_normal((len(self._columns), RANK + 16), dtype=np.float32)
        for _ in range(2):
            product = np.zeros_like(basis)
            for rows in self._rows(self._words):
                product += rows.T @ (rows @ basis)
            basis = np.linalg.qr(product)[0].astype(np.float32)
        gram = np.zeros((basis.shape[1],) * 2, np.float32)
        for rows in self._rows(self._words):
            projected = rows @ basis
            gram += projected.T @ projected
        vectors = np.linalg.eigh(gram)[1][:, ::-1][:, :RANK]
        return np.asarray(basis @ vectors, np.float32)

    def _embed(self, texts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        projected = np.concatenate([rows @ self._basis for rows in self._rows(texts)])
        norms = np.linalg.norm(projected, axis=1, keepdims=True)
        projected = np.where(norms > 0, projected / np.maximum(norms, 1e-9), 1 / np.sqrt(RANK))
        return np.pad(projected.astype(np.float32), ((0, 0), (0, DIMENSION - RANK)))

    def _rows(self, texts: Sequence[Sequence[str]]) -> Iterator[NDArray[np.float32]]:
        """Yield the TF-IDF of the texts, normalised, a thousand at a time."""
        for first in range(0, len(texts), 1_000):
            batch = texts[first : first + 1_000]
            rows = np.zeros((len(batch), len(self._columns)), np.float32)
            for number, words in enumerate(batch):
                for word, times in Counter(word.lower() for word in words).items():
                    if (column := self._columns.get(word)) is not None:
                        rows[number, column] = 1 + np.log(times)
            rows *= self._rarity
            rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
            yield rows


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
