"""Programs of random steps, run on a database and on a model in memory, which are compared after each step.

A step is plain data that names nothing of the database: which of so many versions it means is a number, taken modulo
how many there are. So any list of steps is a program, hypothesis can shorten it, and what it prints can be run again
with `run_program`. A family of operations is a module ``steps_of_...`` with a class for each, and a tuple ``STEPS`` of
them; to add one, name it in tests/test_steps.py, in the tuple of steps and in `families`.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from model_of_steps import TEXTS, Model, SeenDocument, State, differences, read_state
from ragschema.schema.row_rules import broken_documents

ARTICLES = ("a", "b")  # few, so that steps meet
_NEEDS = 3


class Action(ABC):
    """What a program does in a transaction of its own, or in several: a step, or steps together."""

    commits: ClassVar[bool] = False
    """Whether it wants an engine in no transaction, so that it cannot be one of several of a transaction."""

    @abstractmethod
    def run(self, world: World) -> None:
        """Do it to the database and to the model; say by `World.did` whether it changed anything."""

    def needs(self, world: World) -> Step | None:
        """Return a step to do before, where there is nothing yet that this one could be done to."""
        return None


@dataclass(frozen=True)
class Step(Action):
    """An operation. A class of it says how often it is drawn."""

    weight: ClassVar[int] = 4
    is_around: ClassVar[bool] = False
    """Whether another step happens in the middle of it."""

    @classmethod
    @abstractmethod
    def drawn(cls) -> st.SearchStrategy[Any]:
        """Return the strategy that draws it."""

    @classmethod
    def drawn_around(cls, inner: st.SearchStrategy[Step]) -> st.SearchStrategy[Any]:
        """Return the strategy that draws it, given one of what may happen in the middle."""
        return cls.drawn()


@dataclass(frozen=True)
class Together(Action):
    """Several steps in one transaction, some of them in savepoints that are rolled back."""

    steps: tuple[Step, ...]
    undone: tuple[bool, ...]
    is_committed: bool

    def run(self, world: World) -> None:
        for number, step in enumerate(self.steps):
            if self.undone[number % len(self.undone)]:
                world.undo(step)
            else:
                world.do(step)
        if not self.is_committed:
            raise RolledBack


class RolledBack(Exception):
    """A program's transaction that ends by ROLLBACK."""


class World:
    """A database, the model that it should be like, and what the program has done so far."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.model = Model()
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.is_by_hand = False
        self._ids = random.Random(0)
        self._connection: sa.Connection | None = None

    @property
    def connection(self) -> sa.Connection:
        """The connection of the step's transaction."""
        assert self._connection is not None, "a step that commits has no transaction"
        return self._connection

    @property
    def corpus(self) -> State:
        return self.model.corpus

    def new_id(self) -> UUID:
        """Return an id for a row written by hand."""
        return UUID(int=self._ids.getrandbits(128), version=4)

    def did(self, step: Step, *, is_refused: bool = False) -> None:
        """Count a step that changed something, or was refused."""
        (self.refused if is_refused else self.done)[type(step).__name__] += 1

    def do(self, action: Action) -> None:
        """Do an action, and before it what it needs."""
        for _ in range(_NEEDS):
            need = action.needs(self)
            if need is None:
                break
            self.do(need)
        action.run(self)

    def undo(self, step: Step) -> None:
        """Do a step in a savepoint, and roll that back."""
        before, by_hand = self.model.copy(), self.is_by_hand
        with self.connection.begin_nested() as savepoint:
            self.do(step)
            savepoint.rollback()
        self.model, self.is_by_hand = before, by_hand

    def step(self, step: Action) -> None:
        """Run one step of a program, and compare."""
        if step.commits:
            self.do(step)
            self.corpus_now = self.model.corpus
        else:
            self._in_transaction(step)
        with self.engine.connect() as connection:
            self.compare(connection)

    def _in_transaction(self, step: Action) -> None:
        before = self.model.copy()
        self.is_by_hand = False
        is_dangling = False
        try:
            with self.engine.begin() as self._connection:
                self.do(step)
                is_dangling = self.corpus.is_dangling()
        except RolledBack:
            self.model = before
        except IntegrityError:
            if not is_dangling:
                raise
            self.model = before
        else:
            assert not is_dangling, "a document may point at a version that is not its own"
        finally:
            self._connection = None
        self.model.corpus = self.corpus.derived()

    def compare(self, connection: sa.Connection) -> None:
        """Compare everything: the corpus row by row, what the rules say of it, and what each family keeps."""
        found = read_state(connection)
        lines = [*differences(self.corpus.derived(), found)]
        assert not lines, "the corpus is not as the model says:\n" + "\n".join(lines)
        assert connection.execute(broken_documents()).all() == []
        for family in self.model.families.values():
            family.check(connection, self.model)

    @contextmanager
    def by_hand(self) -> Iterator[None]:
        """Statements of a writer that relies on the triggers, which do some of their work at the commit."""
        self.is_by_hand = True
        yield

    def adopt(
        self, expected: dict[str, SeenDocument], connection: sa.Connection, planned: State | None = None
    ) -> State:
        """Take over the rows that the library wrote, if they say what the model expects; return those before.

        Families with an ``adopt`` follow: of ``planned``, the corpus by which the rows were planned, those before and
        these.
        """
        before = self.corpus
        found = read_state(connection)
        seen = found.seen()
        assert seen == expected, f"expected {expected}\nfound    {seen}"
        if not self.is_by_hand:  # right in the same transaction, and without triggers
            lines = [*differences(found.derived(), found)]
            assert not lines, "chunks are current that should not be, or the other way:\n" + "\n".join(lines)
        self.model.corpus = found
        for family in self.model.families.values():
            if hasattr(family, "adopt"):
                family.adopt(connection, planned or before, before, found)
        return before

    def refuses(self, step: Step, statement: str, **parameters: Any) -> None:
        """Expect the database to refuse a statement, and go on in the same transaction."""
        try:
            with self.connection.begin_nested():
                self.connection.execute(sa.text(statement), parameters)
        except IntegrityError:
            self.did(step, is_refused=True)
            return
        raise AssertionError(f"this was not refused: {statement}")


