"""Operations for revisions: run in real revisions, and healed after what can go wrong."""

from __future__ import annotations

import ast
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

import servers
from added_revisions import THINGS, Revisions, copy_revisions, in_background, make_revisions, wait_for
from conftest import connect, dump_schema, made_database, run_psql
from ragschema import operations_v1
from ragschema.database.settings import Database
from ragschema.errors import RagSchemaError
from ragschema.operations_v1.constraints import not_null_steps
from ragschema.operations_v1.indexes import index_statement
from ragschema.revisions import scripts

BUILDING = (
    "SELECT pid FROM pg_stat_progress_create_index WHERE datname = current_database() AND index_relid <> 0"
)
IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'things_a_idx'::regclass"

INDEX = 'operations.concurrent_index("things_a_idx", "things", ["a"])'
UNIQUE_INDEX = 'operations.concurrent_index("things_a_idx", "things", ["a"], unique=True)'
DROP_INDEX = 'operations.drop_concurrent_index("things_a_idx")'
SET_NOT_NULL = 'operations.set_not_null("things", "a")'
SET_NOT_NULL_BY_CHECK = """
from ragschema.operations_v1.constraints import _set_not_null_by_check
if not op.get_context().as_sql:
    _set_not_null_by_check("things", "a")
"""
ADD_CHECK = 'operations.add_check("things", "things_a_check", "a > 0 AND b <> \' :y 100%\'")'
VALIDATE_CHECK = 'operations.validate_constraint("things", "things_a_check")'
ADD_KEY = """
operations.add_foreign_key("parts", "parts_thing_fkey", ["thing"], "things", ["id"], on_delete="CASCADE")
"""
VALIDATE_KEY = 'operations.validate_constraint("parts", "parts_thing_fkey")'
ADD_UNIQUE = 'operations.add_unique("things", "things_a_key", ["a"])'

# upgrade, downgrade, and plain SQL that must come to the same
OPERATIONS = {
    "index": (INDEX, DROP_INDEX, "CREATE INDEX things_a_idx ON things (a)"),
    "index with everything": (
        """
        operations.concurrent_index(
            "things_b_idx", "things", ["b", "(a::text || ':x') DESC"], unique=True, using="btree",
            with_={"fillfactor": 70}, where="a > 5 AND b <> ' :x 100%'", ops={"b": "text_pattern_ops"},
            include=["n"],
        )
        """,
        DROP_INDEX.replace("_a_", "_b_"),
        "CREATE UNIQUE INDEX things_b_idx ON things (b text_pattern_ops, (a::text || ':x') DESC) INCLUDE (n)"
        " WITH (fillfactor = 70) WHERE a > 5 AND b <> ' :x 100%'",
    ),
    "not null": (
        SET_NOT_NULL,
        'op.alter_column("things", "a", nullable=True)',
        "ALTER TABLE things ALTER COLUMN a SET NOT NULL",
    ),
    "check": (
        f"{ADD_CHECK}\n{VALIDATE_CHECK}",
        'op.drop_constraint("things_a_check", "things")',
        "ALTER TABLE things ADD CONSTRAINT things_a_check CHECK (a > 0 AND b <> ' :y 100%')",
    ),
    "foreign key": (
        f"{ADD_KEY.strip()}\n{VALIDATE_KEY}",
        'op.drop_constraint("parts_thing_fkey", "parts")',
        "ALTER TABLE parts ADD FOREIGN KEY (thing) REFERENCES things (id) ON DELETE CASCADE",
    ),
    "unique": (
        ADD_UNIQUE,
        'op.drop_constraint("things_a_key", "things")',
        "ALTER TABLE things ADD UNIQUE (a)",
    ),
    "backfill": (
        'operations.backfill("things", "b = \' :x 100%\'", "a > 50 AND b IS DISTINCT FROM \' :x 100%\'")',
        "operations.backfill('things', 'b = NULL', 'b IS NOT NULL')",
        "UPDATE things SET b = ' :x 100%' WHERE a > 50",
    ),
}


revisions = pytest.fixture(make_revisions)


SERVERS = [
    pytest.param(None, id="the embedded server"),
    *servers.server_parameters(),
]


