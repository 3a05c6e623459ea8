"""Search among current text: rows, recall against exact, p50 and p95."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from compare.measuring import Meter
from compare.report import BASE, OURS, PSYCOPG, Report
from compare.systems import Answer, System
from compare.workload import Query, Text, Workload

ROWS = 10
BLOCK = 20  # queries that one system runs before the next takes its turn

States = Mapping[int, Sequence[int]]


class Exact:
    """Finds the nearest chunks among the current ones by comparing with all of them."""

    def __init__(self, workload: Workload, states: States) -> None:
        self.workload = workload
        self.texts = [Text(d, place, state) for d, each in states.items() for place, state in enumerate(each)]
        self.vectors: NDArray[np.float32] = np.stack([workload.vector(text) for text in self.texts])

    def nearest(self, query: Query) -> set[Text]:
        """Return the ten nearest that the query allows."""
        similarities = self.vectors @ query.embedding
        found: set[Text] = set()
        for index in np.argsort(-similarities):
            if self.workload.allows(query, self.texts[index].document):
                found.add(self.texts[index])
                if len(found) == ROWS:
                    break
        return found


def measure(
    report: Report,
    systems: Sequence[System],
    exact: Exact,
    kind: str,
    title: str,
    count: int,
    rounds: int,
    meters: Mapping[str, Meter] | None = None,
) -> None:
    """Put rows, recall and times of one kind of query into the report; where there are meters, CPU times too.

    Systems take turns every few queries. The first round warms up: its answers count, its times do not.
    """
    queries = exact.workload.query_set(kind, count)
    nearest = [exact.nearest(query) for query in queries]
    times: dict[str, list[float]] = defaultdict(list)
    clients: dict[str, list[float]] = defaultdict(list)
    answers: dict[str, list[Answer]] = defaultdict(list)
    server: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for start in range(0, count, BLOCK):
            turn = (number + start // BLOCK) % len(systems)
            for system in [*systems[turn:], *systems[:turn]]:
                before = meters[system.name].cpu() if meters else 0.0
                found = system.search(kind, count, start, min(start + BLOCK, count))
                if number:
                    times[system.name] += [answer.seconds for answer in found]
                    clients[system.name] += [answer.cpu for answer in found]
                    if meters:
                        server[system.name].append((meters[system.name].cpu() - before) / len(found))
                else:
                    answers[system.name] += found
    for system in systems:
        name = system.name
        rows = [len(answer.texts) for answer in answers[name]]
        recalls = [
            len(near & set(answer.texts)) / len(near)
            for near, answer in zip(nearest, answers[name], strict=True)
        ]
        report.put(f"{title}: rows of 10", name, float(np.mean(rows)))
        report.put(f"{title}: queries of {count} with fewer than 10", name, sum(row < ROWS for row in rows))
        report.put(f"{title}: recall@10", name, float(np.mean(recalls)))
        report.put(f"{title}: p50 ms", name, 1e3 * float(np.percentile(times[name], 50)))
        report.put(f"{title}: p95 ms", name, 1e3 * float(np.percentile(times[name], 95)))
        if meters:
            report.put(f"{title}: CPU ms of the server", name, 1e3 * float(np.median(server[name])))
            report.put(f"{title}: CPU ms of the client", name, 1e3 * float(np.median(clients[name])))
    print(f"searched: {title}", file=sys.stderr)


def set_targets(report: Report, title: str, recall: float, *, timed: bool) -> None:
    """Judge one kind of query: ten rows always, the recall, and the times against the best peer's."""
    rows = report.rows[f"{title}: rows of 10"]
    report.at_least(f"{title}: rows of 10", rows[OURS], ROWS)
    report.at_least(f"{title}: recall@10", report.rows[f"{title}: recall@10"][OURS], recall)
    if timed:
        p50 = f"{title}: p50 ms"
        best = report.best_peer(p50, low=True)
        report.at_most(f"{title}: p50 through SQLAlchemy / best peer's", report.rows[p50][OURS] / best, 0.75)
        report.at_most(f"{title}: p50 through psycopg / best peer's", report.rows[p50][PSYCOPG] / best, 0.5)
        if BASE in report.rows[p50]:
            report.notes.append(
                f"{title}: the base schema's p50 through psycopg is"
                f" {report.rows[p50][BASE] / report.rows[p50][PSYCOPG]:.2f} times ours."
            )
