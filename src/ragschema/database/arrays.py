"""Arrays that statements take, which psycopg sends in its binary format: a list of ten texts costs it a thirtieth.

A plain list is sent as text, with each of its values quoted, and of the type that its values seem to have, so that a
statement is prepared once for each such type. These say which they are, empty ones too. Other drivers take the lists
that they are.
"""

from __future__ import annotations

from uuid import UUID

import psycopg
from psycopg.pq import Format


class Uuids(list[UUID | None]):
    """An array of ``uuid``."""


class Texts(list[str | None]):
    """An array of ``text``."""


class Integers(list[int | None]):
    """An array of ``integer``."""


class SmallIntegers(list[int | None]):
    """An array of ``smallint``."""


for _array, _element in ((Uuids, "uuid"), (Texts, "text"), (Integers, "int4"), (SmallIntegers, "int2")):
    _dumper = psycopg.adapters.get_dumper_by_oid(psycopg.adapters.types[_element].array_oid, Format.BINARY)
    psycopg.adapters.register_dumper(_array, _dumper)
