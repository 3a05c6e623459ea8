"""The results: one table, the targets and whether they are met."""

from __future__ import annotations

from dataclasses import dataclass, field

BASE = "base schema"
LANGCHAIN = "langchain-postgres"
LLAMA_INDEX = "llama-index"
OURS = "ours"
PSYCOPG = "ours, psycopg"
PEERS = (LANGCHAIN, LLAMA_INDEX)
COLUMNS = (BASE, LANGCHAIN, LLAMA_INDEX, OURS, PSYCOPG)


@dataclass(frozen=True)
class Target:
    """A promise about a number: at most, or at least, its bound."""

    claim: str
    value: float
    bound: float
    at_most: bool

    @property
    def is_met(self) -> bool:
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def markdown(self) -> str:
        wanted = f"{'at most' if self.at_most else 'at least'} {number(self.bound)}"
        if self.is_met:
            verdict = "met"
        else:
            factor = self.value / self.bound if self.at_most else self.bound / max(self.value, 1e-9)
            verdict = f"**missed** by a factor of {number(factor)}"
        return f"| {self.claim} | {wanted} | {number(self.value)} | {verdict} |"


@dataclass
class Report:
    """Collects numbers by measure and column, and targets."""

    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def put(self, measure: str, column: str, value: float) -> None:
        self.rows.setdefault(measure, {})[column] = value

    def best_peer(self, measure: str, *, low: bool) -> float:
        """Return the best of the peers' values: the lowest, or the highest."""
        values = [self.rows[measure][peer] for peer in PEERS if peer in self.rows[measure]]
        return min(values) if low else max(values)

    def at_most(self, claim: str, value: float, bound: float) -> None:
        self.targets.append(Target(claim, value, bound, at_most=True))

    def at_least(self, claim: str, value: float, bound: float) -> None:
        self.targets.append(Target(claim, value, bound, at_most=False))

    def markdown(self) -> str:
        lines = [f"| | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
        for measure, values in self.rows.items():
            cells = (number(values[column]) if column in values else "" for column in COLUMNS)
            lines.append(f"| {measure} | {' | '.join(cells)} |")
        lines += ["", "| target | wanted | measured | |", "|---|---|---|---|"]
        lines += [target.markdown() for target in self.targets]
        return "\n".join(lines + [""] * bool(self.notes) + [f"- {note}" for note in self.notes])


def number(value: float) -> str:
    """Write a number with three figures: ``12,300``, ``4.56``, ``0.078``."""
    if value == 0 or abs(value) >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"