@pytest.fixture(params=SERVERS)
def origin(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database at head, on each server."""
    if request.param is None:
        yield request.getfixturevalue("database")
        return
    with servers.at_head(request.param) as database:
        yield database


def test_each_operation_comes_to_the_same_as_plain_sql(origin: Database, tmp_path: Path) -> None:
    """Online and offline, on each server; also when it was done before; and a downgrade undoes it."""
    run_psql(origin, THINGS)
    before, name = dump_schema(origin), origin.parameters["dbname"]
    with (
        made_database(origin.parameters, name) as online,
        made_database(origin.parameters, name) as offline,
        made_database(origin.parameters, name) as by_hand,
    ):
        revisions = Revisions(copy_revisions(tmp_path), online)
        start = revisions.head()
        for upgrade, downgrade, _ in OPERATIONS.values():
            revisions.add(upgrade, downgrade)
        run_psql(by_hand, ";\n".join(plain for _, _, plain in OPERATIONS.values()))
        revisions.upgrade()
        run_psql(offline, revisions.sql(f"{start}:head"))
        assert facts(online) == facts(offline) == facts(by_hand)

        last = revisions.head()
        for upgrade, _, _ in OPERATIONS.values():
            revisions.add(upgrade)
        revisions.upgrade()
        assert facts(online) == facts(by_hand)

        run_psql(offline, revisions.sql(f"{last}:{start}"))
        revisions.downgrade(start)
        assert dump_schema(online) == dump_schema(offline) == before


def facts(database: Database) -> list[object]:
    asked = (
        "SELECT string_agg(things::text, ' ' ORDER BY id) FROM things",
        CONSTRAINTS,
        "SELECT string_agg(i, ' ' ORDER BY i) FROM (SELECT indexrelid::regclass::text FROM pg_index"
        " WHERE indisvalid) valid (i)",
    )
    return [dump_schema(database), *(Revisions(Path(), database).ask(sql) for sql in asked)]


# What each writes


@pytest.mark.parametrize(
    ("version", "statements"),
    [
        (
            18,
            """
            ALTER TABLE things ADD NOT NULL a NOT VALID
            ALTER TABLE things VALIDATE CONSTRAINT things_a_not_null
            """,
        ),
        (
            17,
            """
            ALTER TABLE things ADD CONSTRAINT things_a_not_null_check CHECK (a IS NOT NULL) NOT VALID
            ALTER TABLE things VALIDATE CONSTRAINT things_a_not_null_check
            ALTER TABLE things ALTER COLUMN a SET NOT NULL
            ALTER TABLE things DROP CONSTRAINT things_a_not_null_check
            """,
        ),
    ],
)
def test_not_null_by_server_version(version: int, statements: str) -> None:
    def texts(version: int | None) -> list[str]:
        steps = not_null_steps("things", "a", version)
        return [steps.add, steps.validate, *steps.after]

    expected = textwrap.dedent(statements).strip().splitlines()
    assert texts(version) == expected
    if version < 18:
        assert [texts(older) for older in (14, 15, 16, None)] == [expected] * 4


def test_not_null_by_a_check_comes_to_the_same_on_every_version(revisions: Revisions) -> None:
    """What servers before 18 get, run on this one: no name differs, and nothing is left."""
    revisions.add(SET_NOT_NULL_BY_CHECK)
    revisions.upgrade()
    found = dump_schema(revisions.database), revisions.ask(CONSTRAINTS)
    run_psql(
        revisions.database,
        "ALTER TABLE things ALTER a DROP NOT NULL; ALTER TABLE things ALTER a SET NOT NULL",
    )
    assert found == (dump_schema(revisions.database), revisions.ask(CONSTRAINTS))


CONSTRAINTS = "SELECT string_agg(conname || convalidated, ' ' ORDER BY conname) FROM pg_constraint"


def test_the_statement_of_an_index() -> None:
    assert index_statement("i", "t", ["a", "order", "lower(b)"]) == (
        'CREATE INDEX CONCURRENTLY i ON t (a, "order", lower(b))'
    )
    assert index_statement(
        "i",
        "t",
        ["embedding"],
        using="hnsw",
        ops={"embedding": "vector_cosine_ops"},
        with_={"m": 16, "ef_construction": 64},
        where="is_current",
    ) == (
        "CREATE INDEX CONCURRENTLY i ON t USING hnsw (embedding vector_cosine_ops)"
        " WITH (m = 16, ef_construction = 64) WHERE is_current"
    )
    assert index_statement("i", "t", ["a"], unique=True, include=["b", "c"], with_={"x": "it's"}) == (
        "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a) INCLUDE (b, c) WITH (x = 'it''s')"
    )
    with pytest.raises(ValueError, match="names what is not a column of it: b"):
        index_statement("i", "t", ["a"], ops={"b": "int4_ops"})


BLOCK = """
COMMIT;

SELECT set_config('ragschema.lock_timeout', current_setting('lock_timeout'), false);

SET lock_timeout = 0;

SELECT set_config('ragschema.statement_timeout', current_setting('statement_timeout'), false);

SET statement_timeout = 0;

{statements}

SELECT set_config('lock_timeout', current_setting('ragschema.lock_timeout'), false);

SELECT set_config('statement_timeout', current_setting('ragschema.statement_timeout'), false);

BEGIN;
"""


@pytest.mark.parametrize(
    ("upgrade", "before", "inside", "after"),
    [
        (INDEX, [], ["CREATE INDEX CONCURRENTLY things_a_idx ON things (a)", "ANALYZE things"], []),
        (DROP_INDEX, [], ["DROP INDEX CONCURRENTLY things_a_idx"], []),
        (
            ADD_CHECK,
            ["ALTER TABLE things ADD CONSTRAINT things_a_check CHECK (a > 0 AND b <> ' :y 100%') NOT VALID"],
            [],
            [],
        ),
        (VALIDATE_CHECK, [], ["ALTER TABLE things VALIDATE CONSTRAINT things_a_check"], []),
        (
            ADD_KEY,
            [
                "ALTER TABLE parts ADD CONSTRAINT parts_thing_fkey FOREIGN KEY (thing)"
                " REFERENCES things(id) ON DELETE CASCADE NOT VALID"
            ],
            [],
            [],
        ),
        (
            ADD_UNIQUE,
            [],
            ["CREATE UNIQUE INDEX CONCURRENTLY things_a_key ON things (a)", "ANALYZE things"],
            ["ALTER TABLE things ADD CONSTRAINT things_a_key UNIQUE USING INDEX things_a_key"],
        ),
        (
            SET_NOT_NULL,
            ["ALTER TABLE things ADD CONSTRAINT things_a_not_null_check CHECK (a IS NOT NULL) NOT VALID"],
            ["ALTER TABLE things VALIDATE CONSTRAINT things_a_not_null_check"],
            [
                "ALTER TABLE things ALTER COLUMN a SET NOT NULL",
                "ALTER TABLE things DROP CONSTRAINT things_a_not_null_check",
            ],
        ),
        (
            'operations.backfill("things", "b = \':x\'", "b IS NULL")',
            [],
            ["UPDATE things SET b = ':x' WHERE b IS NULL"],
            [],
        ),
    ],
)
def test_offline_sql(
    upgrade: str, before: list[str], inside: list[str], after: list[str], tmp_path: Path
) -> None:
    revisions = Revisions(copy_revisions(tmp_path), Database({}, "none"))
    revisions.add(upgrade)
    written = scripts.offline_sql(revisions.last(), "upgrade")
    block = BLOCK.format(statements=";\n\n".join(inside) + ";") if inside else ""
    expected = [*(f"{sql};" for sql in before), *block.split("\n"), *(f"{sql};" for sql in after)]
    assert without_comments(written) == without_comments("\n".join(expected))


def without_comments(sql: str) -> list[str]:
    return [line for line in sql.splitlines() if line and not line.startswith("--")]


def test_offline_sql_says_what_it_could_not_check(tmp_path: Path) -> None:
    revisions = Revisions(copy_revisions(tmp_path), Database({}, "none"))
    revisions.add(INDEX)
    assert (
        "-- Not checked offline: an INVALID things_a_idx that a failed run left must be dropped first."
        in scripts.offline_sql(revisions.last(), "upgrade")
    )


# Timeouts


@pytest.mark.parametrize("fails", [False, True])
def test_timeouts_are_off_in_the_block_and_given_back(fails: bool, revisions: Revisions) -> None:
    names = ("lock_timeout", "statement_timeout", "transaction_timeout")
    settings = " || ' ' || ".join(f"current_setting('{name}')" for name in names)
    run_psql(
        revisions.database,
        f"""
        CREATE TABLE seen (settings text);
        INSERT INTO things (a) VALUES ({-1 if fails else 1});
        CREATE FUNCTION look(a int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
            IF a < 0 THEN RAISE EXCEPTION 'inside: %', {settings}; END IF;
            RETURN a;
        END $$;
        """,
    )
    revisions.add(
        f"""
        op.execute("SET lock_timeout = '1234ms'")
        op.execute("SET statement_timeout = '56s'")
        op.execute("SET transaction_timeout = '78s'")
        try:
            operations.concurrent_index("things_a_idx", "things", ["look(a)"])
        except Exception as exc:
            assert {fails} and "inside: 0 0 0" in str(exc), exc
        op.execute("INSERT INTO seen SELECT {settings}")
        """
    )
    revisions.upgrade()
    assert revisions.ask("SELECT settings FROM seen") == "1234ms 56s 78s"
    assert revisions.ask(IS_VALID) is not fails


# Failed half way, and healed


def test_an_index_left_invalid_by_duplicates_is_built_anew(revisions: Revisions) -> None:
    run_psql(revisions.database, "INSERT INTO things (a) VALUES (1)")
    revision = revisions.add(UNIQUE_INDEX)
    with pytest.raises(RagSchemaError, match="could not create unique index"):
        revisions.upgrade()
    assert revisions.ask(IS_VALID) is False
    assert revisions.current() != revision
    with pytest.raises(RagSchemaError, match="could not create unique index"):
        revisions.upgrade()
    run_psql(revisions.database, "DELETE FROM things WHERE id = 101")
    revisions.upgrade()
    assert revisions.ask(IS_VALID) is True
    assert revisions.current() == revision


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("pg_cancel_backend", "canceling statement due to user request"),
        ("pg_terminate_backend", "terminating connection due to administrator command"),
    ],
)
def test_an_index_whose_build_was_ended_is_built_anew(end: str, said: str, revisions: Revisions) -> None:
    """An older transaction holds the build up, so that it can be ended in its middle."""
    revisions.add(INDEX)

    def end_the_build() -> None:
        pid = wait_for(revisions, BUILDING)
        revisions.ask(f"SELECT {end}({pid})")

    with connect(revisions.database) as writer, in_background(end_the_build), writer.transaction():
        writer.execute("INSERT INTO things (a) VALUES (101)")
        with pytest.raises(RagSchemaError, match=said):
            revisions.upgrade()
    assert revisions.ask(IS_VALID) is False
    revisions.upgrade()
    assert revisions.ask(IS_VALID) is True


def test_statistics_are_there_after_the_build(revisions: Revisions) -> None:
    revisions.add('operations.concurrent_index("things_a_idx", "things", ["(a % 7)"])')
    revisions.upgrade()
    assert revisions.ask("SELECT n_distinct::int FROM pg_stats WHERE tablename = 'things_a_idx'") == 7


@contextmanager
def build_held_up(revisions: Revisions) -> Iterator[object]:
    """Build the index in another session, which an older transaction holds up; yield its pid."""

    def build() -> None:
        with connect(revisions.database) as connection:
            connection.execute("CREATE INDEX CONCURRENTLY things_a_idx ON things (a)")

    with connect(revisions.database) as writer:
        writer.execute("SET idle_in_transaction_session_timeout = '20s'")  # rather a failure than a deadlock
        writer.execute("BEGIN")
        writer.execute("INSERT INTO things (a) VALUES (101)")
        with in_background(build):
            try:
                yield wait_for(revisions, BUILDING)
            finally:
                writer.execute("COMMIT")


@pytest.mark.parametrize("operation", [INDEX, DROP_INDEX])
def test_an_index_that_another_session_builds_is_not_touched(operation: str, revisions: Revisions) -> None:
    revisions.add(operation)
    with build_held_up(revisions) as pid:
        before = revisions.ask("SELECT 'things_a_idx'::regclass::oid")
        with pytest.raises(RagSchemaError) as refused:
            revisions.upgrade()
    assert refused.value.message.endswith(
        "Another session is building index things_a_idx, so it was left alone."
    )
    assert refused.value.evidence == f"pid {pid} (no application_name)"
    assert revisions.ask("SELECT 'things_a_idx'::regclass::oid") == before
    assert revisions.ask(IS_VALID) is True
    revisions.upgrade()
    assert revisions.ask("SELECT to_regclass('things_a_idx')::oid") == (
        before if operation == INDEX else None
    )


@pytest.fixture
def plain_owner(revisions: Revisions) -> Iterator[str]:
    """A role that may migrate, and no more."""
    database = revisions.database.parameters["dbname"]
    run_psql(
        revisions.database,
        f"""
        CREATE ROLE plain_owner;
        GRANT TEMPORARY ON DATABASE {database} TO plain_owner;
        GRANT ALL ON SCHEMA public TO plain_owner;
        GRANT ALL ON rag_alembic_version, rag_migration_history TO plain_owner;
        ALTER TABLE things OWNER TO plain_owner;
        """,
    )
    yield "plain_owner"
    run_psql(
        revisions.database,
        "REASSIGN OWNED BY plain_owner TO CURRENT_USER; DROP OWNED BY plain_owner; DROP ROLE plain_owner",
    )


def test_a_build_whose_progress_is_hidden_is_not_touched(revisions: Revisions, plain_owner: str) -> None:
    """Of a superuser's build a plain role sees no more than its pid."""
    revisions.add(f"op.execute('SET ROLE {plain_owner}')\n{INDEX}")
    with build_held_up(revisions), pytest.raises(RagSchemaError, match="Another session is building"):
        revisions.upgrade()
    assert revisions.ask(IS_VALID) is True


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("CREATE INDEX things_a_idx ON things (b)", "Index things_a_idx is already there, with another"),
        (
            "CREATE UNIQUE INDEX things_a_idx ON things (a)",
            "Index things_a_idx is already there, with another",
        ),
        (
            "CREATE INDEX things_a_idx ON things (a) WHERE a > 1",
            "expected: btree (a)\nfound:    btree (a) WHERE",
        ),
        ("CREATE INDEX things_a_idx ON parts (id)", "The name things_a_idx belongs to an index of parts"),
        ("CREATE TABLE things_a_idx ()", "The name things_a_idx belongs to something that is no index"),
    ],
)
def test_an_index_of_another_definition_is_refused(made: str, message: str, revisions: Revisions) -> None:
    run_psql(revisions.database, made)
    before = dump_schema(revisions.database)
    revisions.add(INDEX)
    with pytest.raises(RagSchemaError) as refused:
        revisions.upgrade()
    assert message in str(refused.value)
    assert dump_schema(revisions.database) == before


