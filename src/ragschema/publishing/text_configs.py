"""Text search configurations, as the server has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from ragschema.database.atomicity import savepoint
from ragschema.publishing.errors import ContentError
from ragschema.publishing.transactions import connection_of
from ragschema.schema.base import Executor


def check_text_configs(session: Executor, names: Iterable[str]) -> None:
    """Refuse text configurations that the server does not have, each as a cast to regconfig reads it.

    Raises:
        ContentError: One is such.
    """
    connection = connection_of(session)
    for name in names:
        try:
            with savepoint(connection):
                connection.execute(_AS_CONFIG, {"name": name})
        except sa.exc.DBAPIError as exc:
            if getattr(exc.orig, "sqlstate", None) not in _NO_CONFIG:
                raise
            raise ContentError(
                f"The server has no text search configuration {name!r}.",
                "Pass one of those that \\dF of psql lists: simple, english, german, ...",
            ) from exc


def find_refused(session: Executor, configs: Mapping[str, str | None]) -> dict[str, ContentError]:
    """Return why documents are refused whose text configuration the server does not have, by article id.

    Args:
        session: A session or connection.
        configs: What each document that is yet to be made is to have, by article id.
    """
    unknown: dict[str | None, ContentError] = {}
    for name in {each for each in configs.values() if each is not None} - {"simple"}:
        try:
            check_text_configs(session, [name])
        except ContentError as exc:
            unknown[name] = exc
    return {article_id: unknown[name] for article_id, name in configs.items() if name in unknown}


_AS_CONFIG = sa.text("SELECT CAST(CAST(:name AS text) AS regconfig)")
_NO_CONFIG = ("42704", "42602", "42601")  # undefined_object, invalid_name, syntax_error
