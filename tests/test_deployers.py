"""Deployers at once: one migrates, the others wait and find nothing to do."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import ROOT, Command, clean_environment, connect, start_rag
from ragschema import migrations
from ragschema.database.connections import opened
from ragschema.database.options import Options
from ragschema.database.settings import Database
from ragschema.errors import LockNotObtained
from ragschema.migrations.deployer_lock import deployer_lock_key, take_deployer_lock


def test_eight_deployers_on_an_empty_database_all_succeed(run: Command, empty_database: Database) -> None:
    url = empty_database.libpq_url()
    commands = [("rag", "migrate"), ("alembic", "upgrade", "head")] * 4
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda command: run(*command, cwd=ROOT, DATABASE_URL=url), commands))
    assert [result.returncode for result in results] == [0] * 8, [result.stderr for result in results]
    applied = "".join(result.stdout + result.stderr for result in results)
    assert applied.count("upgrade 20251225160000") + applied.count("Every table at once") == 1
    assert migrations.status(empty_database).state == "OK"


def test_a_deployer_waits_for_the_lock_and_says_who_has_it(empty_database: Database, tmp_path: Path) -> None:
    with connect(empty_database) as holder:
        holder.execute("SET application_name = 'the other deployer'")
        holder.execute("SELECT pg_advisory_lock(%s)", (deployer_lock_key("public"),))
        process = start_rag("migrate", cwd=tmp_path, DATABASE_URL=empty_database.libpq_url())
        assert process.stderr is not None
        for line in process.stderr:
            if "Waiting for another deployer" in line:
                assert f"pid {holder.info.backend_pid} (the other deployer" in line
                break
        else:
            pytest.fail("it never said that it waits")
        assert migrations.status(empty_database).state == "EMPTY"
    _, _ = process.communicate()
    assert process.returncode == 0
    assert migrations.status(empty_database).state == "OK"


def test_a_wait_that_ends_without_the_lock_changes_nothing(empty_database: Database) -> None:
    with connect(empty_database) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (deployer_lock_key("public"),))
        with (
            opened(Options(empty_database)) as at,
            at.connection as connection,
            pytest.raises(LockNotObtained, match="Another deployer has held the lock") as refused,
        ):
            take_deployer_lock(connection, "public", wait=0.2)
        assert f"pid {holder.info.backend_pid} " in refused.value.evidence
    assert migrations.status(empty_database).state == "EMPTY"


def test_a_killed_deployer_leaves_no_lock_behind(empty_database: Database) -> None:
    key = deployer_lock_key("public")
    script = (
        "import time; from ragschema.database.connections import opened;"
        " from ragschema.migrations.deployer_lock import take_deployer_lock\n"
        "from ragschema.database.options import find_options\n"
        "with opened(find_options()) as at:\n"
        "    take_deployer_lock(at.connection, 'public', wait=60); print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=clean_environment() | {"DATABASE_URL": empty_database.libpq_url()},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with connect(empty_database) as connection:
        assert connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone() == (False,)
        process.kill()
        process.communicate()
        deadline = time.monotonic() + 60
        while connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone() != (True,):
            assert time.monotonic() < deadline, "the server still holds the killed deployer's lock"
            time.sleep(0.05)


def test_two_schemas_have_two_locks() -> None:
    assert deployer_lock_key("public") != deployer_lock_key("t2")
    assert -(2**63) <= deployer_lock_key("public") < 2**63