@pytest.mark.parametrize("by", [SET_NOT_NULL, SET_NOT_NULL_BY_CHECK])
def test_not_null_on_rows_with_null_fails_without_harm(by: str, revisions: Revisions) -> None:
    run_psql(revisions.database, "INSERT INTO things (b) VALUES ('no a')")
    before = dump_schema(revisions.database), revisions.ask(CONSTRAINTS)
    revision = revisions.add(by)
    with pytest.raises(RagSchemaError, match=r"contains null values|is violated by some row"):
        revisions.upgrade()
    assert (dump_schema(revisions.database), revisions.ask(CONSTRAINTS)) == before
    assert revisions.current() != revision
    run_psql(revisions.database, "DELETE FROM things WHERE a IS NULL")
    revisions.upgrade()
    assert revisions.current() == revision


@pytest.mark.parametrize(
    ("version", "by"), [(18, SET_NOT_NULL), (17, SET_NOT_NULL_BY_CHECK), (17, SET_NOT_NULL)]
)
@pytest.mark.parametrize("done", [1, 2, 3])
def test_not_null_goes_on_from_wherever_it_stopped(
    version: int, by: str, done: int, revisions: Revisions
) -> None:
    """The last case: a server upgraded in between."""
    run_psql(revisions.database, "ALTER TABLE things ALTER a SET NOT NULL")
    expected = dump_schema(revisions.database), revisions.ask(CONSTRAINTS)
    run_psql(revisions.database, "ALTER TABLE things ALTER a DROP NOT NULL")
    steps = not_null_steps("things", "a", version)
    for statement in [steps.add, steps.validate, *steps.after][:done]:
        run_psql(revisions.database, statement)
    revisions.add(by)
    revisions.upgrade()
    assert (dump_schema(revisions.database), revisions.ask(CONSTRAINTS)) == expected


