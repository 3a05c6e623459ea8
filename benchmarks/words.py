"""Search by words, beside what it was: recall in ten languages, the text index's size and build, hybrid search.

    uv run python benchmarks/words.py [--chunks 20000] [--text FILES]

Starts an embedded server of its own and prints Markdown. English text comes from files, whose paragraphs become
chunks of about 1,000 letters. Builds are timed by the server's CPU, searches by the clock, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from english import english
from words_in_languages import documents, questions

from ragschema import embedded, hybrid_search, migrations
from ragschema.database.settings import Database

# The words and the ranks of a search as they were: any lexeme of the default parser, the rarer the more.
_BEFORE = """
WITH lexeme AS MATERIALIZED (
  SELECT lexeme, ('''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''')::tsquery AS query
  FROM unnest(to_tsvector('simple', %(text)s)) ORDER BY positions[1] LIMIT 32
), holder AS MATERIALIZED (
  SELECT c.id, c.version_id, count(*) OVER (PARTITION BY lexeme) AS frequency
  FROM lexeme CROSS JOIN LATERAL (
    SELECT id, version_id FROM rag_chunks
    WHERE is_current AND text_config = 'simple' AND rag_text_vector(text_config, content) @@ query LIMIT 5001
  ) c
), best AS (
  SELECT id, sum(ln(1 + 5000 / frequency::float)) AS weight FROM holder
  WHERE frequency <= 5000 OR (SELECT min(frequency) FROM holder) > 5000
  GROUP BY id ORDER BY 2 DESC, 1 LIMIT 40
)
SELECT d.article_id FROM best JOIN rag_chunks c USING (id)
JOIN rag_document_versions v ON v.id = c.version_id JOIN rag_documents d ON d.id = v.document_id
ORDER BY weight + ts_rank(rag_text_vector(c.text_config, content), (SELECT string_agg(query::text, ' | ') FROM lexeme)::tsquery, 32)
  DESC, c.id LIMIT 10
"""  # noqa: E501
_INDEXES = {
    "before": "CREATE INDEX before_idx ON rag_chunks USING gin (rag_text_vector(text_config, content))"
    " WHERE is_current",
    "now": 'CREATE INDEX now_idx ON rag_chunks USING gin ((rag_words(text_config, content)) COLLATE "C")'
    " WHERE is_current",
}


def fill(connection: psycopg.Connection[Any], contents: dict[str, str], config: str = "simple") -> None:
    """Make a document of one chunk of each content."""
    connection.execute(
        """
        WITH given AS (
          SELECT gen_random_uuid() AS d, gen_random_uuid() AS v, * FROM unnest(%s::text[], %s::text[]) AS g (a, c)
        ), document AS (
          INSERT INTO rag_documents (id, article_id, current_version_id, text_config) SELECT d, a, v, %s FROM given
        ), version AS (
          INSERT INTO rag_document_versions
            (id, document_id, version_number, source_hash, chunker_version, embedder_version)
          SELECT v, d, 1, 'h', 'c', 'e' FROM given
        )
        INSERT INTO rag_chunks (version_id, ordinal, content, is_current, text_config)
        SELECT v, 0, c, true, %s FROM given
        """,
        (list(contents), list(contents.values()), config, config),
    )


def cpu(pid: int) -> float:
    """Return the seconds of CPU that a server process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def recall(connection: psycopg.Connection[Any], engine: sa.Engine) -> None:
    print("| recall@10 by words alone | before | now |\n|---|---|---|")
    found: dict[str, list[tuple[bool, bool]]] = {}
    with engine.connect() as now:
        for question in questions():
            before = [row[0] for row in connection.execute(_BEFORE, {"text": question.text})]
            after = [row.article_id for row in now.execute(hybrid_search(None, question.text))]
            found.setdefault(question.language, []).append(
                (question.article_id in before, question.article_id in after)
            )
    found["all"] = [pair for each in found.values() for pair in each]
    for language, pairs in found.items():
        before, after = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
        print(f"| {language}, {len(pairs)} questions | {before:.2f} | {after:.2f} |")


def builds(connection: psycopg.Connection[Any]) -> None:
    [(pid,)] = connection.execute("SELECT pg_backend_pid()").fetchall()
    connection.execute("SET max_parallel_maintenance_workers = 0")
    connection.execute("SET maintenance_work_mem = '512MB'")
    print("\n| English text, index | before | now | now / before |\n|---|---|---|---|")
    for config in ("english", "simple"):
        connection.execute("UPDATE rag_chunks SET text_config = %s", (config,))
        connection.execute("VACUUM FULL rag_chunks")
        times: dict[str, list[float]] = {"before": [], "now": []}
        sizes = {}
        for _ in range(3):
            for name, statement in _INDEXES.items():
                start = cpu(pid)
                connection.execute(statement.encode())
                times[name].append(cpu(pid) - start)
                [(sizes[name],)] = connection.execute(f"SELECT pg_relation_size('{name}_idx')").fetchall()
                connection.execute(f"DROP INDEX {name}_idx")
        one, other = (statistics.median(times[name]) for name in _INDEXES)
        print(f"| {config}: build, server CPU s | {one:.2f} | {other:.2f} | {other / one:.2f} |")
        one, other = sizes["before"] / 1e6, sizes["now"] / 1e6
        print(f"| {config}: size, MB | {one:.2f} | {other:.2f} | {other / one:.2f} |")


def searches(connection: psycopg.Connection[Any], engine: sa.Engine, contents: list[str]) -> None:
    times: dict[str, list[float]] = {"before": [], "now": []}
    connection.execute(_INDEXES["before"].encode())
    connection.execute("ANALYZE rag_chunks")
    with engine.connect() as now:
        driver: psycopg.Connection[Any] = now.connection.driver_connection  # type: ignore[assignment]
        texts = [" ".join(content.split()[20:26]) for content in contents]
        for text in texts:
            state = hybrid_search(None, text).compile(engine).construct_expanded_state()
            for name, statement, values in (
                ("before", _BEFORE, {"text": text}),
                ("now", state.statement, state.parameters),
            ):
                start = time.perf_counter()
                driver.execute(statement.encode(), values).fetchall()
                times[name].append(time.perf_counter() - start)
    one, other = (statistics.median(times[name]) * 1000 for name in _INDEXES)
    print(f"| simple: search by six words, p50 ms | {one:.2f} | {other:.2f} | {other / one:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--text", default="/usr/share/vim/vim90/doc/*.txt", help="a pattern of files")
    parser.add_argument("--search-only", action="store_true", help="build nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rag-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        with embedded.running(Path(name) / "postgres") as parameters:
            database = Database(parameters, "the benchmark")
            migrations.upgrade(database)
            engine = sa.create_engine(database.url())
            with psycopg.connect(database.libpq_url(), autocommit=True) as connection:
                connection.execute("SET session_replication_role = replica")
                fill(connection, documents())
                recall(connection, engine)
                contents = english(options.text, options.chunks)
                connection.execute("TRUNCATE rag_documents CASCADE")
                fill(connection, contents)
                print(f"\n{len(contents):,} chunks.")
                if not options.search_only:
                    builds(connection)
                searches(connection, engine, list(contents.values())[:: max(1, len(contents) // 200)])
            engine.dispose()


if __name__ == "__main__":
    main()
