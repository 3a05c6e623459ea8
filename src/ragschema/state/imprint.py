"""Imprint of a schema: the rows of the catalogue that its printed form is made of; alike where schemas are.

To print a catalogue takes PostgreSQL ten times as long as to read these rows, and opens every table. So a schema whose
imprint equals that of a printed one needs no printing. Two imprints of one connection are equal only if the catalogues
are: everything that is printed is in them, and what differs by schema alone has its name put in its place. Catalogues
may be equal and imprints not, as where columns are in another order: then it is printed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from os.path import commonprefix
from typing import Any

from psycopg import sql

from ragschema.database.citus import HAS_CITUS
from ragschema.database.members import members
from ragschema.database.prepared import call, keeps_prepared
from ragschema.database.server import BOOKKEEPING, Connection

KNOWN_SERVERS = range(14, 19)
"""The versions of PostgreSQL whose catalogues have the columns below and no others that matter."""

PATH = "SELECT set_config('search_path', 'pg_catalog', true), set_config('plan_cache_mode', 'force_generic_plan', true)"
"""What is asked before: a plan holds for one search_path."""

_TYPES = {"schema": "text", "bookkeeping": "text[]"}

_OURS = (
    r"relname LIKE 'rag\_%%' AND relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT relname = ANY (%(bookkeeping)s)"
)

# Everything is sorted by name; "ours" are as in catalogue.py, "there" is every relation but indexes.
_QUESTION = rf"""
WITH place AS MATERIALIZED (
    SELECT n.oid, n.nspname, e.extnamespace, x.nspname AS extension
    FROM pg_namespace n LEFT JOIN pg_extension e ON e.extname = 'vector'
    LEFT JOIN pg_namespace x ON x.oid = e.extnamespace WHERE n.nspname = %(schema)s
), there AS MATERIALIZED (
    SELECT c.* FROM pg_class c WHERE c.oid IN ({members("pg_class")}) ORDER BY c.relname
), ours AS MATERIALIZED (SELECT * FROM there WHERE {_OURS}
), functions AS MATERIALIZED (
    SELECT * FROM pg_proc WHERE oid IN ({members("pg_proc")}) ORDER BY proname, proargtypes
), types AS MATERIALIZED (SELECT * FROM pg_type WHERE oid IN ({members("pg_type")}) ORDER BY typname
)
SELECT place.extension::text,
NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'off'
    AND current_setting('session_replication_role') <> 'replica' AND current_setting('server_encoding') <> 'SQL_ASCII'
    AND current_setting('track_counts') = 'on'
    AND has_schema_privilege(place.oid, 'USAGE') AND has_schema_privilege(place.oid, 'CREATE')
    AND has_schema_privilege(place.extnamespace, 'USAGE')
    AND NOT EXISTS (SELECT FROM there c WHERE c.relname LIKE 'rag\_%%' AND c.relkind IN ('r', 'p')
        AND (NOT pg_has_role(c.relowner, 'USAGE') OR c.relrowsecurity AND row_security_active(c.oid)))
    AND NOT EXISTS (SELECT FROM functions WHERE proname NOT LIKE 'rag\_%%')
    AND NOT EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass AND refobjid = place.oid
        AND classid = 'pg_operator'::regclass),
(SELECT string_agg(concat_ws(' ', t.oid::int8, t.relfilenode::int8, ARRAY(SELECT attnum FROM pg_attribute
        WHERE attrelid = t.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum)), E'\n')
    FROM there t WHERE t.relkind IN ('r', 'p')),
(SELECT string_agg(concat_ws(' ', oid, name), E'\n') FROM (
    SELECT t.oid, t.typname::text FROM types t
    UNION ALL SELECT t.typarray, t.typname || '[]' FROM types t WHERE t.typarray <> 0
    UNION ALL SELECT t.oid, 'row ' || t.typname FROM functions p
        JOIN pg_type t ON t.oid = p.prorettype AND t.typnamespace = place.oid AND t.typtype = 'c'
    UNION ALL SELECT o.reltype, 'row ' || o.relname FROM ours o
        WHERE EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = o.oid AND t.tgqual::text LIKE '%% :varattno 0 %%')
    UNION ALL SELECT p.oid, concat_ws(' ', 'function', p.proname, p.proargtypes)
        FROM functions p WHERE p.prorettype <> 'trigger'::regtype AND EXISTS (SELECT FROM pg_depend d
            WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid)) named (oid, name)),