def test_not_null_of_long_names_goes_on_too(revisions: Revisions) -> None:
    long = "a" * 60
    run_psql(revisions.database, f"ALTER TABLE things ADD {long} int DEFAULT 1")
    before = revisions.ask(CONSTRAINTS)
    run_psql(revisions.database, not_null_steps("things", long).add)
    revisions.add(SET_NOT_NULL_BY_CHECK.replace('"a"', f'"{long}"'))
    revisions.upgrade()
    run_psql(revisions.database, f"ALTER TABLE things ALTER {long} DROP NOT NULL")
    assert revisions.ask(CONSTRAINTS) == before


def test_not_null_of_a_column_that_is_not_there_is_refused(revisions: Revisions) -> None:
    revisions.add('operations.set_not_null("things", "zzz")')
    with pytest.raises(RagSchemaError, match="There is no column zzz in a table things"):
        revisions.upgrade()


@pytest.mark.parametrize(
    ("add", "validate", "violate", "mend", "name"),
    [
        (
            ADD_CHECK,
            VALIDATE_CHECK,
            "INSERT INTO things (a, b) VALUES (0, '')",
            "DELETE FROM things WHERE a = 0",
            "things_a_check",
        ),
        (
            ADD_KEY.strip(),
            VALIDATE_KEY,
            "INSERT INTO parts (thing) VALUES (0)",
            "DELETE FROM parts WHERE thing = 0",
            "parts_thing_fkey",
        ),
    ],
)
@pytest.mark.parametrize("in_one_revision", [True, False])
def test_a_constraint_that_rows_violate_binds_new_rows_until_they_are_mended(
    add: str,
    validate: str,
    violate: str,
    mend: str,
    name: str,
    in_one_revision: bool,
    revisions: Revisions,
) -> None:
    run_psql(revisions.database, violate)
    if in_one_revision:
        revision = revisions.add(f"{add}\n{validate}")
    else:
        revisions.add(add)
        revision = revisions.add(validate)
    with pytest.raises(RagSchemaError, match=name):
        revisions.upgrade()
    is_valid = f"SELECT convalidated FROM pg_constraint WHERE conname = '{name}'"
    assert revisions.ask(is_valid) is False
    with pytest.raises(psycopg.IntegrityError):
        revisions.ask(violate)
    run_psql(revisions.database, mend)
    revisions.upgrade()
    assert revisions.ask(is_valid) is True
    assert revisions.current() == revision


