"""The section of RESULTS.md that a full run makes, and its place there."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "RESULTS.md"
HEADING = "## retrieval.py"
METHOD = """\
Side by side in one run on one embedded server; times are medians. {documents:,} documents of 8 to 12 chunks, each
chunk about 600 characters and a clustered unit vector of 768 dimensions; five further versions, each with 10-20 %
of the chunks edited, an edit moving the vector by a cosine distance of about 0.01. HNSW indexes with pgvector's
defaults, ef_search 40. *Base schema*: the first two revisions, and a service that writes each version as a full
copy by COPY, through psycopg. The peers as their documentation says, in virtual environments of their own.

- First load: {loaded} documents, {rounds} rounds. A peer's own way stands in the row of the ORM.
- History: ours goes through every version, `publish` for `publish`, vacuumed where autovacuum would (20 % dead
  rows); the base schema's index is built when all versions are there. The peers keep no history: they are loaded
  with the current text and get a fresh index, which is their best case.
- Near a hot document: one document is published {hot} more times, every chunk slightly changed each time, and
  nothing is vacuumed before the searches.
- Republish: {republished} documents of 10 chunks with one edited; all systems in turn. langchain-postgres by its
  indexing API, which skips texts it knows, and by delete and add. A copied chunk of the base schema has the same
  vector as its original, and pgvector keeps both in one element of the index: a copy costs a search of the graph,
  and no new element.
- Delete and prune: the same rows in both schemas, made on the server, without embeddings.
"""


def section(size: object, described: str, report: str) -> str:
    """Return the section: heading, command and date, method, server and packages, tables."""
    method = METHOD.format(**vars(size))
    command = f"`uv run python benchmarks/retrieval.py`, {date.today().isoformat()}."
    return f"{HEADING}\n\n{command}\n\n{method}\n{described}\n\n{report}\n"


def save(text: str) -> None:
    """Put the section into RESULTS.md, in place of the one before."""
    results = RESULTS.read_text()
    pattern = re.compile(rf"^{re.escape(HEADING)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(results):
        results = pattern.sub(lambda _: f"{text}\n", results)
    else:
        results = f"{results.rstrip()}\n\n{text}"
    RESULTS.write_text(f"{results.rstrip()}\n")
