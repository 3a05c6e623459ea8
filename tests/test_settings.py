"""Where the database is: order, spelling, passwords, refusals."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import create_async_engine

from conftest import connect, passable_directory
from ragschema import embedded
from ragschema.database.settings import Database, embedded_directory, find_database
from ragschema.errors import ConfigurationError

PASSWORDS = [
    "p%ss", "p%41ss", "p@ss", "p:ss", "p/ss", "p#ss", "p?ss", "p ss", " p ", "pässwörd€", "p+ss", "p&a=b",
    "p'ss", 'p"ss', "p\\ss", "p$ss", "p${HOME}ss", "p,[]ss", "p@h/d?sslmode=disable#x", "# p", "% @:/#?",
]  # fmt: skip


def find(directory: Path, url: str | None = None, dotenv: str | None = None, **environ: str) -> Database:
    """Find the database from these settings alone."""
    if dotenv is not None:
        (directory / ".env").write_text(dotenv, encoding="utf-8")
    return find_database(url, environ=environ, directory=directory)


def refusal(directory: Path, *arguments: Any, **settings: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as refused:
        find(directory, *arguments, **settings)
    assert refused.value.exit_code == 78
    assert refused.value.remedy
    return refused.value


def sqlalchemy_keywords(database: Database) -> dict[str, str]:
    """Return what SQLAlchemy hands to psycopg for the database, in libpq's keywords."""
    url = database.url()
    positional, keywords = sa.create_engine(url).dialect.create_connect_args(url)
    keywords.pop("context", None)  # SQLAlchemy's own
    found = {name: str(value) for name, value in conninfo_to_dict(*positional, **keywords).items()}
    if not found.get("port", "").strip(","):  # several hosts, each at the default port
        found.pop("port", None)
    return found


def assert_same_everywhere(database: Database, directory: Path) -> None:
    """Every form of a database means the same to psycopg, to SQLAlchemy and to these settings."""
    expected = dict(database.parameters)
    assert sqlalchemy_keywords(database) == expected
    assert conninfo_to_dict(database.libpq_url()) == expected
    assert find(directory, database.libpq_url()).parameters == expected
    assert find(directory, database.url().render_as_string(hide_password=False)).parameters == expected


def test_the_first_setting_in_order_decides(tmp_path: Path) -> None:
    dotenv = "DATABASE_URL=postgresql://file-url\n"
    environ = {"DATABASE_URL": "postgresql://url", "DB_HOST": "parts"}
    (tmp_path / ".env").write_text(dotenv)
    assert find(tmp_path, "postgresql://option", **environ).parameters["host"] == "option"
    assert find(tmp_path, **environ).parameters["host"] == "url"
    assert find(tmp_path, DB_HOST="parts").parameters["host"] == "parts"
    assert find(tmp_path).parameters["host"] == "file-url"
    assert find(tmp_path, dotenv=dotenv + "DB_HOST=file-parts").parameters["host"] == "file-url"
    assert find(tmp_path, dotenv="DB_HOST=file-parts").parameters["host"] == "file-parts"
    last = find(tmp_path, dotenv="")
    assert last.parameters == {}
    assert last.embedded == tmp_path / ".ragschema" / "postgres"


def test_the_process_environment_and_working_directory_are_read_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("DB_HOST=h\nDB_USER=of-the-file\nDB_NAME=of-the-file")
    monkeypatch.setenv("DB_USER", "of-the-environment")
    parameters = find_database().parameters
    assert (parameters["user"], parameters["dbname"]) == ("of-the-environment", "of-the-file")


def test_parts_have_defaults(tmp_path: Path) -> None:
    assert find(tmp_path, DB_HOST="h").parameters == {
        "host": "h",
        "port": "5432",
        "user": "postgres",
        "dbname": "postgres",
    }


