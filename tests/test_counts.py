"""Words of messages: one row is no rows, and a count of things says so everywhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from errors_of_source import SOURCE, parsed_sources
from ragschema.words import counted


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1200, "1,200 rows")]
)
def test_a_number_agrees_with_its_noun(number: int, said: str) -> None:
    assert counted(number, "row") == said


def test_an_irregular_plural_is_given() -> None:
    assert counted(2, "index", "indexes") == "2 indexes"


def counts_before_nouns() -> Iterator[str]:
    """Yield the f-strings in which a plural follows the length of something."""
    for path, tree in parsed_sources().items():
        if path.relative_to(SOURCE).parts[0].startswith("operations_v"):  # frozen
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.JoinedStr):
                continue
            for value, text in zip(node.values, node.values[1:], strict=False):
                is_count = isinstance(value, ast.FormattedValue) and "len(" in ast.unparse(value.value)
                words = str(text.value).split() if isinstance(text, ast.Constant) else []
                if (
                    is_count
                    and not ast.unparse(value).count("counted")
                    and words
                    and words[0].strip(",.:").endswith("s")
                ):
                    yield f"{path.relative_to(SOURCE)}: {ast.unparse(value)} {words[0]}"


def test_no_message_puts_a_plural_after_a_count_that_may_be_one() -> None:
    more_than_one = {
        "cli/jobs.py: {len(ids)} jobs",
        "revisions/files.py: {len(heads)} heads:",
        "state/status.py: {len(rows)} rows:",
    }
    assert set(counts_before_nouns()) - more_than_one == set()
