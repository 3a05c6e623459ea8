"""The compose file, the image and .env.example agree, and what they run works outside a container."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from conftest import ROOT
from installed import Environment, build, install_alone
from ragschema import embedded
from ragschema.database.settings import Database, find_database
from ragschema.errors import ConfigurationError

_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def read_example() -> dict[str, str]:
    return {name: value or "" for name, value in dotenv_values(ROOT / ".env.example").items()}


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """Fill in ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}`` as docker compose does."""

    def fill(match: re.Match[str]) -> str:
        name, operator, word = match.groups()
        if variables.get(name):
            return variables[name]
        if operator == "?":
            raise LookupError(f"{name}: {word}")
        return word or ""

    if isinstance(value, dict):
        return {key: interpolate(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, variables) for item in value]
    return _VARIABLE.sub(fill, value) if isinstance(value, str) else value


def read_stages(dockerfile: str) -> list[list[tuple[str, str]]]:
    """Return a Dockerfile's stages, each its instructions and their arguments, FROM first."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    stages: list[list[tuple[str, str]]] = []
    for line in joined.splitlines():
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            stages.append([])
        stages[-1].append((instruction, " ".join(arguments.split())))
    return stages


COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = interpolate(yaml.safe_load(COMPOSE_TEXT), read_example())
DB, MIGRATE = COMPOSE["services"]["db"], COMPOSE["services"]["migrate"]
BUILD, IMAGE = read_stages((ROOT / "Dockerfile").read_text())


def arguments(stage: list[tuple[str, str]], wanted: str) -> list[str]:
    return [arguments for instruction, arguments in stage if instruction == wanted]