def test_every_part_is_used(tmp_path: Path) -> None:
    found = find(
        tmp_path,
        DB_HOST="h", DB_PORT="5433", DB_USER="u", DB_NAME="d", DB_PASSWORD="p", DB_SSLMODE="verify-full",
    )  # fmt: skip
    assert found.parameters == {
        "host": "h",
        "port": "5433",
        "user": "u",
        "dbname": "d",
        "password": "p",
        "sslmode": "verify-full",
    }


def test_an_empty_part_is_its_default_and_hides_the_one_in_the_file(tmp_path: Path) -> None:
    dotenv = "DB_HOST=h\nDB_USER=u\nDB_PASSWORD=p\nDB_SSLMODE=require\n"
    found = find(tmp_path, dotenv=dotenv, DB_USER="", DB_PASSWORD="", DB_SSLMODE="", DB_PORT="")
    assert found.parameters == {"host": "h", "port": "5432", "user": "postgres", "dbname": "postgres"}


def test_the_password_file_comes_before_the_password_and_the_environment_before_the_file(
    tmp_path: Path,
) -> None:
    secret, other = tmp_path / "secret", tmp_path / "other"
    secret.write_text("of-the-secret\n")
    other.write_text("of-the-other\n")
    in_file = f"DB_HOST=h\nDB_PASSWORD=in-file\nDB_PASSWORD_FILE={other}\n"

    def password(dotenv: str, **environ: str) -> str:
        return find(tmp_path, dotenv=dotenv, **environ).parameters["password"]

    assert password("", DB_HOST="h", DB_PASSWORD_FILE=str(secret), DB_PASSWORD="p") == "of-the-secret"
    assert password(in_file) == "of-the-other"
    assert password(in_file, DB_PASSWORD="in-environment") == "in-environment"
    assert password(in_file, DB_PASSWORD_FILE=str(secret)) == "of-the-secret"
    assert password(in_file, DB_PASSWORD_FILE="") == "in-file"


