"""Columns of messages, as statements name and type them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

WRITTEN = {
    "role": "text",
    "content": "text",
    "tool_call_id": "text",
    "model": "text",
    "input_tokens": "integer",
    "output_tokens": "integer",
    "latency_ms": "integer",
    "finish_reason": "text",
    "error_message": "text",
}
COLUMNS = f"id, session_id, position, {', '.join(WRITTEN)}, parts, metadata, created_at"
TYPES: dict[str, Any] = {
    "id": sa.Uuid(),
    "session_id": sa.Uuid(),
    "parent_id": sa.Uuid(),
    "parts": JSONB(),
    "metadata": JSONB(),
}