def image_command(command: list[str] | None = None) -> list[str]:
    """Return what a container of the image runs; an empty command is none given, as the engine sees it."""
    (entry_point,), (default,) = arguments(IMAGE, "ENTRYPOINT"), arguments(IMAGE, "CMD")
    return [*json.loads(entry_point), *(command or json.loads(default))]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first stage copies: its working directory before anything runs."""
    directory = tmp_path_factory.mktemp("image") / "source"
    directory.mkdir()
    for copied in arguments(BUILD, "COPY"):
        *sources, target = copied.split()
        for source in sources:
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, directory / target, ignore=ignored)
            else:
                shutil.copy(ROOT / source, directory / target)
    return directory


@pytest.fixture(scope="module")
def wheel(context: Path) -> Path:
    """The wheel that the first stage builds."""
    build(context, context.with_name("wheels"), "--wheel")
    (wheel,) = context.with_name("wheels").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def image(wheel: Path, context: Path) -> Environment:
    """What the image holds."""
    return install_alone(wheel, context.with_name("venv"))


def test_first_stage_copies_all_that_the_wheel_is_made_of(wheel: Path, tmp_path: Path) -> None:
    build(ROOT, tmp_path, "--wheel")
    assert wheel.read_bytes() == (tmp_path / wheel.name).read_bytes()


def test_build_context_is_only_what_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if not line.startswith("#")]
    copied = [source for line in arguments(BUILD, "COPY") for source in line.split()[:-1]]
    assert patterns[0] == "*"
    assert sorted(patterns[1:-1]) == sorted(f"!{source}" for source in copied)
    assert patterns[-1] == "**/__pycache__"


def test_image_is_not_root_and_finds_its_program_where_the_first_stage_installs_it() -> None:
    assert arguments(IMAGE, "USER") == ["1001:1001"]
    (copied,) = arguments(IMAGE, "COPY")
    install = next(line for line in arguments(BUILD, "RUN") if line.startswith("uv pip install"))
    assert copied.split()[1:] == [re.search(r"--python (\S+)", install)[1]] * 2  # type: ignore[index]
    assert arguments(IMAGE, "ENV") == [f"PATH={copied.split()[2]}/bin:$PATH"]


def test_db_keeps_its_data_and_has_room_for_parallel_index_builds() -> None:
    assert re.fullmatch(r"pgvector/pgvector:\d+\.\d+\.\d+-pg18-\w+", DB["image"])
    assert DB["volumes"] == ["db-data:/var/lib/postgresql"]
    assert list(COMPOSE["volumes"]) == ["db-data"]
    assert DB["shm_size"] == "1gb"


def test_migrate_is_our_image_and_runs_once_when_db_is_healthy() -> None:
    assert image_command(MIGRATE["command"]) == ["rag", "migrate", "--to", "head"]
    assert (MIGRATE["build"], MIGRATE["restart"]) == (".", "no")
    assert MIGRATE["depends_on"] == {"db": {"condition": "service_healthy"}}


def test_compose_refuses_to_start_without_a_password() -> None:
    with pytest.raises(LookupError, match=r"DB_PASSWORD: run cp \.env\.example \.env"):
        interpolate(yaml.safe_load(COMPOSE_TEXT), {})


def test_migrate_asks_for_the_database_that_db_makes() -> None:
    found = find_database(environ=MIGRATE["environment"], directory=Path("/"))
    assert found.parameters == {
        "host": "db",
        "port": "5432",
        "user": DB["environment"]["POSTGRES_USER"],
        "dbname": DB["environment"]["POSTGRES_DB"],
        "password": DB["environment"]["POSTGRES_PASSWORD"],
    }


def test_the_example_documents_every_setting() -> None:
    code = "".join(path.read_text() for path in (ROOT / "src" / "ragschema").rglob("*.py"))
    settings = set(re.findall(r'"((?:DB|RAG)_[A-Z_]+|[A-Z_]*DATABASE_URL)"', code))
    documented = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M))
    assert "DATABASE_URL" in settings
    assert documented == settings
    assert set(re.findall(r"\$\{?(\w+)", COMPOSE_TEXT)) <= documented


def test_the_example_as_it_stands_is_the_database_of_compose(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".env.example", tmp_path / ".env")
    found = find_database(environ={}, directory=tmp_path)
    address, port, _ = DB["ports"][0].split(":")
    assert found.parameters == {
        "host": "localhost",
        "port": port,
        "user": DB["environment"]["POSTGRES_USER"],
        "dbname": DB["environment"]["POSTGRES_DB"],
        "password": DB["environment"]["POSTGRES_PASSWORD"],
    }
    assert address == "127.0.0.1"


def test_settings_that_the_example_leaves_out_are_right_when_the_hash_is_removed(tmp_path: Path) -> None:
    text = (ROOT / ".env.example").read_text()
    (tmp_path / ".env").write_text(text.replace("#DB_SSLMODE=", "DB_SSLMODE="))
    assert find_database(environ={}, directory=tmp_path).parameters["sslmode"] == "verify-full"
    (tmp_path / ".env").write_text(text.replace("#DATABASE_URL=", "DATABASE_URL="))
    assert find_database(environ={}, directory=tmp_path).parameters["host"] == "HOST"
    (tmp_path / ".env").write_text(text.replace("#DB_PASSWORD_FILE=", "DB_PASSWORD_FILE="))
    with pytest.raises(ConfigurationError, match="/run/secrets/db_password"):
        find_database(environ={}, directory=tmp_path)


def test_image_commands_work_on_a_server_with_the_environment_that_compose_gives(
    image: Environment, empty_database: Database
) -> None:
    """By hand what the container does, as the server has another name here."""
    parameters = empty_database.parameters
    environment = MIGRATE["environment"] | {"DB_HOST": parameters["host"], "DB_NAME": parameters["dbname"]}

    def run(command: list[str] | None) -> subprocess.CompletedProcess[str]:
        program, *rest = image_command(command)
        result = image.run(program, *rest, **environment)
        assert result.returncode == 0, result.stderr
        return result

    assert run(None).stdout.startswith("state\tEMPTY")
    assert "Done: the database is at " in run(MIGRATE["command"]).stdout
    assert run(None).stdout.startswith("state\tOK")
    assert "Nothing to do" in run(MIGRATE["command"]).stdout


def test_health_check_tells_a_server_from_none(server: Mapping[str, str], tmp_path: Path) -> None:
    kind, program, *options = DB["healthcheck"]["test"]
    assert (kind, options[:2]) == ("CMD", ["-h", "127.0.0.1"])  # over TCP: see the compose file

    def check(host: str) -> int:
        command = [embedded.program(program), "-h", host, *options[2:]]
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert check(server["host"]) == 0
    assert check(str(tmp_path)) != 0


def test_docker_commands_that_we_print_are_ones_the_image_takes(image: Environment) -> None:
    """In the README and in the heads of both files: every ``docker`` line, up to two spaces or a comment."""
    text = "\n".join((ROOT / name).read_text() for name in ("README.md", "docker-compose.yml", "Dockerfile"))
    lines = re.findall(r"^[#$ ]*(docker .+?)(?: {2}.*| #.*)?$", text, re.M)
    given = [
        re.fullmatch(r"docker (?:compose )?run .*?(?:migrate|ragschema)((?: \S+)*)", line) for line in lines
    ]
    commands = {tuple(image_command(match[1].split())) for match in given if match}
    assert commands >= {("rag", "migrate", "status"), ("rag", "migrate", "--to", "head")}
    for program, *rest in commands:
        result = image.run(program, *rest, "--help")
        assert result.returncode == 0, result.stderr
