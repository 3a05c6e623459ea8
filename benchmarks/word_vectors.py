"""Vectors of texts by their words: TF-IDF and a truncated singular value decomposition. Deterministic; numpy only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from compare.workload import DIMENSION
from numpy.typing import NDArray

WORDS = re.compile(r"[A-Za-z][a-z]+|[A-Z]{2,}")  # of a name in code, its parts
BATCH = 1_000  # texts whose TF-IDF is in memory at once
OVERSAMPLING = 16  # of the decomposition, so that the last vectors are good too


class WordVectors:
    """What a sample of texts says of words, and the vectors of texts by it; texts are lists of words.

    Args:
        sample: Texts to learn the words and the directions from.
        rank: How many dimensions are not zero, of 768.
        vocabulary: How many words count: the most frequent.
    """

    def __init__(self, sample: Sequence[Sequence[str]], rank: int, vocabulary: int) -> None:
        self._rank = rank
        seen = Counter(word for words in sample for word in dict.fromkeys(map(str.lower, words)))
        common = [word for word, number in seen.most_common(vocabulary) if number > 1]
        self._columns = {word: number for number, word in enumerate(common)}
        self._rarity = np.log(len(sample) / np.array([seen[word] for word in common])).astype(np.float32)
        self._basis = self._decompose(sample)

    def embed(self, texts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return unit vectors of 768 dimensions; of a text without a known word, one that says nothing."""
        projected = np.stack([weights @ self._basis[columns] for columns, weights in map(self._weigh, texts)])
        norms = np.linalg.norm(projected, axis=1, keepdims=True)
        projected = np.where(norms > 0, projected / np.maximum(norms, 1e-9), 1 / np.sqrt(self._rank))
        return np.pad(projected.astype(np.float32), ((0, 0), (0, DIMENSION - self._rank)))

    def _weigh(self, words: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the columns of a text's known words, and their TF-IDF, normalised."""
        known = self._columns
        times = Counter(known[word] for each in words if (word := each.lower()) in known)
        columns = np.fromiter(times, np.int64, len(times))
        counts = np.fromiter(times.values(), np.float32, len(times))
        weights = (1 + np.log(counts)) * self._rarity[columns]
        return columns, weights / np.maximum(np.linalg.norm(weights), np.float32(1e-9))

    def _decompose(self, sample: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return the first right singular vectors, by a randomized decomposition."""
        random = np.random.default_rng(2)
        basis = random.standard_normal((len(self._columns), self._rank + OVERSAMPLING), dtype=np.float32)
        for _ in range(2):
            product = np.zeros_like(basis)
            for rows in self._rows(sample):
                product += rows.T @ (rows @ basis)
            basis = np.linalg.qr(product)[0].astype(np.float32)
        gram = np.zeros((basis.shape[1],) * 2, np.float32)
        for rows in self._rows(sample):
            projected = rows @ basis
            gram += projected.T @ projected
        vectors = np.linalg.eigh(gram)[1][:, ::-1][:, : self._rank]
        return np.asarray(basis @ vectors, np.float32)

    def _rows(self, texts: Sequence[Sequence[str]]) -> Iterator[NDArray[np.float32]]:
        """Yield the TF-IDF of the texts, a batch at a time."""
        for first in range(0, len(texts), BATCH):
            batch = texts[first : first + BATCH]
            rows = np.zeros((len(batch), len(self._columns)), np.float32)
            for row, words in zip(rows, batch, strict=True):
                columns, weights = self._weigh(words)
                row[columns] = weights
            yield rows