def test_the_env_file_is_not_read_where_the_environment_decides(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe")
    assert find(tmp_path, DATABASE_URL="postgresql://h").parameters == {"host": "h"}
    assert find(tmp_path, "postgresql://h").parameters == {"host": "h"}


@pytest.mark.parametrize(
    "dotenv",
    [
        "# ours\n\nDATABASE_URL={}\n",
        "\ufeffDATABASE_URL={}",
        "export DATABASE_URL={} # ours",
        'DATABASE_URL="{}"',
        "DATABASE_URL = '{}'\r\n",
    ],
)
def test_the_env_file_is_read_as_usual(tmp_path: Path, dotenv: str) -> None:
    found = find(tmp_path, dotenv=dotenv.format("postgresql://u:p#x@h/d"))
    assert found.parameters == {"user": "u", "password": "p#x", "host": "h", "dbname": "d"}
    assert found.source == f"DATABASE_URL in {tmp_path / '.env'}"


def test_the_env_file_refers_to_other_variables(tmp_path: Path) -> None:
    dotenv = "POSTGRES_USER=u\nDATABASE_URL=postgresql://${POSTGRES_USER}@h/d\n"
    assert find(tmp_path, dotenv=dotenv).parameters["user"] == "u"


@pytest.mark.parametrize("password", PASSWORDS)
def test_any_password_reaches_psycopg_unchanged(tmp_path: Path, password: str) -> None:
    (tmp_path / "secret").write_text(password + "\n", encoding="utf-8")
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    encoded = f"postgresql://u:{quote(password, safe='')}@h/d"
    databases = [
        find(tmp_path, encoded),
        find(tmp_path, DATABASE_URL=encoded),
        find(tmp_path, DB_HOST="h", DB_PASSWORD=password),
        find(tmp_path, DB_HOST="h", DB_PASSWORD_FILE=str(tmp_path / "secret")),
        find(tmp_path, dotenv=f"DB_HOST=h\nDB_PASSWORD='{quoted}'\n"),
        find(tmp_path, dotenv=f"DATABASE_URL='{encoded}'\n"),
    ]
    for database in databases:
        assert database.parameters["password"] == password
        assert_same_everywhere(database, tmp_path)


@pytest.mark.parametrize(
    "password",
    ["p%ss", "p@ss", "p:ss", "p/ss", "p#ss", "p?ss", "p ss", "pässwörd", "12/s", "a@b?c", "% @:/#?", "p@h/d"],
)
def test_a_password_may_stand_in_a_url_as_it_is(tmp_path: Path, password: str) -> None:
    found = find(tmp_path, f"postgresql://u:{password}@h:5433/d?sslmode=require")
    assert found.parameters == {
        "user": "u",
        "password": password,
        "host": "h",
        "port": "5433",
        "dbname": "d",
        "sslmode": "require",
    }


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n"])
def test_line_ends_after_the_password_in_its_file_do_not_count(tmp_path: Path, ending: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b" pass \xc3\xa9 " + ending.encode())
    found = find(tmp_path, DB_HOST="h", DB_PASSWORD_FILE=str(secret))
    assert found.parameters["password"] == " pass é "


@pytest.mark.parametrize(
    "scheme",
    ["postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg2", "postgresql+psycopg",
     "postgresql+psycopg_async", "postgres+asyncpg", "POSTGRESQL"],
)  # fmt: skip
def test_every_postgresql_scheme_becomes_psycopg(tmp_path: Path, scheme: str) -> None:
    url = find(tmp_path, DATABASE_URL=f" {scheme}://u:p@h:5433/d\n").url()
    assert url == sa.make_url("postgresql+psycopg://u:p@h:5433/d")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://", {}),
        ("postgresql:///d", {"dbname": "d"}),
        ("postgresql://h", {"host": "h"}),
        ("postgresql://h:/d", {"host": "h", "dbname": "d"}),
        ("postgresql://u@h", {"user": "u", "host": "h"}),
        ("postgresql://u%40corp:p@h/d%2Fe%20f", {"user": "u@corp", "password": "p", "host": "h", "dbname": "d/e f"}),
        ("postgresql://[::1]:5433/d", {"host": "::1", "port": "5433", "dbname": "d"}),
        ("postgresql://u:p@[2001:db8::7]/d", {"user": "u", "password": "p", "host": "2001:db8::7", "dbname": "d"}),
        ("postgresql://[fe80::1%25eth0]/d", {"host": "fe80::1%eth0", "dbname": "d"}),
        ("postgresql:///d?host=/var/run/postgresql", {"host": "/var/run/postgresql", "dbname": "d"}),
        ("postgresql://u@%2Frun%2Fpg:5433/d", {"user": "u", "host": "/run/pg", "port": "5433", "dbname": "d"}),
        ("postgresql:///d?host=/a%20b&port=5433&user=u", {"host": "/a b", "port": "5433", "user": "u", "dbname": "d"}),
        ("postgresql:///d?host=%40abstract", {"host": "@abstract", "dbname": "d"}),
        ("postgresql://a:1,b:2/d", {"host": "a,b", "port": "1,2", "dbname": "d"}),
        ("postgresql://a,b:2/d", {"host": "a,b", "port": ",2", "dbname": "d"}),
        ("postgresql://a,[::1],%2Frun/d", {"host": "a,::1,/run", "dbname": "d"}),
        ("postgresql://u@a,b/d?port=5433", {"user": "u", "host": "a,b", "port": "5433,5433", "dbname": "d"}),
        ("postgresql://a,b?target_session_attrs=any", {"host": "a,b", "target_session_attrs": "any"}),
        ("postgresql://h/d?application_name=a@b", {"host": "h", "dbname": "d", "application_name": "a@b"}),
        ("postgresql:///?password=p%40", {"password": "p@"}),
    ],
)  # fmt: skip
def test_hosts_of_every_kind(tmp_path: Path, url: str, expected: dict[str, str]) -> None:
    database = find(tmp_path, url)
    assert database.parameters == expected
    assert_same_everywhere(database, tmp_path)


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("/var/run/postgresql", "5433", ("/var/run/postgresql", "5433")),
        ("::1", "5433", ("::1", "5433")),
        ("[::1]", "5433", ("::1", "5433")),
        (" h ", "5433", ("h", "5433")),
        ("a,b", "5433", ("a,b", "5433,5433")),
        ("a,b", "1,2", ("a,b", "1,2")),
    ],
)
def test_host_parts_of_every_kind(tmp_path: Path, host: str, port: str, expected: tuple[str, str]) -> None:
    database = find(tmp_path, DB_HOST=host, DB_PORT=port)
    assert (database.parameters["host"], database.parameters["port"]) == expected
    assert_same_everywhere(database, tmp_path)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sslmode=disable", {"sslmode": "disable"}),
        ("sslmode=verify-full&sslrootcert=/ca.pem", {"sslmode": "verify-full", "sslrootcert": "/ca.pem"}),
        ("ssl=disable", {"sslmode": "disable"}),
        ("ssl=true", {"sslmode": "require"}),
        ("ssl=False", {"sslmode": "disable"}),
        ("ssl=verify-ca", {"sslmode": "verify-ca"}),
        ("search_path=public", {"options": "-c search_path=public"}),
        ("search_path=t2,public&sslmode=disable", {"options": "-c search_path=t2,public", "sslmode": "disable"}),
        ('search_path="My Schema"', {"options": '-c search_path="My\\ Schema"'}),
        ("options=-c%20work_mem%3D1MB", {"options": "-c work_mem=1MB"}),
        ("options=-c%20work_mem%3D1MB&search_path=t2", {"options": "-c work_mem=1MB -c search_path=t2"}),
        ("connect_timeout=3&application_name=a%20b", {"connect_timeout": "3", "application_name": "a b"}),
    ],
)  # fmt: skip
def test_parameters_keep_their_meaning(tmp_path: Path, query: str, expected: dict[str, str]) -> None:
    database = find(tmp_path, f"postgres://h/d?{query}")
    assert database.parameters == {"host": "h", "dbname": "d"} | expected
    assert_same_everywhere(database, tmp_path)