(SELECT string_agg(concat_ws(' ', e.oid, t.typname, quote_literal(e.enumlabel)), E'\n')
    FROM types t JOIN pg_enum e ON e.enumtypid = t.oid),
(SELECT string_agg(concat_ws(' ', proname, array_to_string(proconfig, ' ')), E'\n')
    FROM functions WHERE proname LIKE 'rag\_%%'),
place.extnamespace = place.oid,
(SELECT string_agg(concat_ws(' ', o.relname, o.relkind, o.relpersistence, o.relreplident,
        o.relrowsecurity, o.relforcerowsecurity, o.relrowsecurity AND row_security_active(o.oid),
        o.reloptions, '/', (SELECT reloptions FROM pg_class WHERE oid = o.reltoastrelid), '/',
        (SELECT string_agg(coalesce((SELECT relname::text FROM ours WHERE oid = inhparent), inhparent::text),
            ',' ORDER BY inhseqno) FROM pg_inherits WHERE inhrelid = o.oid), '/',
        o.relpartbound), E'\n') FROM ours o),
(SELECT string_agg(concat_ws(' ', o.relname, p.partstrat, p.partattrs, p.partclass, p.partcollation, p.partexprs),
        E'\n') FROM ours o JOIN pg_partitioned_table p ON p.partrelid = o.oid WHERE o.relkind = 'p'),
(SELECT string_agg(concat_ws(' ', o.relname, d.objsubid, octet_length(d.description), d.description),
        E'\n' ORDER BY o.relname, d.objsubid)
    FROM ours o JOIN pg_description d ON d.objoid = o.oid AND d.classoid = 'pg_class'::regclass),
(SELECT string_agg(concat_ws(' ', p.proname, p.prolang, p.procost, p.prorows, p.provariadic, p.prosupport,
        p.prokind, p.prosecdef, p.proleakproof, p.proisstrict, p.proretset, p.provolatile, p.proparallel,
        p.pronargdefaults, p.proargmodes, '/', p.proargnames, '/', p.protrftypes, '/', p.probin, '/',
        octet_length(p.prosrc), p.prosrc), E'\n')
    FROM functions p WHERE p.proname LIKE 'rag\_%%'),
(SELECT string_agg(concat_ws(' ', c.relname, r.rulename, r::text), E'\n' ORDER BY c.relname, r.rulename)
    FROM ours c JOIN pg_rewrite r ON r.ev_class = c.oid AND r.rulename <> '_RETURN'),
(SELECT string_agg(concat_ws(' ', t.typname, t.typtype, t.typcollation, t.typstorage,
        ARRAY(SELECT enumlabel FROM pg_enum WHERE enumtypid = t.oid ORDER BY enumsortorder)), E'\n')
    FROM types t),
(SELECT string_agg(extname, ' ') FROM pg_extension WHERE extname = 'uuid-ossp'),
(SELECT string_agg(concat_ws(' ', o.relname, a.attnum, a.attname, '', a.atttypid, '', a.atttypmod, a.attcollation,
        a.attnotnull, a.attidentity, a.attgenerated, a.attstorage, a.attcompression, t.typcollation, t.typstorage),
        E'\n' ORDER BY o.relname, a.attnum)
    FROM ours o JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid),
(SELECT string_agg(concat_ws(' ', o.relname, d.adnum, d.adbin), E'\n' ORDER BY o.relname, d.adnum)
    FROM ours o JOIN pg_attrdef d ON d.adrelid = o.oid),
