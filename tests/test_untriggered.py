"""Databases without triggers: our own functions keep is_current, updated_at and the jobs right by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import sqlalchemy as sa

from conftest import made_database
from publishing import drop_triggers
from ragschema import create_engine, migrations
from ragschema.database.options import Options
from ragschema.database.settings import Database
from tenant_steps import STEPS, run


@pytest.fixture(scope="module")
def database(server: Mapping[str, str], template: str) -> Iterator[Database]:
    with made_database(server, template) as database:
        drop_triggers(database)
        yield database


@pytest.fixture(scope="module")
def engine(database: Database) -> Iterator[sa.Engine]:
    engine = create_engine(database.libpq_url())
    yield engine
    engine.dispose()


@pytest.mark.parametrize("step", STEPS)
def test_each_step_leaves_the_data_right(engine: sa.Engine, database: Database, step: str) -> None:
    run(STEPS[step], engine, Options(database))
    assert migrations.verify_data(database) == []
