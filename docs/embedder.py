"""A stand-in for an embedding model, so that these pages run anywhere and always print the same.

It knows spelling, not meaning: texts that share words or parts of words get near vectors, "car" and "automobile" do
not. In your service put the model's call in its place: any function from texts to vectors of 768 numbers will do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

DIMENSION = 768
VERSION = "trigrams-1"
"""Name the model and all that changes its vectors: a chunk is embedded anew when this changes."""


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Return a unit vector for each text, of shape ``(len(texts), 768)``: its hashed letter trigrams, counted.

    Raises:
        ValueError: A text has no word in it.
    """
    vectors = np.zeros((len(texts), DIMENSION), np.float32)
    for vector, text in zip(vectors, texts, strict=True):
        for word in re.findall(r"\w+", text.lower()):
            padded = f" {word} "
            for start in range(len(padded) - 2):
                vector[crc32(padded[start : start + 3].encode()) % DIMENSION] += 1
        if not vector.any():
            raise ValueError(f"there is no word in {text!r}")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors
