"""Conversations: what reads cost as messages grow in number, and what a counter on the session would cost its writers.

    uv run python benchmarks/chat.py [SIZE ...] [--rounds N] [--writers N]

Sizes are numbers of messages, 10,000 and 100,000 by default; 1000000 takes some minutes. Half of them are of one
session, which is the one that is read. Starts an embedded server of its own in a temporary directory and prints the
Markdown of its section of RESULTS.md. Costs are pages of the cache that the statement touched, by EXPLAIN, and the CPU
time of the server's process, whose median is taken; beside each the same rows read by their primary keys, as the least.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

from ragschema import chat, create_engine, embedded, migrations
from ragschema.chat import NewMessage
from ragschema.database.settings import Database

HEADING = "## Conversations: chat.py"
FILL = """
WITH sessions AS (
    INSERT INTO rag_chat_sessions (id, user_id, updated_at)
    SELECT CAST(lpad(to_hex(n), 32, '0') AS uuid), CASE WHEN n <= 100 THEN 'ann' ELSE 'user ' || n / 100 END,
        now() - make_interval(secs => n)
    FROM generate_series(1, :sessions) n
)
INSERT INTO rag_chat_messages (session_id, position, parent_position, role, content, model)
SELECT CAST(lpad(to_hex(CASE WHEN n <= :half THEN 1 ELSE 2 + (n - :half - 1) / 50 END), 32, '0') AS uuid), n,
    CASE WHEN n = 1 OR (n > :half AND (n - :half) % 50 = 1) THEN NULL ELSE n - 1 END,
    CASE n % 2 WHEN 0 THEN 'assistant' ELSE 'user' END, repeat('words of message ' || n || ' ', 12), 'm'
FROM generate_series(1, :messages) n
"""
BY_KEY = {
    table: sa.text(f"SELECT * FROM rag_chat_{table} WHERE id = ANY(:ids)")
    for table in ("messages", "sessions")
}


@dataclass(frozen=True)
class Cost:
    """Pages touched, and milliseconds of the server's CPU; of the same rows by their keys too."""

    pages: int | None
    milliseconds: float
    least: float


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", nargs="*", type=int, default=[10_000, 100_000], metavar="SIZE")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--writers", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        with embedded.running(directory / "postgres", makes=True) as parameters:
            found = {}
            for size in given.sizes:
                database = Database({**parameters, "dbname": "postgres"}, "the benchmark")
                with sa.create_engine(database.url(), isolation_level="AUTOCOMMIT").connect() as connection:
                    connection.execute(sa.text(f"CREATE DATABASE chat_{size}"))
                made = Database({**parameters, "dbname": f"chat_{size}"}, "the benchmark")
                migrations.upgrade(made)
                found[size] = measure(made, size, given.rounds)
            rates = measure_writers(made, given.writers)
    return report(found, rates, given.writers)