def read(database: Database, query: str) -> list[str]:
    """Run a query through every kind of connection; return what each said."""
    engine = sa.create_engine(database.url())
    with engine.connect() as connection:
        answers = [connection.scalar(sa.text(query))]
    engine.dispose()

    async def ask() -> Any:
        engine = create_async_engine(database.url())
        async with engine.connect() as connection:
            answer = await connection.scalar(sa.text(query))
        await engine.dispose()
        return answer

    answers.append(asyncio.run(ask()))
    with connect(database) as direct:
        row = direct.execute(query.encode()).fetchone()
        assert row is not None
        answers.append(row[0])
    return [str(answer) for answer in answers]


NASTY_USER, NASTY_NAME, NASTY_PASSWORD = "ann@corp x", "d/ b?%é", "p%41 @:/#?+&='\"\\ é€${HOME},[]"


@pytest.fixture(scope="module")
def locked() -> Iterator[Mapping[str, str]]:
    """libpq keywords, password apart, of a role that needs its password, on a server of its own."""
    role, name = sql.Identifier(NASTY_USER), sql.Identifier(NASTY_NAME)
    password = sql.Literal(NASTY_PASSWORD)
    with passable_directory() as directory:
        data = directory / "postgres"
        with (
            embedded.running(data) as parameters,
            connect(Database(parameters, "the tests")) as connection,
        ):
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, password))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        (data / "pg_hba.conf").write_text("local all all scram-sha-256\n")
        with embedded.running(data) as parameters:
            yield {**parameters, "user": NASTY_USER, "dbname": NASTY_NAME}


def test_a_wrong_password_is_refused(locked: Mapping[str, str]) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(Database({**locked, "password": NASTY_PASSWORD + "x"}, "the tests"))