(SELECT string_agg(concat_ws(' ', o.relname, c.conname, c.contype, c.condeferrable, c.condeferred, c.convalidated,
        (SELECT p.conrelid = c.conrelid FROM pg_constraint p WHERE c.conparentid <> 0 AND p.oid = c.conparentid),
        '/', coalesce((SELECT relname::text FROM ours WHERE oid = c.confrelid), c.confrelid::text), '/',
        (SELECT relname FROM pg_class WHERE oid = c.conindid), c.confupdtype, c.confdeltype, c.confmatchtype,
        c.connoinherit, '/', c.conkey, '/', c.confkey, '/', c.conexclop, '/', {{constraints}} c.conbin),
        E'\n' ORDER BY o.relname, c.contype, c.conname)
    FROM ours o JOIN pg_constraint c ON c.conrelid = o.oid WHERE c.contype <> 'n' OR NOT c.convalidated),
(SELECT string_agg(concat_ws(' ', o.relname, x.relname, x.relam, x.reloptions, '/', i.indisunique, i.indisprimary,
        i.indisexclusion, i.indimmediate, i.indisvalid, i.indisready, i.indnkeyatts, i.indkey, '/', i.indcollation,
        '/', i.indclass, '/', i.indoption, '/', {{indexes}}
        (SELECT string_agg(concat_ws(' ', attnum, attoptions), ',' ORDER BY attnum) FROM pg_attribute
            WHERE attrelid = x.oid AND attnum > 0 AND attoptions IS NOT NULL), '/', i.indexprs, '/', i.indpred),
        E'\n' ORDER BY o.relname, x.relname)
    FROM ours o JOIN pg_index i ON i.indrelid = o.oid JOIN pg_class x ON x.oid = i.indexrelid),
(SELECT string_agg(concat_ws(' ', o.relname, t.tgname, t.tgparentid = 0, t.tgtype, t.tgenabled, t.tgisinternal,
        t.tgconstraint <> 0, t.tgconstrrelid, t.tgdeferrable, t.tginitdeferred, t.tgattr, '/', t.tgargs, '/',
        t.tgoldtable, '/', t.tgnewtable, '/', coalesce((SELECT proname::text FROM functions WHERE oid = t.tgfoid),
        t.tgfoid::text), t.tgqual), E'\n' ORDER BY o.relname, t.tgname)
    FROM ours o JOIN pg_trigger t ON t.tgrelid = o.oid AND (NOT t.tgisinternal OR t.tgenabled <> 'O')),
(SELECT string_agg(concat_ws(' ', p.proname, '', p.prorettype, '', replace(p.proargtypes::text, ' ', '  '), '', '/',
        p.proallargtypes, '/', p.proargdefaults, '/', p.prosqlbody), E'\n')
    FROM functions p WHERE p.proname LIKE 'rag\_%%'),
(SELECT string_agg(concat_ws(' ', c.relname, p.polname, p.polcmd, p.polpermissive, p.polroles, '/', p.polqual, '/',
        p.polwithcheck), E'\n' ORDER BY c.relname, p.polname)
    FROM ours c JOIN pg_policy p ON p.polrelid = c.oid)