def measure(database: Database, size: int, rounds: int) -> dict[str, Cost]:
    """Fill a database with messages; return what each read of it costs."""
    engine = create_engine(database.libpq_url())
    half = size // 2
    with Session(engine) as session, session.begin():
        filler = (size - half + 49) // 50
        session.execute(sa.text(FILL), {"sessions": filler + 1, "half": half, "messages": size})
        session.execute(sa.text(f"SELECT setval('rag_chat_messages_position_seq', {size})"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM (ANALYZE)"))
    large, small = UUID(int=1), UUID(int=2)
    with Session(engine) as session:
        leaf = chat.messages(session, large, limit=1)[0]
        in_the_middle = half // 2
        works: dict[str, tuple[str, Callable[[], Sequence[Any]]]] = {
            "last 50 of the large session": ("messages", lambda: chat.messages(session, large)),
            "50 in its middle": ("messages", lambda: chat.messages(session, large, before=in_the_middle)),
            "path of 50 in it": ("messages", lambda: chat.message_path(session, leaf.id)),
            "last 50 of a session of 50": ("messages", lambda: chat.messages(session, small)),
            "a user's 30 latest of 100 sessions": ("sessions", lambda: chat.sessions(session, "ann")),
        }
        pid = int(session.execute(sa.text("SELECT pg_backend_pid()")).scalar_one())
        found = {}
        for name, (table, work) in works.items():
            ids = {"ids": [each.id for each in work()]}
            by_key = BY_KEY[table]
            taken: list[tuple[float, float]] = []
            for _ in range(rounds):
                taken.append((cpu(pid, work), cpu(pid, lambda: session.execute(by_key, ids).all())))  # noqa: B023
            own, least = (statistics.median(each) for each in zip(*taken, strict=True))
            found[name] = Cost(pages_of(session, work), own, least)
        destroyed = []
        for number in range(10, 10 + min(rounds, filler - 10)):
            destroyed.append(
                cpu(pid, lambda: chat.delete_session(session, UUID(int=number), for_good=True))  # noqa: B023
            )
        found["destroy a session of 50"] = Cost(
            None, statistics.median(destroyed), found["last 50 of a session of 50"].least
        )
        session.rollback()
    engine.dispose()
    return found


def cpu(pid: int, work: Callable[[], object]) -> float:
    """Return the milliseconds of CPU that the server's process takes for some work, from Linux's count."""
    before = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    work()
    return (int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) - before) / 1e6


def pages_of(session: Session, work: Callable[[], object]) -> int:
    """Return how many pages of the cache the statement of some work touches."""
    plans: list[Any] = []

    def explain(*arguments: Any) -> tuple[str, Any]:
        cursor = arguments[1]
        cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + arguments[2], arguments[3])
        plans.append(cursor.fetchone()[0][0]["Plan"])
        return arguments[2], arguments[3]

    connection = session.connection()
    event.listen(connection, "before_cursor_execute", explain, retval=True)
    work()
    event.remove(connection, "before_cursor_execute", explain)
    return sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in plans)


COUNTER = sa.text("UPDATE rag_chat_sessions SET updated_at = clock_timestamp() WHERE id = :id")


def measure_writers(database: Database, writers: int) -> dict[str, float]:
    """Return the messages a second of several writers of one session, without and with a write of its row by each."""
    engine = create_engine(database.libpq_url(), pool_size=writers)
    rates: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(3):
        for name, sums in rates.items():
            with Session(engine) as session, session.begin():
                begun = chat.create_session(session).id

            def write(_: int, begun: UUID = begun, name: str = name) -> None:
                for _ in range(40):
                    with Session(engine) as session, session.begin():
                        chat.add_message(session, begun, NewMessage("user", "x"), parent_id=None)
                        if name == "with":
                            session.execute(COUNTER, {"id": begun})

            with ThreadPoolExecutor(writers) as pool:
                started = time.perf_counter()
                list(pool.map(write, range(writers)))
                sums.append(writers * 40 / (time.perf_counter() - started))
    engine.dispose()
    return {name: statistics.median(sums) for name, sums in rates.items()}


def report(found: dict[int, dict[str, Cost]], rates: dict[str, float], writers: int) -> int:
    """Print the section; return how many targets are missed."""
    sizes = list(found)
    command = " ".join(["uv run python benchmarks/chat.py", *sys.argv[1:]])
    print(f"{HEADING}\n\n`{command}`, {date.today()}")
    titles = [f"{size:,} messages: pages, ms, least ms" for size in sizes]
    print(f"\n| read | {' | '.join(titles)} | largest / least |")
    print("|---|" + "---|" * (len(sizes) + 1))
    missed = 0
    for name in found[sizes[0]]:
        costs = [found[size][name] for size in sizes]
        shown = [f"{each.pages or '-'}, {each.milliseconds:.2f}, {each.least:.2f}" for each in costs]
        ratio = costs[-1].milliseconds / costs[-1].least
        is_flat = all((each.pages or 1) <= 1.5 * (costs[0].pages or 1) for each in costs)
        is_flat = is_flat and ratio <= 2 * costs[0].milliseconds / costs[0].least
        missed += ratio > 10 or not is_flat
        print(f"| {name} | {' | '.join(shown)} | {ratio:.1f}{'' if is_flat else ', **not flat**'} |")
    print(
        f"\n{writers} writers of one session: {rates['without']:.0f} messages/s, and {rates['with']:.0f} where each"
        f" writes the session's row too, {rates['without'] / rates['with']:.1f} times fewer."
    )
    print(
        "\nTargets: at most 10 times the least, at most 1.5 times the pages of the first size, and twice its ratio:"
        f" {missed} missed."
    )
    return missed


if __name__ == "__main__":
    sys.exit(main())