def test_any_password_logs_in(tmp_path: Path, locked: Mapping[str, str]) -> None:
    secret = tmp_path / "secret"
    secret.write_text(NASTY_PASSWORD + "\n", encoding="utf-8")
    login = f"{quote(NASTY_USER)}:{quote(NASTY_PASSWORD, safe='')}"
    url = f"postgres://{login}@{quote(locked['host'], safe='')}:5432/{quote(NASTY_NAME, safe='')}"
    parts = {"DB_HOST": locked["host"], "DB_USER": NASTY_USER, "DB_NAME": NASTY_NAME}
    lines = "\n".join(f"{name}='{value}'" for name, value in parts.items())
    quoted = NASTY_PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
    for database in (
        find(tmp_path, DATABASE_URL=url),
        find(tmp_path, **parts, DB_PASSWORD=NASTY_PASSWORD),
        find(tmp_path, **parts, DB_PASSWORD_FILE=str(secret)),
        find(tmp_path, dotenv=f"{lines}\nDB_PASSWORD='{quoted}'"),
    ):
        assert read(database, "SELECT current_user || ' ' || current_database()") == (
            [f"{NASTY_USER} {NASTY_NAME}"] * 3
        )


def test_search_path_and_options_reach_the_server(tmp_path: Path, empty_database: Database) -> None:
    url = empty_database.libpq_url().replace("postgresql:", "postgresql+asyncpg:")
    found = find(tmp_path, url + '&search_path="My Schema",public&options=-c%20work_mem%3D3MB')
    assert read(found, "SHOW search_path") == ['"My Schema",public'] * 3
    assert read(found, "SHOW work_mem") == ["3MB"] * 3


@pytest.mark.parametrize("query", ["ssl=require", "ssl=true", "sslmode=require"])
def test_ssl_reaches_the_connection(tmp_path: Path, empty_database: Database, query: str) -> None:
    found = find(tmp_path, f"{empty_database.libpq_url()}&{query}")
    with psycopg.connect(found.libpq_url()) as connection:  # a socket carries no SSL, whatever is asked
        assert connection.info.get_parameters()["sslmode"] == "require"


def test_the_second_of_two_hosts_is_tried(tmp_path: Path, empty_database: Database) -> None:
    host, name = quote(empty_database.parameters["host"], safe=""), empty_database.parameters["dbname"]
    found = find(tmp_path, f"postgresql://postgres@{quote(str(tmp_path), safe='')},{host}/{name}?port=5432")
    assert read(found, "SELECT current_database()") == [name] * 3