FROM place WHERE NOT {HAS_CITUS} -- where the same rows are right in one schema, and drift in another
"""
_SINCE = {
    "constraints": {"conenforced": 18, "conperiod": 18, "confdelsetcols": 15},
    "indexes": {"indnullsnotdistinct": 15},
}


_CONSTANT = re.compile(r"\[ -?\d+ -?\d+ -?\d+ -?\d+ 0 0 0 0 \]")  # of four bytes
_SAME = 8  # columns of the key that are alike in every schema as they are; in the rest are oids


@dataclass(frozen=True)
class Imprint:
    """What was read of a schema.

    Attributes:
        key: What compares: equal keys of one connection mean equal catalogues.
        extension: The schema of pgvector; None where there is none.
        files: Of each table, by its oid, the number of its file.
        columns: Of each table, by its oid, the numbers of its columns.
        is_ordinary: Whether this session may change the schema: it may write, has the rights, owns the tables, sees
            their rows; deleted rows are counted; no function or operator of others is there.
    """

    key: tuple[Any, ...]
    extension: str | None
    files: dict[int, str]
    columns: dict[int, frozenset[str]]
    is_ordinary: bool


def ask(connection: Connection, schema: str) -> sql.Composed | None:
    """Return the call of the statement that `read_imprint` reads, to be run in a transaction after `PATH`.

    It is prepared: to plan it takes longer than to run it.

    Returns:
        None if the connection keeps nothing prepared, or this server's catalogue is not known.
    """
    version = connection.info.server_version // 10000
    if version not in KNOWN_SERVERS or not keeps_prepared(connection):
        return None
    values = {"schema": schema, "bookkeeping": list(BOOKKEEPING)}
    return call(connection, _question(version), _TYPES, values)


@cache
def _question(version: int) -> str:
    extra = {
        place: "".join(f"{name}, '/', " for name, since in names.items() if version >= since)
        for place, names in _SINCE.items()
    }
    return _QUESTION.format(**extra)


def take_imprint(connection: Connection, schema: str) -> Imprint | None:
    """Read the imprint of a schema; None if that cannot be asked here, there is no such schema, or there is Citus.

    Args:
        connection: In or outside a transaction; its settings are as before afterwards.
        schema: The schema of our tables.
    """
    if (asked := ask(connection, schema)) is None:
        return None
    with connection.transaction(force_rollback=True):
        connection.execute(PATH)
        return read_imprint(connection.execute(asked).fetchone(), schema)


def read_imprint(row: Sequence[Any] | None, schema: str) -> Imprint | None:
    """Read the row that `ask` returns; None where there is no such schema, or there is Citus."""
    if row is None:
        return None
    extension, is_ordinary, tables, objects, labels, paths, *same = row
    named = same[_SAME:]
    with_names = _naming(objects or "", labels or "")
    renamed = tuple(with_names(text or "") for text in named)
    paths = (paths or "").replace(f"={sql.Identifier(schema).as_string()},", "=$schema,")
    paths = paths.replace(f"={schema},", "=$schema,")
    files, columns = {}, {}
    for line in (tables or "").splitlines():
        oid, file, numbers = line.split(" ")
        files[int(oid)] = file
        columns[int(oid)] = frozenset(numbers.strip("{}").split(","))
    key = (extension, paths, *same[:_SAME], *renamed)
    return Imprint(key, extension, files, columns, bool(is_ordinary))


def _naming(objects: str, labels: str) -> Callable[[str], str]:
    """Return what puts names in the place of a schema's objects, as they are printed in a tree of nodes.

    By patterns that begin with the same digits: to replace one after the other takes five times as long.
    """
    names: dict[str, str] = {}
    for line in objects.splitlines():
        oid, _, name = line.partition(" ")
        names.setdefault(oid, f" <{name}>")
    oids = _any_of(names)
    constants = dict(_constants(labels))

    def with_names(text: str) -> str:
        if oids is not None:
            text = oids.sub(lambda match: names[match[0][1:]], text)
        return _CONSTANT.sub(lambda match: constants.get(match[0], match[0]), text) if constants else text

    return with_names


def _any_of(oids: Collection[str]) -> re.Pattern[str] | None:
    """Return the pattern of numbers between spaces; the space behind may be before another."""
    if not oids:
        return None
    first = commonprefix([*oids])  # noqa: RUF071 of digits, and no path
    alike = len(first)
    return re.compile(f" {first}(?:{'|'.join(oid[alike:] for oid in oids)})(?= )")


def _constants(labels: str) -> Iterator[tuple[str, str]]:
    """Yield what is printed for the labels of enums, each with its name."""
    for line in labels.splitlines():
        oid, _, name = line.partition(" ")
        # a constant is its bytes; some machines print those above 127 as negative
        value = [*int(oid).to_bytes(4, "little"), 0, 0, 0, 0]
        for printed in {tuple(value), tuple(byte - 256 if byte > 127 else byte for byte in value)}:
            yield f"[ {' '.join(map(str, printed))} ]", f"[ <{name}> ]"
