"""What Alembic's commands are asked: one request serves several, each has a run and a result of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError

import pytest
from alembic import command

from conftest import ROOT, clean_environment
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.migrations.request import Applied, Request, Result
from ragschema.revisions.manifest import read_manifest
from ragschema.revisions.scripts import RESULT_ATTRIBUTE, make_config


def test_one_request_serves_several_commands(empty_database: Database) -> None:
    reported: list[Applied] = []
    request = Request(Options(empty_database), report=reported.append)
    config = make_config(request)
    first, second = (each.revision for each in read_manifest().revisions[:2])
    results: list[Result] = []
    for run, revision in ((command.upgrade, "+2"), (command.upgrade, second), (command.downgrade, "-1")):
        run(config, revision)
        results.append(config.attributes[RESULT_ATTRIBUTE])
    assert [[each.revision for each in result.applied] for result in results] == [
        [first, second],
        [],
        [second],
    ]
    assert [result.current for result in results] == [second, second, first]
    assert reported == [each for result in results for each in result.applied]
    with pytest.raises(FrozenInstanceError):
        request.expand_only = True  # type: ignore[misc]


def test_offline_sql_passes_over_contract_revisions_too() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "alembic", "-x", "expand-only=yes", "upgrade", "head", "--sql"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    steps = result.stdout.split("-- Running ")
    for revision in read_manifest().revisions:
        (step,) = (each for each in steps if f"-> {revision.revision}" in each.partition("\n")[0])
        deferred = f"VALUES ('{revision.revision}', 'defer', " in step
        assert deferred == (revision.deploy == "contract")
        assert ("DROP INDEX" in step and deferred) is False
    assert f"version_num='{read_manifest().head}'" in result.stdout