@pytest.mark.parametrize(
    ("environ", "facts", "remedy"),
    [
        ({"DATABASE_URL": ""}, ["DATABASE_URL is empty"], "postgresql://USER"),
        ({"DATABASE_URL": " \n"}, ["DATABASE_URL is empty"], "postgresql://USER"),
        ({"DATABASE_URL": "mysql://u:s3cret@h/d"}, ["DATABASE_URL", "not a PostgreSQL URL", "mysql://"], "postgresql://USER"),
        ({"DATABASE_URL": "postgresql+oracle://u:s3cret@h/d"}, ["DATABASE_URL", "postgresql+oracle://"], "postgresql://USER"),
        ({"DATABASE_URL": "sqlite:///s3cret.db"}, ["DATABASE_URL", "sqlite://"], "postgresql://USER"),
        ({"DATABASE_URL": "host=h password=s3cret"}, ["DATABASE_URL is not a URL"], "postgresql://USER"),
        ({"DATABASE_URL": "postgresql://u:s3cret@h?sslmod=on"}, ["DATABASE_URL", "parameter: sslmod."], "Remove it"),
        ({"DATABASE_URL": "postgresql://u:s3cret@h/d?sslmode=maybe"}, ["DATABASE_URL", "maybe"], "verify-full"),
        ({"DATABASE_URL": "postgresql://u:s3cret@h/d?sslmode"}, ["DATABASE_URL cannot be read"], "%40"),
        ({"DATABASE_URL": "postgresql://u:s3cret"}, ["DATABASE_URL cannot be read"], "%40"),
        ({"DATABASE_URL": "postgresql://u:s3cret@h:99999/d"}, ["port", "DATABASE_URL"], "5432"),
        ({"DATABASE_URL": "postgresql://u:s3cret@h/d?port=s3cret"}, ["port", "DATABASE_URL"], "5432"),
        ({"DATABASE_URL": "postgresql://u@h?connect_timeout=s3cret"}, ["connect_timeout", "DATABASE_URL"], "=10"),
        ({"DATABASE_URL": "postgresql://u:s3cret@a,b/d?port=1,2,3"}, ["2 hosts and 3 ports"], "one for each"),
        ({"DATABASE_URL": "postgresql://u:s3cret%FF@h/d"}, ["DATABASE_URL", "not UTF-8"], "UTF-8"),
        ({"DATABASE_URL": "postgresql://u@h/d?password=s3cret%FF"}, ["DATABASE_URL", "not UTF-8"], "UTF-8"),
        ({"DATABASE_URL": "postgresql://u:s3cret\udcff@h/d"}, ["DATABASE_URL is not UTF-8"], "UTF-8"),
        ({"DATABASE_URL": "postgresql://u:s3cret%00@h/d"}, ["DATABASE_URL", "NUL"], "without"),
        ({"DATABASE_URL": "postgresql://u:a@b?s3cret=1@h/d"}, ["DATABASE_URL cannot be read"], "%40"),
        ({"DATABASE_URL": "postgresql://u:12?s3cret=1@h/d"}, ["DATABASE_URL cannot be read"], "%40"),
        ({"DATABASE_URL": "postgresql://user:5432167"}, ["port", "DATABASE_URL"], "5432"),
        ({"DB_HOST": ""}, ["DB_HOST is empty"], "unset"),
        ({"DB_HOST": "h", "DB_PORT": "s3cret"}, ["port", "DB_PORT"], "5432"),
        ({"DB_HOST": "h", "DB_PORT": "0"}, ["port", "DB_PORT"], "5432"),
        ({"DB_HOST": "h", "DB_SSLMODE": "maybe"}, ["DB_SSLMODE", "maybe"], "verify-full"),
        ({"DB_HOST": "h", "DB_PASSWORD": "s3cret\udcff"}, ["DB_PASSWORD is not UTF-8"], "UTF-8"),
        ({"DB_HOST": "h", "DB_PASSWORD_FILE": "/no", "DB_PASSWORD": "s3cret"}, ["/no", "No such"], "PASSWORD_FILE"),
        ({"DB_HOST": "h", "DB_PASSWORD_FILE": "/"}, ["DB_PASSWORD_FILE", "directory"], "DB_PASSWORD_FILE"),
        ({"DB_NAME": "d"}, ["DB_NAME is set, but DB_HOST is not"], "DB_HOST"),
        ({"DB_PASSWORD": "s3cret"}, ["DB_PASSWORD is set, but DB_HOST is not"], "DATABASE_URL="),
    ],
)  # fmt: skip
def test_a_refusal_names_the_setting_and_the_remedy_but_no_password(
    tmp_path: Path, environ: dict[str, str], facts: list[str], remedy: str
) -> None:
    refused = refusal(tmp_path, **environ)
    for fact in facts:
        assert fact in refused.message
    assert remedy in refused.remedy
    assert "s3cret" not in str(refused)
    assert "5432167" not in str(refused)


