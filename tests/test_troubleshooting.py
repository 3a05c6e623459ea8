"""Every error of ours, and what servers say, is found in docs/troubleshooting.md by its first words."""

from __future__ import annotations

import re
from collections.abc import Mapping

import psycopg
import pytest

from conftest import ROOT, connect
from errors_of_source import FILLED_IN, RaisedError, read_errors
from ragschema.database.settings import Database

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()


def plain(text: str) -> str:
    """Return a text as it is compared: without the marks that may follow a word."""
    return " ".join(re.sub(r"[.,:;]", " ", text.replace(FILLED_IN, f" {FILLED_IN} ")).split())


def is_found(error: RaisedError) -> bool:
    return plain(error.first_words) in plain(PAGE)


def test_every_error_is_found_by_its_first_words() -> None:
    missing = [
        f"{error.message}  ({error.kind}, {error.place})"
        for error in read_errors()
        if error.message and re.search(r"\w", error.message.replace(FILLED_IN, "")) and not is_found(error)
    ]
    shown = "\n".join(missing)
    assert missing == [], f"Add rows to docs/troubleshooting.md, with what it means and what to do:\n{shown}"


def test_the_errors_are_collected() -> None:
    errors = read_errors()
    assert len(errors) > 140
    kinds = {error.kind for error in errors}
    assert {"ConfigurationError", "PublishingError", "JobError", "QueryError", "EmbeddingError"} <= kinds
    messages = {error.message for error in errors}
    assert "The migration failed before its first revision" in messages  # by way of a function
    assert "There is no embedded server in …, and no setting names another database." in messages
    invented = RaisedError("RagSchemaError", "The moon … is full.", "nowhere")
    assert invented.first_words == "The moon … is full"
    assert not is_found(invented)


@pytest.mark.parametrize(
    "words",
    ["Revision … failed and was rolled back", "The revisions have … heads", "… of … jobs were not …"],
)
def test_words_that_a_function_puts_together_are_there_too(words: str) -> None:
    assert plain(words) in plain(PAGE)


def test_every_row_says_what_to_do() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| error")]
    assert len(rows) > 100
    for row in rows:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        assert len(cells) == 2, row
        assert cells[0].startswith("`") or cells[0].endswith("words"), row
        assert cells[1], row


def test_what_a_server_says_is_there(server: Mapping[str, str], empty_database: Database) -> None:
    said = []
    for parameters in ({"dbname": "nope"}, {"user": "nobody_here"}, {"port": "1"}):
        with pytest.raises(psycopg.OperationalError) as refused:
            psycopg.connect(Database({**server, **parameters}, "the tests").libpq_url())
        said.append(str(refused.value))
    with connect(empty_database) as connection:
        for before, statement in (
            ("", "SELECT * FROM rag_documents"),
            ("", "SELECT NULL::vector"),
            ("CREATE TABLE t (n int); CREATE VIEW v AS TABLE t", "DROP TABLE t"),
            ("SET default_transaction_read_only = on", "CREATE TABLE another ()"),
            ("SET default_transaction_read_only = off; SET ROLE pg_monitor", "CREATE TABLE public.theirs ()"),
            ("", "TABLE t"),
            ("", "ALTER TABLE t ADD COLUMN theirs int"),
            ("", "CREATE EXTENSION vector"),
            ("RESET ROLE; SET statement_timeout = 1", "SELECT pg_sleep(5)"),
            ("SET statement_timeout = 0", "CREATE EXTENSION no_such_extension"),
        ):
            connection.execute(before.encode())
            with pytest.raises(psycopg.Error) as failed:
                connection.execute(statement.encode())
            said.append(str(failed.value))
    templates = re.findall(r"`([^`]+)`", PAGE.partition("## What the server says")[2])
    patterns = [
        re.compile(".+".join(map(re.escape, re.split(r" ?\.\.\. ?|…", each))), re.S) for each in templates
    ]
    for text in said:
        text = text.replace("no_such_extension", "vector")
        assert any(pattern.search(text) for pattern in patterns), text


def test_refusals_of_the_function_that_searches_ask_are_there_too() -> None:
    (newest,) = [*(ROOT / "alembic" / "routines").glob("rag_embedding_model_v*.sql")][-1:]
    messages = re.findall(r"MESSAGE = pg_catalog\.concat\((.*?)\),\s+HINT", newest.read_text(), re.DOTALL)
    assert len(messages) == 8
    for message in messages:
        text = re.sub(r"[^']*'((?:[^']|'')*)'[^']*", rf"{FILLED_IN}\1{FILLED_IN}", message)
        first, *_ = [part for part in text.strip(FILLED_IN).split(f"{FILLED_IN}{FILLED_IN}") if part.strip()]
        assert plain(first) in plain(PAGE), message
