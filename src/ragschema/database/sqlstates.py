"""SQLSTATEs that decide what is done next, read from the driver's errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError

LOCK_CONFLICTS = ("55P03", "40P01")  # lock_not_available, deadlock_detected
_SESSION_ENDS = (
    *("57P01", "57P02", "57P03", "57P04", "57P05"),  # shutdown, crash, starting, database dropped, idle
    *("25P03", "25P04"),  # timeouts that end a session in its transaction
)
_OVERTAKEN = ("40001", "40P01")  # serialization_failure, deadlock_detected
MODEL_REFUSED = "RS001"
"""Raised by the SQL function ``rag_embedding_model``."""
_UNDEFINED = ("42P01", "42703", "42704", "42883")  # table, column, object, function


def first_cause(exc: BaseException) -> BaseException:
    """Return what went wrong first, where the end of an autocommit block hides it: Alembic commits there."""
    from sqlalchemy.exc import PendingRollbackError  # here: a status does without SQLAlchemy

    while isinstance(exc, PendingRollbackError) and exc.__context__ is not None:
        exc = exc.__context__
    return exc


def driver_error(exc: BaseException) -> psycopg.Error | None:
    """Return psycopg's error, which SQLAlchemy may have wrapped; None for anything else."""
    found = getattr(exc, "orig", exc)
    return found if isinstance(found, psycopg.Error) else None


def is_lock_conflict(exc: BaseException) -> bool:
    """Whether a statement met a lock, or a deadlock, and may be tried again."""
    error = driver_error(exc)
    return error is not None and error.sqlstate in LOCK_CONFLICTS


def is_connection_lost(exc: BaseException) -> bool:
    """Whether the session is gone: the server ended it, or nothing came from there any more."""
    error = driver_error(exc)
    if error is None:
        return False
    if error.sqlstate is None:  # libpq's own words; psycopg's about a misuse are no OperationalError
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate in _SESSION_ENDS or error.sqlstate.startswith("08")  # connection_exception


def is_node_away(exc: BaseException) -> bool:
    """Whether the session goes on, and a node of Citus that a statement needs did not answer it."""
    error = driver_error(exc)
    return error is not None and error.sqlstate == "08006" and "remote node" in str(error)


def is_overtaken(exc: DBAPIError) -> bool:
    """Whether a transaction was ended in favour of another one, and may be run again from its beginning."""
    return getattr(exc.orig, "sqlstate", None) in _OVERTAKEN


def is_reference_lost(exc: DBAPIError) -> bool:
    """Whether a row refers to one that another transaction has deleted, or changed in its key, meanwhile."""
    return getattr(exc.orig, "sqlstate", None) == "23503"  # foreign_key_violation


def is_model_refused(exc: DBAPIError) -> bool:
    """Whether a statement was refused because of its embedding model, which the message and its hint explain.

    None of that name or dimension, several of that dimension where none is named, one of another dimension, distance
    or index, or a retired one.

    Args:
        exc: Of any driver.
    """
    return getattr(exc.orig, "sqlstate", None) == MODEL_REFUSED


def is_undefined(exc: DBAPIError) -> bool:
    """Whether a statement named what is not there: a later revision makes it, or an earlier one did."""
    return getattr(exc.orig, "sqlstate", None) in _UNDEFINED


def server_message(exc: BaseException) -> str:
    """Return what the server said, or the driver where the connection was lost."""
    error = driver_error(exc)
    return (error and error.diag.message_primary) or str(error or exc).strip()