def test_a_refusal_says_that_the_setting_came_from_the_option_or_the_file(tmp_path: Path) -> None:
    assert refusal(tmp_path, "").message == "--database-url is empty."
    assert refusal(tmp_path, "mysql://h").message.startswith("--database-url is not a PostgreSQL URL")
    file = tmp_path / ".env"
    assert refusal(tmp_path, dotenv="DATABASE_URL=\n").message == f"DATABASE_URL in {file} is empty."
    assert f"DB_PORT in {file}" in refusal(tmp_path, dotenv="DB_PORT=x\n", DB_HOST="h").message
    assert refusal(tmp_path, dotenv="DB_USER=u\n").message == f"DB_USER in {file} is set, but DB_HOST is not."


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_password_file_without_a_readable_password_is_refused(tmp_path: Path, content: bytes) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(content)
    refused = refusal(tmp_path, DB_HOST="h", DB_PASSWORD_FILE=str(secret))
    assert str(secret) in refused.message
    assert "DB_PASSWORD_FILE" in refused.message


def test_an_env_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"DATABASE_URL=postgresql://\xff")
    assert "not UTF-8" in refusal(tmp_path).message
    refused = refusal(tmp_path, dotenv='A=1\nDATABASE_URL="postgresql://u:s3cret@h/d\n')
    assert refused.message == f"{tmp_path / '.env'} cannot be read at line 2."
    assert "s3cret" not in str(refused)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:s3cret@h:5433/d", "d on h:5433 as u (from DATABASE_URL)"),
        ("postgresql://u:s3cret@[::1]:5433/d", "d on [::1]:5433 as u (from DATABASE_URL)"),
        ("postgresql://u:s3cret@h/d", "d on h:5432 as u (from DATABASE_URL)"),
        ("postgresql://u@h?password=s3cret", "u on h:5432 as u (from DATABASE_URL)"),
        ("postgresql://u:s3cret@/d?host=/run/pg", "d on /run/pg:5432 as u (from DATABASE_URL)"),
        ("postgresql://u:s3cret@a,b/d", "d on a,b:5432 as u (from DATABASE_URL)"),
    ],
)
def test_a_database_says_where_it_is_but_not_its_password(tmp_path: Path, url: str, said: str) -> None:
    database = find(tmp_path, DATABASE_URL=url)
    assert str(database) == said
    assert "s3cret" not in repr(database)
    assert "s3cret" not in repr(database.url())


def test_a_database_says_what_libpq_reads_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Mapping[str, str]
) -> None:
    for name, value in {"PGHOST": server["host"], "PGUSER": "postgres", "PGDATABASE": "template1"}.items():
        monkeypatch.setenv(name, value)
    database = find(tmp_path, "postgresql://")
    assert re.match(f"template1 on {re.escape(server['host'])}:5432 as postgres ", str(database))
    assert read(database, "SELECT current_database()") == ["template1"] * 3


@pytest.mark.parametrize(
    ("environ", "dotenv", "expected"),
    [
        ({}, "", ".ragschema/postgres"),
        ({"RAG_EMBEDDED_DIR": "data/pg"}, "", "data/pg"),
        ({"RAG_EMBEDDED_DIR": "/srv/pg"}, "", "/srv/pg"),
        ({}, "RAG_EMBEDDED_DIR=of-the-file", "of-the-file"),
        ({"RAG_EMBEDDED_DIR": "x"}, "RAG_EMBEDDED_DIR=of-the-file", "x"),
        ({"RAG_EMBEDDED_DIR": "~/pg"}, "", str(Path.home() / "pg")),
    ],
)
def test_the_embedded_directory(tmp_path: Path, environ: dict[str, str], dotenv: str, expected: str) -> None:
    assert find(tmp_path, dotenv=dotenv, **environ).embedded == (tmp_path / expected)
    assert embedded_directory(environ=environ, directory=tmp_path) == (tmp_path / expected)


def test_an_empty_embedded_directory_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, RAG_EMBEDDED_DIR="").message == "RAG_EMBEDDED_DIR is empty."


@pytest.mark.parametrize(
    "given", [sa.make_url("postgresql://u:s3cret@h/d"), Path("/s3cret"), b"postgresql://h/d"]
)
def test_an_object_in_the_place_of_a_url_is_refused(given: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=f"--database-url is {type(given).__name__}, not str"
    ) as refused:
        find_database(given)
    assert "s3cret" not in str(refused.value)