def run_program(engine: sa.Engine, program: Sequence[Action], families: dict[str, Any]) -> World:
    """Run a program from an empty database on; return what it did.

    Args:
        engine: On a database at head without rows.
        program: What to do.
        families: What families keep beside the corpus, new.
    """
    world = World(engine)
    world.model.families = families
    for step in program:
        world.step(step)
    return world


def pick(rows: Sequence[Any], number: int) -> Any:
    """Return one of some rows; None where there are none."""
    return rows[number % len(rows)] if rows else None


numbers = st.integers(0, 11)
articles = st.sampled_from(ARTICLES)
texts = st.sampled_from(TEXTS)
contents = st.lists(texts, max_size=4).map(tuple)
titles = st.sampled_from([None, None, "One", "Two"])


@st.composite
def programs(draw: st.DrawFn, kinds: Sequence[type[Step]], length: int) -> list[Action]:
    """Draw a program of so many steps, or fewer, each kind as often as its weight says, alone or several at once."""
    inner = _deck([kind for kind in kinds if not (kind.commits or kind.is_around)], st.nothing())
    between = _any_of(inner)
    alone = _deck(kinds, between)
    several = _deck([kind for kind in kinds if not kind.commits], between)
    turn = draw(st.integers(0, 10_000))
    program: list[Action] = []
    for place in range(length):
        how = draw(st.integers(0, 19))
        if how >= 12:
            program.append(draw(_any_of(alone, turn + place * _STRIDE)))
        elif how >= 2:
            program.append(
                Together(
                    tuple(
                        draw(_any_of(several, turn + (place + 7 * number) * _STRIDE))
                        for number in range(draw(st.integers(2, 4)))
                    ),
                    draw(st.sampled_from([(False,), (False,), (False, True), (True, False)])),
                    draw(st.sampled_from([True, True, True, False])),
                )
            )
    return program


_STRIDE = 37
_ONLY_ALONE = 3


def _deck(kinds: Sequence[type[Step]], inner: st.SearchStrategy[Step]) -> list[st.SearchStrategy[Any]]:
    """Return the strategies of steps, each as often as its weight says; more often what is drawn nowhere else."""
    return [
        strategy
        for kind in kinds
        for strategy in [kind.drawn_around(inner)] * kind.weight * (_ONLY_ALONE if kind.commits else 1)
    ]


def _any_of(deck: Sequence[st.SearchStrategy[Any]], turn: int = 0) -> st.SearchStrategy[Any]:
    """Return a strategy that draws one of a deck: hypothesis prefers small numbers, so each place begins elsewhere."""
    return st.integers(0, len(deck) - 1).flatmap(lambda number: deck[(number + turn) % len(deck)])