@pytest.mark.parametrize(
    ("made", "operation"),
    [
        ("ALTER TABLE things ADD CONSTRAINT things_a_check CHECK (a > -1)", ADD_CHECK),
        ("ALTER TABLE parts ADD CONSTRAINT parts_thing_fkey FOREIGN KEY (thing) REFERENCES things", ADD_KEY),
        ("ALTER TABLE parts ADD CONSTRAINT parts_thing_fkey CHECK (thing > 1)", ADD_KEY),
        ("ALTER TABLE things ADD CONSTRAINT things_a_key UNIQUE (a, b)", ADD_UNIQUE),
    ],
)
def test_a_constraint_of_another_definition_is_refused(
    made: str, operation: str, revisions: Revisions
) -> None:
    run_psql(revisions.database, made)
    before = dump_schema(revisions.database)
    revisions.add(operation.strip())
    with pytest.raises(RagSchemaError, match="is already there, with another definition"):
        revisions.upgrade()
    assert dump_schema(revisions.database) == before


def test_a_foreign_key_is_recognised_with_all_that_it_says(revisions: Revisions) -> None:
    revisions.add(
        """
        operations.add_foreign_key(
            "parts", "parts_thing_fkey", ["thing"], "things", ["id"], on_delete="SET NULL",
            on_update="CASCADE", initially_deferred=True,
        )
        """
    )
    run_psql(
        revisions.database,
        "ALTER TABLE parts ADD FOREIGN KEY (thing) REFERENCES things ON DELETE SET NULL ON UPDATE CASCADE"
        " DEFERRABLE INITIALLY DEFERRED",
    )
    before = dump_schema(revisions.database)
    revisions.upgrade()
    run_psql(revisions.database, "ALTER TABLE parts DROP CONSTRAINT parts_thing_fkey")
    revisions.downgrade()
    revisions.upgrade()
    run_psql(revisions.database, "ALTER TABLE parts VALIDATE CONSTRAINT parts_thing_fkey")
    assert dump_schema(revisions.database) == before


