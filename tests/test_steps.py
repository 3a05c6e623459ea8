"""Random programs of everything that changes the database leave it as a small model in memory says, step by step.

``RAG_TEST_STEPS`` says how many steps are run (2,000 by default), ``RAG_TEST_SEED`` which: by default the same ones
each time. What fails is printed as a program; `random_steps.run_program` runs it again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

import steps_of_chat
import steps_of_collections
import steps_of_document_sql
import steps_of_event_sql
import steps_of_graph
import steps_of_graph_sql
import steps_of_jobs
import steps_of_lifecycle
import steps_of_loading
import steps_of_models
import steps_of_publishing
import steps_of_sql
from conftest import made_database, make_led_engine
from model_of_graph import Graph
from publishing import drop_triggers
from random_steps import Action, Step, Together, programs, run_program

STEPS = int(os.environ.get("RAG_TEST_STEPS", "2000"))
SEED = os.environ.get("RAG_TEST_SEED")
LENGTH = 50

BY_HAND = (
    *steps_of_sql.STEPS,
    *steps_of_event_sql.STEPS,
    *steps_of_document_sql.STEPS,
    *steps_of_graph_sql.STEPS,
)
LIBRARY: tuple[type[Step], ...] = (
    *steps_of_publishing.STEPS,
    *steps_of_loading.STEPS,
    *steps_of_lifecycle.STEPS,
    *steps_of_collections.STEPS,
    *steps_of_chat.STEPS,
    *steps_of_jobs.STEPS,
    *steps_of_models.STEPS,
    *steps_of_graph.STEPS,
)
EVERYTHING = (*LIBRARY, *BY_HAND)


def families() -> dict[str, Any]:
    """Return what the families keep beside the corpus, new: one entry each."""
    return {
        "collections": steps_of_collections.Collections(),
        "chat": steps_of_chat.Chat(),
        "jobs": steps_of_jobs.Jobs(),
        "graph": Graph(),
    }


def names_in(program: Sequence[Action]) -> Iterator[str]:
    for step in program:
        yield from names_in(step.steps) if isinstance(step, Together) else [type(step).__name__]


@pytest.mark.long
@pytest.mark.parametrize(
    ("kinds", "share", "has_triggers"),
    [(EVERYTHING, 0.75, True), (LIBRARY, 0.25, False)],
    ids=["everything", "without triggers"],
)
def test_random_steps_leave_what_the_model_says(
    server: Mapping[str, str],
    template: str,
    kinds: Sequence[type[Step]],
    share: float,
    has_triggers: bool,
) -> None:
    drawn: Counter[str] = Counter()
    done: Counter[str] = Counter()
    engine, led = make_led_engine(server)

    def run_programs(kinds: Sequence[type[Step]], count: int) -> None:
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            derandomize=SEED is None,
            print_blob=False,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(programs(kinds, LENGTH))
        def run(program: list[Action]) -> None:
            drawn.update(names_in(program))
            with made_database(server, template) as database:
                if not has_triggers:
                    drop_triggers(database)
                led["dbname"] = database.parameters["dbname"]
                try:
                    world = run_program(engine, program, families())
                finally:
                    engine.dispose()
            done.update(world.done + world.refused)

        (seed(int(SEED))(run) if SEED is not None else run)()

    run_programs(kinds, max(1, round(STEPS * share / LENGTH)))
    least = 3 * min(STEPS, 2000) * share / 2000
    # Hypothesis repeats parts of programs, so that it draws some kinds hardly ever: those once more, among themselves
    if rare := [kind for kind in kinds if done[kind.__name__] < least]:
        run_programs([*rare, steps_of_publishing.Publish], 2)
    seldom = {
        name: (drawn[name], done[name]) for name in (kind.__name__ for kind in rare) if done[name] < least
    }
    assert not seldom, f"too rare: {seldom}"
