"""Settings of a search, for one transaction."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import String, bindparam, text
from sqlalchemy.orm import Session

from ragschema.queries.arguments import QueryError
from ragschema.queries.planner_hints import CHOICE, EF_SEARCH_MOST
from ragschema.schema.embedding_models import EmbeddingModel

IterativeScan = Literal["off", "relaxed_order", "strict_order"]

_ORDERS = ("off", "relaxed_order", "strict_order")
_MOST = 2_147_483_647


def search_settings(
    session: Session,
    *,
    ef_search: int | None = None,
    iterative_scan: IterativeScan | None = None,
    max_scan_tuples: int | None = None,
    scan_mem_multiplier: float | None = None,
) -> None:
    """Set how HNSW indexes are searched until the transaction ends, in one round trip.

    Searches need none of it to be right. With AsyncSession: ``await session.run_sync(search_settings,
    ef_search=100)``. On Citus they are set on the tenant's node, which ``SET LOCAL`` does not reach.

    Args:
        session: Its transaction is begun, if it is not.
        ef_search: Candidates kept while the index is walked, 1 to 1000; searches keep 80 by default, or as many as
            rows are wanted. More find more of the true neighbours, and take longer.
        iterative_scan: The order in which a scan that goes on hands rows over. ``off`` is turned on again by the
            first search of this package.
        max_scan_tuples: Index entries after which a scan gives up; pgvector's default is 20,000.
        scan_mem_multiplier: Memory of one scan in multiples of work_mem, 1 to 1000.

    Raises:
        QueryError: A value is out of range, or the server's pgvector is too old to know the setting.
    """
    _check("ef_search", ef_search, 1, EF_SEARCH_MOST)
    _check("max_scan_tuples", max_scan_tuples, 1, _MOST)
    _check("scan_mem_multiplier", scan_mem_multiplier, 1, 1000)
    if iterative_scan is not None and iterative_scan not in _ORDERS:
        raise QueryError(f"iterative_scan is {iterative_scan!r}.", f"Pass one of {', '.join(_ORDERS)}.")
    given = {
        "ef_search": ef_search,
        "iterative_scan": iterative_scan,
        "max_scan_tuples": max_scan_tuples,
        "scan_mem_multiplier": scan_mem_multiplier,
    }
    values = {name: str(value) for name, value in given.items() if value is not None}
    if not values:
        return
    columns = ", ".join(
        f"CASE WHEN current_setting('hnsw.{name}', true) IS NOT NULL"
        f" THEN set_config('hnsw.{name}', :{name}, true) END"
        for name in values
    )
    # The constant loads pgvector, without which a name that it does not know would pass.
    if ef_search is not None:  # a search is not to take 40 for the default
        columns += f", set_config('{CHOICE}', 'chosen', true)"
    # And the table, which has a few rows, lets Citus carry it out where it carries a search out.
    there = f"(SELECT count(*) FROM {EmbeddingModel.__tablename__}) AS there"
    statement = text(f"SELECT {columns} FROM (SELECT CAST('[1]' AS vector) OFFSET 0) AS loaded, {there}")
    statement = statement.bindparams(*(bindparam(name, type_=String()) for name in values))
    for name, value in zip(values, session.execute(statement, values).one(), strict=False):
        if value is None:
            raise QueryError(
                f"The server's pgvector has no setting hnsw.{name}.",
                "Update the extension: iterative scans came with pgvector 0.8.",
            )


def _check(name: str, value: float | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise QueryError(f"{name} is {value}.", f"Pass {least} to {most}.")
