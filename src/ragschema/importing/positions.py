"""Position of an import: a job that no worker claims, whose progress says how far an unfinished import has come."""

from __future__ import annotations

import json
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa

JOB_TYPE = "rag import"

_FIND = sa.text("""
SELECT id, progress ->> 'after' AS after FROM rag_jobs
WHERE job_type = :type AND dedupe_key = :key AND status IN ('new', 'processing')
""")
# Never due: it waits for `rag import` to be run again, and for no worker.
_BEGIN = sa.text("""
INSERT INTO rag_jobs (job_type, payload, run_at, dedupe_key)
VALUES (:type, CAST(:payload AS jsonb), timestamptz '9000-01-01 00:00+00', :key)
ON CONFLICT DO NOTHING
RETURNING id
""")
_MOVE = sa.text("""
UPDATE rag_jobs SET progress = CAST(:progress AS jsonb), updated_at = now() WHERE id = :id AND status = 'new'
""")
_END = sa.text("""
UPDATE rag_jobs SET status = 'completed', finished_at = now(), updated_at = now(), run_at = now(),
    progress = CAST(:progress AS jsonb)
WHERE id = :id AND status = 'new'
""")


@dataclass(frozen=True)
class Position:
    """How far an import has come.

    Attributes:
        id: Of its job.
        after: The last document that was done; None: none was.
    """

    id: UUID
    after: str | None


def begin(connection: sa.Connection, name: str, digest: str) -> Position:
    """Return the position of an import that was interrupted, or of one that begins; commit it."""
    key = {"type": JOB_TYPE, "key": f"{name} {digest}"}
    found = connection.execute(_FIND, key).one_or_none()
    if found is not None:
        return Position(found.id, found.after)
    payload = json.dumps({"import": name})
    return Position(connection.execute(_BEGIN, key | {"payload": payload}).scalar_one(), None)


def move(connection: sa.Connection, position: Position, after: str) -> None:
    """Say which document was done last, in the transaction that does it."""
    connection.execute(_MOVE, {"id": position.id, "progress": json.dumps({"after": after})})


def end(connection: sa.Connection, position: Position, documents: int) -> None:
    """Say that an import has come to its end: the next one begins anew."""
    connection.execute(_END, {"id": position.id, "progress": json.dumps({"documents": documents})})
