"""A workload of real text: passages of files, embedded by TF-IDF and a decomposition. Deterministic; numpy only.

Files are cut into passages in order. Of eleven in a row ten are a document, and the one amid them is what somebody
searches with. A workload takes documents at equal distances from all, so that a small one is of the same kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from compare.workload import DIMENSION, Text, Vector, Workload
from word_vectors import WORDS, WordVectors

SHORTEST, LONGEST = 500, 800  # characters; a passage ends with the first line that ends between them
FEWEST_WORDS = 24
CHUNKS = 10  # of a document
HELD_OUT = CHUNKS // 2  # which passage of eleven
SAMPLE = 40_000  # passages to learn from
RANK = 768
VOCABULARY = 16_384


class Passages:
    """The passages of files, and the vectors that a sample of them defines.

    Args:
        pattern: Of the files; ``**`` stands for directories.
    """

    def __init__(self, pattern: str) -> None:
        passages = list(_read(pattern))
        self.documents = [
            passages[first : first + CHUNKS + 1] for first in range(0, len(passages) - CHUNKS, CHUNKS + 1)
        ]
        sample = passages[:: max(1, len(passages) // SAMPLE)]
        self.vectors = WordVectors([WORDS.findall(each) for each in sample], RANK, VOCABULARY)


class PassageWorkload(Workload):
    """Documents of ten passages each; a query is the vector of a passage that was held out of a document.

    An edit replaces a fifth of a passage by what another of its document says there.

    Args:
        passages: To take them from.
        documents: How many.
    """

    def __init__(self, passages: Passages, documents: int) -> None:
        super().__init__(documents, dimension=DIMENSION)
        found = len(passages.documents)
        if found < documents:
            raise SystemExit(f"There is text for {found} documents only.")
        self.chunk_counts = np.full(documents, CHUNKS)
        self._vectors = passages.vectors
        self._documents = [passages.documents[number * found // documents] for number in range(documents)]

    def text(self, text: Text) -> str:
        """Return what a text says, after the words that `parse` reads."""
        return f"document {text.document} chunk {text.place} state {text.state} {self._passage(text)}"

    def vector(self, text: Text) -> Vector:
        """Return the embedding of a text."""
        return self._embed(self._passage(text))

    def _passage(self, text: Text) -> str:
        passages = self._documents[text.document]
        chunks = [*passages[:HELD_OUT], *passages[HELD_OUT + 1 :]]
        chunk = chunks[text.place]
        if not text.state:
            return chunk
        other = chunks[(text.place + text.state) % CHUNKS]
        fifth = len(chunk) // 5
        start = text.state * fifth
        return chunk[:start] + other[start : start + fifth] + chunk[start + fifth :]

    def _near(self, random: np.random.Generator, document: int, distance: float = 0.0) -> Vector:
        return self._embed(self._documents[document][HELD_OUT])

    def _embed(self, passage: str) -> Vector:
        vector: Vector = self._vectors.embed([WORDS.findall(passage)])[0]
        return vector


def _read(pattern: str) -> Iterator[str]:
    """Yield the passages of files in order, but those of few words and those whose words were read before."""
    seen = set()
    whole = Path(pattern).absolute()
    for path in sorted(Path(whole.anchor).glob(str(whole.relative_to(whole.anchor)))):
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="ignore").replace("\0", "")
        start = 0
        while start + SHORTEST <= len(text):
            end = text.find("\n", start + SHORTEST, start + LONGEST) + 1 or min(start + LONGEST, len(text))
            passage = text[start:end]
            start = end
            words = WORDS.findall(passage)
            key = hash(tuple(words))
            if len(words) >= FEWEST_WORDS and key not in seen:
                seen.add(key)
                yield passage
