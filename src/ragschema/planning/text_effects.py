"""Effects of a statement on the tables that exist, as far as its text tells: locks, rewrites, scans.

Lock levels are those of PostgreSQL 14 to 18. Where a text leaves it open, the worse is assumed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from ragschema.planning.effects import MODES, Effect, stronger
from ragschema.planning.table_sizes import Constraint, Tables, find_not_null
from ragschema.sql.losses import Loss, find_losses
from ragschema.sql.names import NAME, PATH, PATHS, split_list, unquote
from ragschema.sql.splitting import split_sql
from ragschema.sql.statements import altered
from ragschema.sql.tokens import plain

_PATH, _PATHS = f"({PATH})", f"({PATHS})"


def _rule(pattern: str, mode: str, effect: str = "") -> tuple[re.Pattern[str], str, str]:
    return re.compile(pattern.replace("{T}", _PATH).replace("{TS}", _PATHS), re.I), mode, effect


# The first that matches decides; its first group is the table, or a list of them.
_STATEMENTS = (
    _rule(r"CREATE (?:UNIQUE )?INDEX CONCURRENTLY\b.*? ON (?:ONLY )?{T}", "SHARE UPDATE EXCLUSIVE"),
    _rule(r"CREATE (?:UNIQUE )?INDEX\b.*? ON (?:ONLY )?{T}", "SHARE", "builds"),
    _rule(r"REINDEX (?:\([^)]*\) ?)?TABLE CONCURRENTLY {T}", "SHARE UPDATE EXCLUSIVE"),
    _rule(r"REINDEX (?:\([^)]*\) ?)?TABLE {T}", "SHARE", "builds"),
    _rule(r"CREATE (?:OR REPLACE )?(?:CONSTRAINT )?TRIGGER\b.*? ON {T}", "SHARE ROW EXCLUSIVE"),
    _rule(r"(?:ALTER|DROP) (?:TRIGGER|RULE)\b.*? ON {T}", "ACCESS EXCLUSIVE"),
    _rule(r"(?:CREATE|ALTER|DROP) POLICY\b.*? ON {T}", "ACCESS EXCLUSIVE"),
    _rule(r"CREATE (?:OR REPLACE )?RULE\b.*? TO {T}", "ACCESS EXCLUSIVE"),
    _rule(r"TRUNCATE (?:TABLE )?(?:ONLY )?{TS}", "ACCESS EXCLUSIVE", "empties"),
    _rule(r"DROP (?:TABLE|MATERIALIZED VIEW) (?:IF EXISTS )?{TS}", "ACCESS EXCLUSIVE", "empties"),
    _rule(r"VACUUM (?:\([^)]*\bFULL\b[^)]*\)|FULL(?: FREEZE)?(?: VERBOSE)?) ?{TS}", MODES[-1], "rewrites"),
    _rule(r"(?:VACUUM|ANALYZE)(?: ?\([^)]*\)| VERBOSE| FREEZE| ANALYZE)* ?{TS}", "SHARE UPDATE EXCLUSIVE"),
    _rule(r"CLUSTER (?:VERBOSE )?{T}", "ACCESS EXCLUSIVE", "rewrites"),
    _rule(r"REFRESH MATERIALIZED VIEW CONCURRENTLY {T}", "EXCLUSIVE"),
    _rule(r"REFRESH MATERIALIZED VIEW {T}", "ACCESS EXCLUSIVE", "rewrites"),
    _rule(r"COMMENT ON (?:TABLE|MATERIALIZED VIEW) {T}", "SHARE UPDATE EXCLUSIVE"),
    _rule(rf"COMMENT ON COLUMN {{T}}\.{NAME} IS\b", "SHARE UPDATE EXCLUSIVE"),
    _rule(r"CREATE STATISTICS\b.* FROM {T}", "SHARE UPDATE EXCLUSIVE"),
    _rule(r"COPY {T}.* FROM\b", "ROW EXCLUSIVE"),
)
_WRITES = (
    _rule(r"\bINSERT INTO {T}", "ROW EXCLUSIVE"),
    _rule(rf"(?<!FOR )(?<!DO )\bUPDATE (?:ONLY )?{{T}} (?:(?:AS )?{NAME} )?SET\b", MODES[2], "writes"),
    _rule(r"\bDELETE FROM (?:ONLY )?{T}", "ROW EXCLUSIVE", "writes"),
    _rule(r"\bMERGE INTO (?:ONLY )?{T}", "ROW EXCLUSIVE", "writes"),
)
_LOCK = re.compile(rf"LOCK (?:TABLE )?(?:ONLY )?{_PATHS}(?: IN ([A-Z ]+) MODE)?", re.I)
_INDEX = re.compile(rf"(DROP|REINDEX(?: ?\([^)]*\))?) INDEX (CONCURRENTLY )?(?:IF EXISTS )?{_PATHS}", re.I)
_CREATE_INDEX = re.compile(
    rf"CREATE (?:UNIQUE )?INDEX (?:CONCURRENTLY )?(?:IF NOT EXISTS )?({NAME}) ON", re.I
)
_REFERENCES = re.compile(rf"\bREFERENCES {_PATH}", re.I)
_CREATE_TABLE = re.compile(r"CREATE (?:\w+ )?TABLE\b", re.I)
_PARENT = re.compile(rf"\b(?:(PARTITION OF)|INHERITS ?\(|LIKE) ?{_PATH}", re.I)
_FUNCTION = re.compile(rf"CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE) ({PATH}) ?\(", re.I)

_ADD = re.compile(
    rf"ADD (?:CONSTRAINT ({NAME}) )?(FOREIGN KEY|CHECK|NOT NULL|UNIQUE|PRIMARY KEY|EXCLUDE)\b(.*)", re.I
)
_ADD_COLUMN = re.compile(rf"ADD (?:COLUMN )?(?:IF NOT EXISTS )?({NAME}) (.*)", re.I)
_VALIDATE = re.compile(rf"VALIDATE CONSTRAINT ({NAME})", re.I)
_DROP_CONSTRAINT = re.compile(rf"DROP CONSTRAINT (?:IF EXISTS )?({NAME})", re.I)
_SET_NOT_NULL = re.compile(rf"ALTER (?:COLUMN )?({NAME}) SET NOT NULL", re.I)
_PARTITION = re.compile(rf"(ATTACH|DETACH) PARTITION {_PATH}( CONCURRENTLY)?", re.I)
_INHERIT = re.compile(rf"(?:NO )?INHERIT {_PATH}", re.I)
_ALTERS = (  # what is none of the above takes ACCESS EXCLUSIVE for a moment
    _rule(rf"ALTER (?:COLUMN )?{NAME} (?:SET DATA )?TYPE\b", "ACCESS EXCLUSIVE", "rewrites"),
    _rule(rf"ALTER (?:COLUMN )?{NAME} SET EXPRESSION\b", "ACCESS EXCLUSIVE", "rewrites"),
    _rule(rf"ALTER (?:COLUMN )?{NAME} SET STATISTICS\b", "SHARE UPDATE EXCLUSIVE"),
    _rule(rf"ALTER (?:COLUMN )?{NAME} (?:SET|RESET) ?\(", "SHARE UPDATE EXCLUSIVE"),
    _rule(r"(?:ENABLE|DISABLE) (?:ALWAYS |REPLICA )?TRIGGER\b", "SHARE ROW EXCLUSIVE"),
    _rule(r"(?:SET|RESET) ?\(", "SHARE UPDATE EXCLUSIVE"),
    _rule(r"(?:CLUSTER ON|SET WITHOUT CLUSTER)\b", "SHARE UPDATE EXCLUSIVE"),
    _rule(r"SET (?:LOGGED|UNLOGGED|TABLESPACE|ACCESS METHOD)\b", "ACCESS EXCLUSIVE", "rewrites"),
)
_STORED = re.compile(r"\b(?:GENERATED|(?:small|big)?serial[248]?)\b", re.I)
_VIRTUAL = re.compile(r"\bGENERATED ALWAYS AS ?\(.*\) ?VIRTUAL\b", re.I)
_DEFAULT = re.compile(
    r"\bDEFAULT (.*?)(?= NOT NULL| NULL\b| CHECK\b| REFERENCES\b| UNIQUE\b| PRIMARY\b| CONSTRAINT\b|$)", re.I
)
_CAST = re.compile(r":: ?[\w. ]+?(?: ?\([^()]*\))?(?= ?(?:[),:+*/|-]|$))")
_CALL = re.compile(r"([\w$]+|\"[^\"]+\") ?\(")
_NO_FUNCTIONS = frozenset(
    ("cast", "coalesce", "nullif", "greatest", "least", "row", "array", "current_timestamp", "localtimestamp")
)


class Analysis:
    """Reads the statements of a plan in their order, and keeps in mind what they add and drop."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._indexes = dict(tables.indexes)
        self._constraints = dict(tables.constraints)
        self._functions = set(tables.writing_functions)

    def read(self, sql: str) -> Effect:
        """Return what a statement does, or several in one string."""
        effect = Effect()
        for _, statement in split_sql(sql):
            effect.losses += filter(self._concerns_us, find_losses(statement))
            self._read(plain(statement), effect)
        effect.is_opaque = any(loss.kind in ("call", "unknown") for loss in effect.losses)
        return effect

    def _concerns_us(self, loss: Loss) -> bool:
        """Whether a loss may be one of rows that there are: of a table that exists, in our schema."""
        if loss.kind == "call":
            return loss.name in self._functions
        if loss.kind in ("unknown", "schema"):
            return True
        return loss.name in self._tables.sizes and loss.schema in (None, self._tables.schema)

    def _read(self, sql: str, effect: Effect) -> None:
        if alter := altered(sql):
            for action in split_list(alter[1]):
                self._alter(alter[0], action, effect)
        elif _CREATE_TABLE.match(sql):
            self._create_table(sql, effect)
        elif index := _INDEX.match(sql):
            self._index(index, effect)
        elif lock := _LOCK.match(sql):
            for table in _names(lock[1]):
                self._lock(table, " ".join((lock[2] or MODES[-1]).upper().split()), effect)
        else:
            self._match(sql, effect)

    def _match(self, sql: str, effect: Effect) -> None:
        if function := _FUNCTION.match(sql):
            self._functions.add(unquote(function[1]))
        if created := _CREATE_INDEX.match(sql):
            table = re.search(rf" ON (?:ONLY )?{_PATH}", sql, re.I)
            self._indexes[unquote(created[1])] = unquote(table[1]) if table else ""
        for rule, mode, kind in _STATEMENTS:
            if match := rule.match(sql):
                for name in _names(match[1]):
                    self._lock(name, mode, effect, kind)
                    if kind == "empties":
                        self._lock_referenced(name, sql, effect)
                return
        for rule, mode, kind in _WRITES:
            for match in (
                rule.finditer(sql) if re.match(r"WITH\b", sql, re.I) else filter(None, [rule.match(sql)])
            ):
                self._lock(unquote(match[1]), mode, effect, kind)

    def _lock(self, table: str, mode: str, effect: Effect, kind: str = "") -> None:
        if table not in self._tables.sizes:
            return
        effect.locks[table] = stronger(mode, effect.locks.get(table))
        if kind:
            getattr(effect, kind).add(table)

    def _lock_referenced(self, table: str, sql: str, effect: Effect) -> None:
        """Dropping a table drops its foreign keys, which stand on both tables."""
        if not sql.upper().startswith("DROP TABLE"):
            return
        for (owner, _), constraint in self._constraints.items():
            if owner == table and constraint.references:
                self._lock(constraint.references, "ACCESS EXCLUSIVE", effect)
            if constraint.references == table and owner != table:
                self._lock(owner, "ACCESS EXCLUSIVE", effect)

    def _create_table(self, sql: str, effect: Effect) -> None:
        for match in _REFERENCES.finditer(sql):
            self._lock(unquote(match[1]), "SHARE ROW EXCLUSIVE", effect)
        for match in _PARENT.finditer(sql):
            mode = "ACCESS EXCLUSIVE" if match[1] else "ACCESS SHARE"
            mode = "SHARE UPDATE EXCLUSIVE" if "INHERITS" in match[0].upper() else mode
            self._lock(unquote(match[2]), mode, effect)

    def _index(self, match: re.Match[str], effect: Effect) -> None:
        is_drop, is_concurrent = match[1].upper() == "DROP", bool(match[2])
        for name in _names(match[3]):
            table = self._indexes.get(name, "")
            if is_concurrent:
                self._lock(table, "SHARE UPDATE EXCLUSIVE", effect)
            else:
                self._lock(
                    table, "ACCESS EXCLUSIVE" if is_drop else "SHARE", effect, "" if is_drop else "builds"
                )

    def _alter(self, table: str, action: str, effect: Effect) -> None:
        if added := _ADD.match(action):
            self._add_constraint(table, unquote(added[1] or "unnamed"), added[2].upper(), added[3], effect)
        elif column := _ADD_COLUMN.match(action):
            self._add_column(table, column[2], effect)
        elif validated := _VALIDATE.match(action):
            self._validate(table, unquote(validated[1]), effect)
        elif dropped := _DROP_CONSTRAINT.match(action):
            self._lock(table, "ACCESS EXCLUSIVE", effect)
            constraint = self._constraints.pop((table, unquote(dropped[1])), None)
            if constraint is not None and constraint.references:
                self._lock(constraint.references, "ACCESS EXCLUSIVE", effect)
        elif not_null := _SET_NOT_NULL.match(action):
            is_known = self._is_not_null(table, unquote(not_null[1]))
            self._lock(table, "ACCESS EXCLUSIVE", effect, "" if is_known else "scans")
        elif partition := _PARTITION.match(action):
            is_attached, is_quiet = partition[1].upper() == "ATTACH", bool(partition[3])
            self._lock(table, MODES[3] if is_attached or is_quiet else MODES[-1], effect)
            self._lock(
                unquote(partition[2]),
                MODES[3] if is_quiet else MODES[-1],
                effect,
                "scans" if is_attached else "",
            )
        elif parent := _INHERIT.match(action):
            self._lock(table, "ACCESS EXCLUSIVE", effect)
            self._lock(unquote(parent[1]), "SHARE UPDATE EXCLUSIVE", effect)
        else:
            known = ((mode, kind) for rule, mode, kind in _ALTERS if rule.match(action))
            mode, kind = next(known, ("ACCESS EXCLUSIVE", ""))
            self._lock(table, mode, effect, kind)

    def _add_constraint(self, table: str, name: str, kind: str, rest: str, effect: Effect) -> None:
        is_valid = re.search(r"\bNOT VALID\b", rest, re.I) is None
        references = unquote(match[1]) if (match := _REFERENCES.search(rest)) else None
        self._constraints[table, name] = Constraint(is_valid, references, find_not_null(f"{kind}{rest}"))
        if kind == "FOREIGN KEY":
            self._lock(table, "SHARE ROW EXCLUSIVE", effect, "scans" if is_valid else "")
            self._lock(references or "", "SHARE ROW EXCLUSIVE", effect)
        elif kind in ("UNIQUE", "PRIMARY KEY", "EXCLUDE"):
            takes_over = re.search(r"\bUSING INDEX\b(?! TABLESPACE)", rest, re.I) is not None
            reads = "scans" if kind == "PRIMARY KEY" else ""  # its columns become NOT NULL
            self._lock(table, "ACCESS EXCLUSIVE", effect, reads if takes_over else "builds")
            self._indexes.setdefault(name, table)
        else:
            self._lock(table, "ACCESS EXCLUSIVE", effect, "scans" if is_valid else "")

    def _add_column(self, table: str, definition: str, effect: Effect) -> None:
        default = _DEFAULT.search(definition)
        is_stored = _STORED.search(definition) is not None and _VIRTUAL.search(definition) is None
        is_rewrite = is_stored or (default is not None and self._is_volatile(default[1]))
        self._lock(table, "ACCESS EXCLUSIVE", effect, "rewrites" if is_rewrite else "")
        if re.search(r"\b(UNIQUE|PRIMARY KEY)\b", definition, re.I):
            self._lock(table, "ACCESS EXCLUSIVE", effect, "builds")
        if re.search(r"\b(CHECK|REFERENCES)\b", definition, re.I):
            self._lock(table, "ACCESS EXCLUSIVE", effect, "scans")
        if match := _REFERENCES.search(definition):
            self._lock(unquote(match[1]), "SHARE ROW EXCLUSIVE", effect)
        is_filled = default is not None or _STORED.search(definition)
        if re.search(r"\b(NOT NULL|PRIMARY KEY)\b", definition, re.I) and not is_filled:
            effect.refused[table] = "the new column is NOT NULL and has no default"

    def _validate(self, table: str, name: str, effect: Effect) -> None:
        constraint = self._constraints.get((table, name))
        if constraint is not None and constraint.is_valid:
            self._lock(table, "SHARE UPDATE EXCLUSIVE", effect)
            return
        self._lock(table, "SHARE UPDATE EXCLUSIVE", effect, "scans")
        if constraint is not None:
            self._constraints[table, name] = replace(constraint, is_valid=True)
            self._lock(constraint.references or "", "ROW SHARE", effect)

    def _is_not_null(self, table: str, column: str) -> bool:
        """Whether a valid CHECK says so: then SET NOT NULL reads no row."""
        return any(
            owner == table
            and constraint.is_valid
            and constraint.not_null
            and unquote(constraint.not_null) == column
            for (owner, _), constraint in self._constraints.items()
        )

    def _is_volatile(self, expression: str) -> bool:
        calls = {unquote(name) for name in _CALL.findall(_CAST.sub("", expression))}
        return not calls <= self._tables.steady_functions | _NO_FUNCTIONS


def _names(paths: str) -> Iterator[str]:
    for path in split_list(paths):
        yield unquote(path)
