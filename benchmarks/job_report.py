"""The Markdown of benchmarks/jobs.py: medians, and whether each target is met."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from job_results import Results
from job_ways import (
    ENQUEUE_WAYS,
    FINISHED_WAYS,
    LONG_WAYS,
    NAIVE_1,
    NAIVE_20,
    OURS_1,
    OURS_10,
    OURS_20,
    PGQUEUER_CALLS,
    PGQUEUER_WORKER,
    PROCRASTINATE_CALLS,
    PROCRASTINATE_WORKER,
    WAYS,
    Way,
    is_measured,
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(number: float) -> str:
    return "" if number != number else f"{number:,.0f}"


def report_claims(results: Results, workers: Sequence[int]) -> str:
    """Return jobs a second, and the CPU time for each job of server and workers."""
    rows = []
    for way in WAYS:
        row = [way.name, *(shown(results.median("empty", count, way.name)) for count in workers)]
        for count in workers:
            cpu = [shown(results.median("empty", count, way.name, of=of)) for of in ("server", "client")]
            row.append(" + ".join(cpu) if cpu[0] else "")
        rows.append(row)
    head = ["claim and complete, jobs/s", *(f"{count} w" for count in workers)]
    return table([*head, *(f"µs server + client, {count} w" for count in workers)], rows)


def report_state(results: Results, workers: Sequence[int], state: str, ways: Sequence[Way]) -> str:
    """Return how claims fare with finished jobs kept, or with jobs that run for long, against an empty table."""
    measured = [count for count in workers if count != 2]
    rows = []
    for way in ways:
        row = [way.name]
        for count in measured:
            if not is_measured(way, state, count):
                row += ["", "", ""]
                continue
            of = (state, count, way.name), ("empty", count, way.name)
            row.append(shown(results.median(*of[0])))
            row += [spread(results.ratios(*of)), f"{statistics.median(results.ratios(*of, of='server')):.2f}"]
        rows.append(row)
    head = [f"{state}, jobs/s"]
    for count in measured:
        head += [f"{count} w", "against empty", "server CPU against empty"]
    return table(head, rows)


def spread(ratios: Sequence[float]) -> str:
    return f"**{statistics.median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def report_enqueue(results: Results) -> str:
    rows = []
    for size in (1, 1_000):
        for name in dict.fromkeys(name for name, _, _ in ENQUEUE_WAYS):
            rates = (f"{results.median(f'enqueue {size}', count, name):,.0f}" for count in (1, 4))
            cpu = (f"{results.median(f'enqueue {size}', count, name, of='server'):,.0f}" for count in (1, 4))
            rows.append([f"{name}, {size:,} at a time", *rates, *cpu])
    return table(["enqueue, jobs/s", "1 process", "4 processes", "µs server, 1", "µs server, 4"], rows)


def report_waits(results: Results) -> str:
    rows = []
    for name, rounds in results.waits.items():
        waits = sorted(wait * 1000 for each in rounds for wait in each)
        p50, p95 = (waits[int(len(waits) * share)] for share in (0.5, 0.95))
        rows.append([name, f"{p50:.1f}", f"{p95:.1f}"])
    return table(["ms from enqueue to start, by NOTIFY", "p50", "p95"], rows)


def report_churn(results: Results) -> str:
    rows = [
        [
            name,
            f"{churn.jobs:,}",
            f"{churn.seconds:.0f}",
            f"{churn.wal:,.0f}",
            f"{churn.dead:,}",
            f"{churn.table:.0f}",
            f"{churn.table / churn.full_table:.2f}",
            f"{churn.indexes:.0f}",
            f"{churn.indexes / churn.full_indexes:.2f}",
        ]
        for name, churn in results.churns.items()
    ]
    return table(
        ["4 workers", "jobs", "s", "bytes of WAL a job", "dead tuples", "tables MB", "against VACUUM FULL",
         "indexes MB", "against VACUUM FULL"], rows,
    )  # fmt: skip


def target(results: Results, text: str, dividend: tuple[str, str], divisor: tuple[str, str], wanted: float,
           workers: Sequence[int]) -> Iterable[Sequence[str]]:  # fmt: skip
    """Judge the rate of one way against another's; each is a state and the name of a way."""
    for count in (count for count in workers if count != 2):
        of = (dividend[0], count, dividend[1]), (divisor[0], count, divisor[1])
        ratios, cpu = results.ratios(*of), results.ratios(*of[::-1], of="server")
        median = statistics.median(ratios)
        verdict = "met" if median >= wanted else f"missed by {1 - median / wanted:.0%}"
        yield [
            f"{text}, {count} w", f"{wanted:.1f}", spread(ratios),
            f"{statistics.median(cpu):.2f}", verdict,
        ]  # fmt: skip


def report_targets(results: Results, workers: Sequence[int]) -> str:
    """Return every target with the ratio that was measured."""
    one, ten, twenty = OURS_1.name, OURS_10.name, OURS_20.name
    rows: list[Sequence[str]] = []
    for text, dividend, divisor, wanted in (
        ("procrastinate's worker, 1 at a time", ("empty", one), ("empty", PROCRASTINATE_WORKER.name), 3),
        ("procrastinate's calls, 1 at a time", ("empty", one), ("empty", PROCRASTINATE_CALLS.name), 3),
        ("pgqueuer's worker, 10 at a time", ("empty", ten), ("empty", PGQUEUER_WORKER.name), 2),
        ("pgqueuer's calls, 10 at a time", ("empty", ten), ("empty", PGQUEUER_CALLS.name), 2),
        ("hand-written claim, 1 at a time", ("empty", one), ("empty", NAIVE_1.name), 0.9),
        ("hand-written claim, 20 at a time", ("empty", twenty), ("empty", NAIVE_20.name), 0.9),
        ("finished jobs kept, 1 at a time", ("finished", one), ("empty", one), 0.9),
        ("finished jobs kept, 20 at a time", ("finished", twenty), ("empty", twenty), 0.9),
        ("hand-written claim with finished jobs kept (control)", ("finished", NAIVE_1.name),
         ("empty", NAIVE_1.name), 0.9),
        ("200 long jobs, 1 at a time", ("long", one), ("empty", one), 0.9),
        ("200 long jobs, 20 at a time", ("long", twenty), ("empty", twenty), 0.9),
    ):  # fmt: skip
        rows += target(results, text, dividend, divisor, wanted, workers)
    beats, hot = results.heartbeats
    share = hot / beats if beats else 0
    rows.append(
        ["heartbeats that are HOT updates", "100 %", f"**{share:.2%}** of {beats:,}", "",
         "met" if beats and hot == beats else "missed"]
    )  # fmt: skip
    return table(["against", "target", "ratio of rates", "server CPU a job, theirs to ours", ""], rows)


def report(results: Results, workers: Sequence[int]) -> str:
    """Return everything."""
    return "\n\n".join(
        [
            report_targets(results, workers),
            report_claims(results, workers),
            report_state(results, workers, "finished", FINISHED_WAYS),
            report_state(results, workers, "long", LONG_WAYS),
            report_enqueue(results),
            report_waits(results),
            report_churn(results),
        ]
    )
