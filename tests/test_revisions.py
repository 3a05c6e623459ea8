"""Revisions: models equal migrations, parity with the hand-written schema, and a way back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from pytest_alembic.config import Config
from pytest_alembic.tests import (
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)

from conftest import dump_schema
from ragschema import migrations, scripts
from ragschema.environment import Run
from ragschema.settings import Database

__all__ = [
    "test_model_definitions_match_ddl",
    "test_single_head_revision",
    "test_up_down_consistency",
    "test_upgrade",
]


@pytest.fixture
def alembic_config(empty_database: Database) -> Config:
    return Config(alembic_config=scripts.make_config(Run(empty_database)))


@pytest.fixture
def alembic_engine(empty_database: Database) -> Iterator[sa.Engine]:
    engine = sa.create_engine(empty_database.url(), poolclass=sa.NullPool)
    yield engine
    engine.dispose()


def test_downgrade_leaves_no_trace(empty_database: Database) -> None:
    before = dump_schema(empty_database, without_version_table=False)
    migrations.upgrade(empty_database)
    migrations.downgrade(empty_database, "base")
    after = dump_schema(empty_database, without_version_table=False).splitlines()
    assert [line for line in after if line and "EXTENSION" not in line] == before.split()
