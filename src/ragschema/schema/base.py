"""The declarative base: naming convention, type map and metadata of every model."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, TypeAlias
from uuid import UUID

from sqlalchemy import DDL, Connection, DateTime, MetaData, Table, Text, event, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

Executor: TypeAlias = Session | Connection
"""Who holds the transaction that a function takes part in: a session, or a connection."""


def connection_in(session: Executor) -> Connection:
    """Return the connection of that transaction; a session flushes nothing for it."""
    return session if isinstance(session, Connection) else session.connection()


# PostgreSQL's own default names, so that a database made by plain SQL needs no renames.
NAMING_CONVENTION = {
    "pk": "%(table_name)s_pkey",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "ck": "%(table_name)s_%(constraint_name)s_check",
}


Id = Annotated[UUID, mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))]
Timestamp = Annotated[datetime, mapped_column(server_default=text("CURRENT_TIMESTAMP"))]


class Base(AsyncAttrs, DeclarativeBase):
    """Base of all models; ``Base.metadata`` is what the revisions amount to at head."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {
        str: Text(),
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
    }


event.listen(Base.metadata, "before_create", DDL("CREATE EXTENSION IF NOT EXISTS vector"))  # type: ignore[no-untyped-call]


def storage_parameters(**parameters: float) -> dict[str, Any]:
    """Return the arguments of a table with storage parameters, which SQLAlchemy knows since 2.1."""
    if "with" in dict(PGDialect.construct_arguments or ())[Table]:
        return {"postgresql_with": parameters}
    options = ", ".join(f"{name} = {value}" for name, value in parameters.items())
    alter = DDL(f"ALTER TABLE %(fullname)s SET ({options})")  # type: ignore[no-untyped-call]
    return {"listeners": [("after_create", alter)]}
