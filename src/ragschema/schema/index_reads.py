"""Reads of one key's rows by an index, whatever the planner's averages make of the key, in the text of a statement.

Averages mislead the planner about the one document that is unlike the others, so statements that read a document do
not rest on them. Two shapes take the choice away:

- `is_one` is an equality twice over. By its average alone, a version may have half of all chunks, so that all of them
  are read. A range between a value and itself is expected to have a two hundredth of that, so that the index is always
  cheaper; and so little that the server sees nothing worth compiling, as it would of the range alone.
- `rows_of` is asked for each row of what stands before it, because PostgreSQL does not merge a subquery with an OFFSET
  into the statement around it, nor joins it in another order: a join of ten documents with their versions might begin
  with all versions there are.
"""

from __future__ import annotations


def is_one(column: str, key: str) -> str:
    """Return the condition that a column equals a key, for an index that begins with the column."""
    return f"{column} = {key} AND {column} BETWEEN {key} AND {key}"


def rows_of(table: str, column: str, key: str, columns: str = "*") -> str:
    """Return a lateral subquery: the rows of a table that have a key of what stands before it."""
    return f"LATERAL (SELECT {columns} FROM {table} WHERE {is_one(column, key)} OFFSET 0)"
