"""Version 7 UUIDs (RFC 9562): ordered by time, so that new rows go to one end of each index."""

from __future__ import annotations

import os
import threading
import time
from typing import TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

IdBytes: TypeAlias = NDArray[np.uint8]

_lock = threading.Lock()
_last = 0  # 48 bits of milliseconds, 12 of their fraction: the newest that was given out


def uuid7() -> UUID:
    """Return a new UUIDv7, greater than every one this process has made before."""
    return uuid7s(1)[0]


def uuid7s(count: int) -> list[UUID]:
    """Return new UUIDs of version 7, ascending."""
    data = uuid7_bytes(count).tobytes()
    return [UUID(bytes=data[at : at + 16]) for at in range(0, len(data), 16)]


def uuid7_bytes(count: int) -> IdBytes:
    """Return new UUIDs of version 7, ascending, as an array of shape ``(count, 16)``.

    The 12 bits after the version hold the fraction of the millisecond (RFC 9562, 6.2, method 3) and count on
    where the clock stands still; the last 62 are random.
    """
    made = np.frombuffer(os.urandom(16 * count), dtype=np.uint8).reshape(count, 16).copy()
    ticks = _take_ticks(count) + np.arange(count, dtype=np.uint64)
    made[:, :6] = (ticks >> np.uint64(12)).astype(">u8").view(np.uint8).reshape(count, 8)[:, 2:]
    made[:, 6] = 0x70 | ((ticks >> np.uint64(8)) & np.uint64(0x0F)).astype(np.uint8)
    made[:, 7] = (ticks & np.uint64(0xFF)).astype(np.uint8)
    made[:, 8] = 0x80 | (made[:, 8] & 0x3F)
    return made


def _take_ticks(count: int) -> np.uint64:
    """Return the first of so many consecutive ticks, each after all that were taken before."""
    global _last
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    with _lock:
        first = max((milliseconds << 12) + (rest << 12) // 1_000_000, _last + 1)
        _last = first + count - 1
    return np.uint64(first)