def test_unique_on_duplicates_fails_and_is_healed(revisions: Revisions) -> None:
    run_psql(revisions.database, "INSERT INTO things (a) VALUES (1)")
    revision = revisions.add(ADD_UNIQUE)
    with pytest.raises(RagSchemaError, match="could not create unique index"):
        revisions.upgrade()
    run_psql(revisions.database, "DELETE FROM things WHERE id = 101")
    revisions.upgrade()
    definition = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'things_a_key'"
    assert revisions.ask(definition) == "UNIQUE (a)"
    assert revisions.current() == revision


def test_unique_goes_on_from_an_index_that_is_built(revisions: Revisions) -> None:
    run_psql(revisions.database, "CREATE UNIQUE INDEX things_a_key ON things (a)")
    index = revisions.ask("SELECT 'things_a_key'::regclass::oid")
    revisions.add(ADD_UNIQUE)
    revisions.upgrade()
    assert revisions.ask("SELECT conindid FROM pg_constraint WHERE conname = 'things_a_key'") == index


def test_names_mean_the_schema_being_migrated(revisions: Revisions) -> None:
    """Indexes, constraints and columns of the same names in public are another schema's affair."""
    run_psql(
        revisions.database,
        "CREATE SCHEMA tenant; SET search_path = tenant; " + THINGS + "RESET search_path;"
        "CREATE INDEX things_a_idx ON things (b);"
        "ALTER TABLE things ALTER a SET NOT NULL, ADD CONSTRAINT things_a_check CHECK (a < 1000),"
        " ADD CONSTRAINT things_a_key UNIQUE (b)",
    )
    revisions.schema = "tenant"
    fill = 'operations.backfill("things", "b = id::text", "b LIKE \'thing%\'")'
    steps = (
        INDEX,
        SET_NOT_NULL,
        ADD_CHECK,
        VALIDATE_CHECK,
        ADD_UNIQUE,
        fill,
    )
    revisions.add("\n".join(steps), DROP_INDEX)
    in_public = revisions.ask(IN_SCHEMA.format("public"))
    revisions.upgrade()
    assert revisions.ask(IN_SCHEMA.format("public")) == in_public
    assert revisions.ask(IN_SCHEMA.format("tenant")) == (
        "things_a_idx USING btree (a), things_a_key USING btree (a), things_pkey USING btree (id)"
    )
    assert revisions.ask("SELECT count(*) FROM tenant.things WHERE b = id::text") == 100
    assert revisions.ask("SELECT count(*) FROM public.things WHERE b = id::text") == 0
    revisions.downgrade()
    assert revisions.ask(IN_SCHEMA.format("public")) == in_public
    assert "things_a_idx" not in str(revisions.ask(IN_SCHEMA.format("tenant")))


IN_SCHEMA = """
SELECT string_agg(indexname || ' USING ' || split_part(indexdef, ' USING ', 2), ', ' ORDER BY indexname)
FROM pg_indexes WHERE schemaname = '{}' AND tablename = 'things'
"""


# Frozen


def test_operations_import_nothing_of_ragschema_that_could_change() -> None:
    allowed = {"alembic", "sqlalchemy", "ragschema.operations_v1"}
    for path in Path(operations_v1.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or "."]
            else:
                continue
            for module in modules:
                is_allowed = any(f"{module}.".startswith(f"{name}.") for name in allowed)
                assert is_allowed or module.partition(".")[0] in sys.stdlib_module_names, (path, module)
