"""Choose how rag_chunks is stored: the vector column, the HNSW index, the autovacuum settings.

    uv run python benchmarks/chunk_storage.py [--parts storage hot hnsw vacuum] [--rows 2000 20000]

Starts an embedded server of its own in a temporary directory, with PostgreSQL's default settings but
autovacuum and full-page writes, which would strike one variant and spare another. Prints the Markdown of its
section of RESULTS.md. The tables are like rag_chunks with `is_current` and the partial HNSW index, without the
text index, whose cost is the same for all; `tag` stands for a column that no index reads. The data is made on
the server: topics, documents near a topic, chunks near their document, and as many old chunks as current ones.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from ragschema import embedded
from ragschema.database.settings import Database

QUERIES = 50
CHUNKS_OF_A_DOCUMENT = 10
PARTS = ("storage", "planner", "hot", "hnsw", "vacuum", "throttle", "document")
INLINE = 4080  # bytes: two rows to a page

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Storage:
    """One way to store the vector column."""

    name: str
    column: LiteralString
    toast_tuple_target: int | None = None

    @property
    def table(self) -> str:
        return f"chunks_{self.column}_{self.toast_tuple_target or 'default'}".lower()

    @property
    def options(self) -> str:
        return f", toast_tuple_target={self.toast_tuple_target}" if self.toast_tuple_target else ""


EXTERNAL = Storage("EXTERNAL (default)", "EXTERNAL")
MAIN_INLINE = Storage(f"MAIN, target {INLINE}", "MAIN", INLINE)
STORAGES = (
    EXTERNAL,
    Storage(f"EXTERNAL, target {INLINE}", "EXTERNAL", INLINE),
    Storage("PLAIN", "PLAIN"),
    Storage(f"PLAIN, target {INLINE}", "PLAIN", INLINE),
    Storage("MAIN", "MAIN"),
    MAIN_INLINE,
)


def run(connection: Connection, sql: str, parameters: dict[str, Any] | None = None) -> list[Any]:
    """Execute a statement; return its rows, if it has any."""
    cursor = connection.execute(sql.encode(), parameters or {})
    return cursor.fetchall() if cursor.description else []


def progress(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def make_source(connection: Connection, rows: int) -> None:
    """Make `source`: `rows` current chunks and as many old ones; and `queries`, each near a current chunk."""
    run(connection, "DROP TABLE IF EXISTS pool, sentences, source, queries")
    run(connection, "SELECT setseed(0.5)")
    run(
        connection,
        "CREATE TABLE pool AS SELECT n, v, v * array_fill(0.8::real, ARRAY[768])::vector d,"
        " v * array_fill(0.4::real, ARRAY[768])::vector c FROM (SELECT n, l2_normalize("
        "(SELECT array_agg(random_normal()) FROM generate_series(1, 768 + 0 * n))::vector) v"
        " FROM generate_series(0, 4095) n)",
    )
    run(
        connection,
        "CREATE TABLE sentences AS SELECT n, (SELECT string_agg(substr(md5(floor(900 * random() ^ 2)::text), 1,"
        " 2 + (7 * random())::integer), ' ') FROM generate_series(1, 14 + 0 * n)) || '. ' AS s"
        " FROM generate_series(0, 2047) n",
    )
    run(
        connection,
        "CREATE UNLOGGED TABLE source (n integer, document integer, id uuid, version_id uuid, ordinal integer,"
        " content text STORAGE EXTERNAL, embedding vector(768) STORAGE PLAIN, is_current boolean)"
        " WITH (toast_tuple_target=8160)",
    )
    hashed = "(abs(hashint4(n * 8 + {})::bigint) %% 4096)"
    run(
        connection,
        "INSERT INTO source SELECT x.n, document, gen_random_uuid(), md5(document || '/' || is_current)::uuid,"
        " x.n %% 10, (SELECT string_agg(s, '') FROM sentences"
        " WHERE sentences.n IN (SELECT abs(hashint4(x.n * 20 + i)::bigint) %% 2048"
        " FROM generate_series(1, 7 + x.n %% 7) i)),"
        " l2_normalize(t.v + d.d + c.c + b.c), is_current"
        f" FROM (SELECT n, n / 20 AS document, n %% 20 >= 10 AS is_current, {hashed.format(1)} AS a,"
        f" {hashed.format(2)} AS b FROM generate_series(0, %(rows)s * 2 - 1) n) x"
        " JOIN pool t ON t.n = document %% 100 JOIN pool d ON d.n = abs(hashint4(document)::bigint) %% 4096"
        " JOIN pool c ON c.n = a JOIN pool b ON b.n = x.b ORDER BY x.n",
        {"rows": rows},
    )
    run(
        connection,
        "CREATE TABLE queries AS SELECT (row_number() OVER ())::integer AS q, l2_normalize(embedding + c) AS v"
        " FROM (SELECT * FROM source WHERE is_current ORDER BY hashint4(n) LIMIT %(queries)s) s"
        " JOIN pool ON pool.n = s.n * 7 %% 4096",
        {"queries": QUERIES},
    )
    run(connection, "ANALYZE")


def make_table(connection: Connection, storage: Storage, fillfactor: int = 100, suffix: str = "") -> str:
    table = storage.table + suffix
    run(connection, f"DROP TABLE IF EXISTS {table}")
    run(
        connection,
        f"CREATE TABLE {table} (id uuid PRIMARY KEY, version_id uuid NOT NULL, ordinal integer NOT NULL,"
        f" content text NOT NULL, embedding vector(768) STORAGE {storage.column},"
        " created_at timestamptz NOT NULL DEFAULT now(), is_current boolean NOT NULL DEFAULT false,"
        " text_config text NOT NULL DEFAULT 'simple', tag integer, UNIQUE (version_id, ordinal))"
        f" WITH (fillfactor={fillfactor}{storage.options})",
    )
    return table


def insert(connection: Connection, table: str, rows: str = "true") -> None:
    run(
        connection,
        f"INSERT INTO {table} (id, version_id, ordinal, content, embedding, is_current, tag)"
        f" SELECT id, version_id, ordinal, content, embedding, is_current,"
        f" abs(hashint4(document)::bigint) %% 100 FROM source WHERE {rows}",
    )


def build_index(connection: Connection, table: str, options: str = "") -> float:
    """Build the partial HNSW index; return the seconds it took."""
    run(connection, f"DROP INDEX IF EXISTS {table}_hnsw")
    return seconds(
        connection,
        f"CREATE INDEX {table}_hnsw ON {table} USING hnsw (embedding vector_cosine_ops)"
        f" {options} WHERE is_current",
    )


def seconds(connection: Connection, sql: str, parameters: dict[str, Any] | None = None) -> float:
    start = time.perf_counter()
    run(connection, sql, parameters)
    return time.perf_counter() - start


SEARCH = (
    "SELECT id, embedding <=> (SELECT v FROM queries WHERE q = %(q)s) FROM {} WHERE is_current{}"
    " ORDER BY embedding <=> (SELECT v FROM queries WHERE q = %(q)s) LIMIT 10"
)


def search(connection: Connection, table: str, q: int, where: str = "") -> tuple[float, list[Any]]:
    """Search near query `q`; return milliseconds and the ids found."""
    start = time.perf_counter()
    found = run(connection, SEARCH.format(table, where), {"q": q})
    return (time.perf_counter() - start) * 1000, [row[0] for row in found]


def choice(connection: Connection, table: str, where: str = "") -> str:
    """Name the scan that the planner chooses with the settings in force."""
    plan = run(connection, "EXPLAIN (FORMAT JSON) " + SEARCH.format(table, where), {"q": 1})[0][0]
    text = json.dumps(plan)
    if f"{table}_hnsw" in text:
        return "HNSW"
    if "Bitmap" in text or "Index Scan" in text.replace('"Index Scan using queries', ""):
        return "B-tree"
    return "parallel seq" if "Gather" in text else "seq"


def explained(connection: Connection, sql: str, parameters: dict[str, Any]) -> tuple[float, int]:
    """Execute a statement; return its milliseconds on the server and the bytes of WAL it wrote."""
    plan = run(connection, f"EXPLAIN (ANALYZE, WAL, TIMING OFF, FORMAT JSON) {sql}", parameters)[0][0][0]
    return plan["Execution Time"], plan["Plan"].get("WAL Bytes", 0)


def sizes(connection: Connection, table: str) -> tuple[float, float]:
    """Return the megabytes of the heap and of its TOAST table with index."""
    row = run(
        connection,
        "SELECT pg_relation_size(oid) / 1e6, pg_total_relation_size(reltoastrelid) / 1e6"
        " FROM pg_class WHERE oid = %(t)s::regclass",
        {"t": table},
    )[0]
    return float(row[0]), float(row[1])


def median(values: list[float]) -> float:
    return statistics.median(values)


def shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
    return str(value)


def print_table(title: str, header: list[str], rows: list[list[Any]]) -> None:
    print(f"\n### {title}\n")
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(shown(value) for value in row) + " |")
    sys.stdout.flush()


def measure_storage(connection: Connection, rows: int, rounds: int, storages: tuple[Storage, ...]) -> None:
    make_source(connection, rows)
    inserts: dict[str, list[float]] = defaultdict(list)
    wal: dict[str, float] = {}
    for _ in range(rounds if rows <= 20_000 else 1):
        for storage in storages:
            table = make_table(connection, storage)
            before = run(connection, "SELECT pg_current_wal_insert_lsn()")[0][0]
            start = time.perf_counter()
            insert(connection, table)
            inserts[table].append(2 * rows / (time.perf_counter() - start))
            wal[table] = run(
                connection,
                "SELECT (pg_current_wal_insert_lsn() - %(l)s::pg_lsn)::float8 / %(n)s",
                {"l": before, "n": 2 * rows},
            )[0][0]
    for storage in storages:
        run(connection, "SET maintenance_work_mem = '1GB'")
        built = build_index(connection, storage.table)
        progress(f"{rows} rows: index of {storage.name} in {built:.1f} s")
        run(connection, "RESET ALL")
        run(connection, f"VACUUM ANALYZE {storage.table}")
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    settings = {
        "chosen": (),
        "index": ("SET enable_seqscan = off",),
        "exact": ("SET enable_indexscan = off",),
    }
    filtered = " AND tag = 7"
    counts: dict[str, list[int]] = defaultdict(list)
    chosen: dict[str, str] = {}
    for number in range(rounds + 1):  # the first warms up
        for way, commands in settings.items():
            for command in commands:
                run(connection, command)
            for q in range(1, (QUERIES if way != "exact" or rows < 20_000 else 10) + 1):
                for storage in storages:
                    spent, _ = search(connection, storage.table, q)
                    if number:
                        times[storage.table, way].append(spent)
            run(connection, "RESET ALL")
        run(connection, "SET hnsw.iterative_scan = strict_order")
        run(connection, "SET enable_seqscan = off")
        for storage in storages:
            chosen[storage.table] = choice(connection, storage.table, filtered)
        for q in range(1, 21):
            for storage in storages:
                spent, found = search(connection, storage.table, q, filtered)
                if number:
                    times[storage.table, "filtered"].append(spent)
                    counts[storage.table].append(len(found))
        run(connection, "RESET ALL")
        progress(f"{rows} rows: round {number}")
    flips: dict[tuple[str, bool], list[tuple[float, int]]] = defaultdict(list)
    picked = random.Random(0)
    documents = picked.sample(range(rows // CHUNKS_OF_A_DOCUMENT), 100)
    for document in documents:
        for value in (True, False):
            for storage in storages:
                flips[storage.table, value].append(
                    explained(
                        connection,
                        f"UPDATE {storage.table} SET is_current = %(v)s"
                        " WHERE version_id = md5(%(d)s)::uuid AND ordinal = 5",
                        {"v": value, "d": f"{document}/{'false' if value else 'true'}"},
                    )
                )
    lines: list[list[Any]] = []
    for storage in storages:
        table = storage.table
        off, on = flips[table, False], flips[table, True]
        lines.append(
            [
                storage.name,
                *sizes(connection, table),
                choice(connection, table),
                *(median(times[table, way]) for way in ("chosen", "index", "exact")),
                f"{chosen[table]} {median(times[table, 'filtered']):.3g}"
                f" ({statistics.mean(counts[table]):.1f} rows)",
                f"{median([ms for ms, _ in off]):.2g} / {median([ms for ms, _ in on]):.2g}",
                f"{median([b for _, b in off]) / 1000:.1f} / {median([b for _, b in on]) / 1000:.1f}",
                round(median(inserts[table])),
                wal[table] / 1000,
            ]
        )
    print_table(
        f"{rows:,} current rows and as many old ones",
        [
            "storage", "heap MB", "TOAST MB", "planner chooses", "its p50 ms", "HNSW p50 ms", "exact p50 ms",
            "filter 1 %, HNSW strict p50 ms", "is_current off / on ms", "off / on WAL kB",
            "INSERT rows/s", "WAL kB/row",
        ],
        lines,
    )  # fmt: skip
    for storage in storages:
        run(connection, f"DROP TABLE {storage.table}")


def measure_hot(connection: Connection, rows: int) -> None:
    """Update an unindexed column of 30 % of the rows, 1 % in each transaction."""
    make_source(connection, rows)
    lines = []
    for storage in (EXTERNAL, MAIN_INLINE):
        for fillfactor in (100, 90, 80, 50):
            table = make_table(connection, storage, fillfactor, f"_{fillfactor}")
            insert(connection, table)
            run(connection, f"VACUUM ANALYZE {table}")
            heap, toast = sizes(connection, table)
            spent, wal = [], 0
            for number in range(30):
                ms, written = explained(
                    connection,
                    f"UPDATE {table} SET tag = %(n)s WHERE hashtext(id::text || %(n)s) %% 100 = 0",
                    {"n": number},
                )
                spent.append(ms)
                wal += written
            run(connection, "SELECT pg_stat_force_next_flush()")
            updates, hot = run(
                connection,
                "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = %(t)s",
                {"t": table},
            )[0]
            after = sum(sizes(connection, table))
            lines.append([storage.name, fillfactor, f"{100 * hot / updates:.0f} %", heap + toast, after,
                          wal / updates / 1000])  # fmt: skip
            run(connection, f"DROP TABLE {table}")
    print_table(
        f"HOT updates of a column without an index, {2 * rows:,} rows",
        ["storage", "fillfactor", "HOT", "MB before", "MB after", "WAL kB an update"],
        lines,
    )


def measure_planner(connection: Connection, sizes: tuple[int, ...]) -> None:
    """Ask the planner for its choice at several sizes, and time it."""
    lines = []
    for rows in sizes:
        make_source(connection, rows)
        for storage, fillfactor in ((EXTERNAL, 100), (EXTERNAL, 80), (EXTERNAL, 50), (MAIN_INLINE, 100)):
            table = make_table(connection, storage, fillfactor, f"_{fillfactor}")
            insert(connection, table)
            build_index(connection, table)
            run(connection, f"VACUUM ANALYZE {table}")
            line: list[Any] = [f"{rows:,}", storage.name, fillfactor]
            for cost in ("4", "1.1"):
                run(connection, f"SET random_page_cost = {cost}")
                times = [search(connection, table, q)[0] for _ in range(3) for q in range(1, QUERIES + 1)]
                line.append(f"{choice(connection, table)} {median(times):.2g}")
            run(connection, "RESET ALL")
            lines.append(line)
            run(connection, f"DROP TABLE {table}")
    print_table(
        "The planner's choice, p50 ms",
        ["current rows", "storage", "fillfactor", "random_page_cost 4 (default)", "1.1"],
        lines,
    )


def exact_answers(connection: Connection, table: str) -> dict[int, set[Any]]:
    run(connection, "SET enable_indexscan = off")
    answers = {q: set(search(connection, table, q)[1]) for q in range(1, QUERIES + 1)}
    run(connection, "RESET ALL")
    return answers


def quality(connection: Connection, table: str, truth: dict[int, set[Any]]) -> tuple[float, float, float]:
    """Search through the index; return recall, rows and the median of the milliseconds."""
    run(connection, "SET enable_seqscan = off")
    results = [(q, *search(connection, table, q)) for _ in range(3) for q in truth]
    run(connection, "RESET enable_seqscan")
    recall = statistics.mean(len(truth[q] & set(found)) / 10 for q, _, found in results)
    return recall, statistics.mean(len(f) for _, _, f in results), median([ms for _, ms, _ in results])


def measure_hnsw(connection: Connection, rows: int, rounds: int) -> None:
    make_source(connection, rows)
    table = make_table(connection, MAIN_INLINE)
    insert(connection, table)
    run(connection, f"VACUUM ANALYZE {table}")
    truth = exact_answers(connection, table)
    kinds = ["", "WITH (ef_construction=128)", "WITH (m=24)", "WITH (m=24, ef_construction=128)"]
    results: dict[str, list[Any]] = defaultdict(list)
    for _ in range(rounds):
        for kind in kinds:
            run(connection, "SET maintenance_work_mem = '512MB'")
            built = build_index(connection, table, kind)
            run(connection, "RESET ALL")
            results[kind].append((built, *quality(connection, table, truth)))
            progress(f"HNSW {kind}: {results[kind][-1]}")
            size = run(connection, "SELECT pg_relation_size(%(t)s::regclass) / 1e6", {"t": f"{table}_hnsw"})
            results[kind + " size"] = [float(size[0][0])]
    lines = []
    for kind in kinds:
        builds, recalls, _, times = zip(*results[kind], strict=True)
        lines.append(
            [kind or "m=16, ef_construction=64 (default)", median(list(builds)), results[kind + " size"][0],
             f"{statistics.mean(recalls):.3f}", median(list(times))]
        )  # fmt: skip
    print_table(
        f"HNSW parameters, {rows:,} current rows, ef_search 40",
        ["index", "build s", "MB", "recall@10", "p50 ms"],
        lines,
    )
    run(connection, f"DROP TABLE {table}")


def republish(connection: Connection, table: str, share: float, number: int) -> None:
    """Replace a share of the current chunks: the old row is current no more, a changed one takes its place."""
    run(
        connection,
        f"WITH gone AS (UPDATE {table} SET is_current = false WHERE is_current"
        f" AND abs(hashtext(id::text || %(n)s)::bigint) %% 10000 < %(s)s RETURNING *)"
        f" INSERT INTO {table} (id, version_id, ordinal, content, embedding, is_current, tag)"
        " SELECT gen_random_uuid(), gen_random_uuid(), ordinal, content, l2_normalize(embedding + c), true, tag"
        " FROM gone JOIN pool ON pool.n = abs(hashtext(id::text)::bigint) %% 4096",
        {"n": number, "s": share * 10_000},
    )


def measure_vacuum(
    connection: Connection,
    rows: int,
    storages: tuple[Storage, ...],
    steps: list[tuple[float, int, int]],
) -> None:
    """Republish a share of the rows, then VACUUM with a cost delay in ms and a cost limit; step after step."""
    make_source(connection, rows)
    lines = []
    for storage in storages:
        table = make_table(connection, storage)
        insert(connection, table)
        run(connection, f"VACUUM ANALYZE {table}")
        run(connection, "SET maintenance_work_mem = '512MB'")
        build_index(connection, table)
        run(connection, "RESET ALL")
        for number, (share, delay, limit) in enumerate(steps):
            republish(connection, table, share, number)
            truth = exact_answers(connection, table)
            recall, found, ms = quality(connection, table, truth)
            run(connection, f"SET vacuum_cost_delay = {delay}")
            run(connection, f"SET vacuum_cost_limit = {limit}")
            spent = seconds(connection, f"VACUUM (INDEX_CLEANUP ON, TRUNCATE OFF) {table}")
            run(connection, "RESET ALL")
            after = quality(connection, table, truth)
            throttle = f"{delay} ms, {limit}" if delay else "none"
            lines.append(
                [storage.name, f"{share:.0%}", throttle, spent, 1000 * spent / (share * rows),
                 f"{found:.1f} -> {after[1]:.1f}", f"{recall:.3f} -> {after[0]:.3f}", f"{ms:.2g} -> {after[2]:.2g}"]
            )  # fmt: skip
            progress(f"vacuum {lines[-1]}")
        spent = seconds(connection, f"REINDEX INDEX CONCURRENTLY {table}_hnsw")
        lines.append([storage.name, "REINDEX CONCURRENTLY", "", spent, "", "", "", ""])
        run(connection, f"DROP TABLE {table}")
    print_table(
        f"VACUUM after republishing, {rows:,} current rows, no iterative scan",
        ["storage", "replaced", "cost delay, limit", "VACUUM s", "ms a dead row", "rows of 10: before -> after",
         "recall@10", "p50 ms"],
        lines,
    )  # fmt: skip


def measure_hot_document(connection: Connection, rows: int) -> None:
    """Republish one document 50 times, each time with slightly changed vectors; search near it."""
    make_source(connection, rows)
    table = make_table(connection, MAIN_INLINE)
    insert(connection, table)
    run(connection, f"VACUUM ANALYZE {table}")
    build_index(connection, table)
    version = "md5('0/true')::uuid"
    run(
        connection,
        f"UPDATE queries SET v = l2_normalize(embedding + c) FROM {table}, pool"
        f" WHERE version_id = {version} AND ordinal = q %% 10 AND n = q",
        {},
    )
    for number in range(50):
        new = f"md5('hot {number}')::uuid"
        run(
            connection,
            f"WITH gone AS (UPDATE {table} SET is_current = false WHERE version_id = {version} RETURNING *)"
            f" INSERT INTO {table} (id, version_id, ordinal, content, embedding, is_current) SELECT"
            f" gen_random_uuid(), {new}, ordinal, content, l2_normalize(embedding"
            " + c * array_fill(0.2::real, ARRAY[768])::vector), true"
            " FROM gone JOIN pool ON pool.n = (ordinal * 100 + %(n)s) %% 4096",
            {"n": number},
        )
        version = new
    truth = exact_answers(connection, table)
    lines = []
    states = {
        "500 dead entries": "",
        "after VACUUM": f"VACUUM (INDEX_CLEANUP ON) {table}",
        "after REINDEX": f"REINDEX INDEX CONCURRENTLY {table}_hnsw",
    }
    for state, command in states.items():
        if command:
            run(connection, command)
        for scan in ("off", "strict_order", "relaxed_order"):
            run(connection, f"SET hnsw.iterative_scan = {scan}")
            recall, found, ms = quality(connection, table, truth)
            run(connection, "SET enable_seqscan = off")
            misses = sum(not truth[q] & set(search(connection, table, q)[1]) for q in truth)
            run(connection, "RESET enable_seqscan")
            lines.append([state, scan, f"{found:.1f}", f"{recall:.3f}", misses, ms])
    run(connection, "RESET ALL")
    print_table(
        f"One document of 10 chunks republished 50 times among {rows:,} current rows: queries near it",
        [
            "",
            "hnsw.iterative_scan",
            "rows of 10",
            "recall@10",
            f"of {QUERIES} queries without a true one",
            "p50 ms",
        ],
        lines,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--rows", nargs="+", type=int, default=[2_000, 20_000], help="current rows (storage)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", nargs="+", choices=[each.table for each in STORAGES], help="tables (storage)"
    )
    arguments = parser.parse_args()
    storages = tuple(each for each in STORAGES if not arguments.only or each.table in arguments.only)
    with (
        tempfile.TemporaryDirectory(prefix="ragschema-") as directory,
        embedded.running(Path(directory) / "postgres") as parameters,
        psycopg.connect(
            Database(parameters, "this benchmark").libpq_url(),
            autocommit=True,
            cursor_factory=psycopg.ClientCursor,
        ) as connection,
    ):
        for setting in ("autovacuum = off", "full_page_writes = off", "max_wal_size = '4GB'"):
            run(connection, f"ALTER SYSTEM SET {setting}")
        run(connection, "SELECT pg_reload_conf()")
        run(connection, "CREATE EXTENSION vector")
        if "storage" in arguments.parts:
            for rows in arguments.rows:
                measure_storage(connection, rows, arguments.rounds, storages)
        if "hot" in arguments.parts:
            measure_hot(connection, 5_000)
        if "planner" in arguments.parts:
            measure_planner(connection, (1_000, 2_000, 5_000, 10_000))
        if "hnsw" in arguments.parts:
            measure_hnsw(connection, 20_000, 3)
        if "vacuum" in arguments.parts:
            shares = [(share, 0, 200) for share in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)]
            measure_vacuum(connection, 20_000, (EXTERNAL, MAIN_INLINE), shares)
        if "throttle" in arguments.parts:
            ways = [(0.05, 0, 200), (0.05, 2, 200), (0.05, 2, 2_000), (0.05, 2, 10_000)]
            measure_vacuum(connection, 10_000, (EXTERNAL,), ways * 2)
        if "document" in arguments.parts:
            measure_hot_document(connection, 5_000)


if __name__ == "__main__":
    main()
