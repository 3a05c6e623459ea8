"""JSON schemas of what each command prints with ``--json``, made from the dataclasses of the results.

Needs pydantic, of the group ``dev``.
"""

from __future__ import annotations

import json
import re
from dataclasses import is_dataclass, make_dataclass
from datetime import datetime
from inspect import cleandoc
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema

from ragschema.authoring.lint import Finding
from ragschema.chat import ChatPruning
from ragschema.collections import AddedDocuments, CollectionRecord, DeletedCollection, RemovedDocuments
from ragschema.embedding_models import (
    AddedModel,
    DroppedModel,
    EnqueuedBackfill,
    IndexedModel,
    ModelStatus,
    Recall,
    Switch,
)
from ragschema.graph import BrokenFact, GraphStats
from ragschema.importing import Import
from ragschema.importing.neo4j import GraphExport, GraphImport
from ragschema.index_health import IndexHealth, Maintenance, Rebuild
from ragschema.jobs import Schedule, TypeStats
from ragschema.jobs.reports import ListedJob
from ragschema.migrations.adoption import Adoption
from ragschema.migrations.checks import Check
from ragschema.migrations.grants import Grants
from ragschema.migrations.inspection import HistoryEntry
from ragschema.migrations.preparation import Preparation
from ragschema.migrations.repair import Repair
from ragschema.migrations.request import Result
from ragschema.planning.document import FORMAT, Plan
from ragschema.publishing import Deletion, PurgedDocuments
from ragschema.revisions.checks import Problem
from ragschema.revisions.sums import SumChange
from ragschema.schema.fact_rules import BrokenFacts
from ragschema.schema.row_rules import BrokenDocument
from ragschema.state.comparison import Drift
from ragschema.state.partitions import RegisteredModel
from ragschema.state.status import Status
from ragschema.tenants import (
    CreatedTenant,
    DroppedTenant,
    FleetDrift,
    FleetResult,
    FleetStatus,
    PlacedTenant,
    Tenant,
)

_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.M)
_NONE = re.compile(r"\bNone\b")


def _object(name: str, bases: tuple[type, ...] = (), **fields: Any) -> type:
    """Return the type of a JSON object that a command makes of results."""
    made = make_dataclass(name, fields.items(), bases=bases, frozen=True, kw_only=True)
    made.__doc__ = "What the command prints."
    return made


_SERVER = _object("Server", url=str, directory=str)
_PROBLEMS = _object("Problems", problems=list[Problem])
_DRIFT_AND_DATA = _object(
    "DriftAndData", (Drift,), broken_documents=list[BrokenDocument], broken_facts=list[BrokenFacts]
)
_PLAN = _object("PlanDocument", (Plan,), format=Literal[FORMAT], hazards_count=int)
_COMPLETED = _object("Completed", completed=int)
_FINISHED = _object("CompletedAndFailed", (_COMPLETED,), failed=int)

DOCUMENTS: dict[str, Any] = {
    "migrate": Result,
    "migrate apply": Result,
    "migrate rollback": Result,
    "migrate stamp": Result,
    "migrate status": Status,
    "migrate wait": Status,
    "migrate history": list[HistoryEntry],
    "migrate verify": Drift | _DRIFT_AND_DATA,
    "migrate health": _object("Health", checks=list[Check]),
    "migrate adopt": Adoption,
    "migrate init": Preparation,
    "migrate repair": Repair,
    "import": Import,
    "migrate create": _object("Created", path=str | None),
    "migrate hash": SumChange,
    "migrate freeze": _object("Frozen", changed=list[str]),
    "migrate validate": _PROBLEMS,
    "migrate syntax-check": _PROBLEMS,
    "migrate plan": _PLAN,
    "migrate lint": _object("Findings", findings=list[Finding]),
    "db start": _SERVER,
    "db url": _SERVER,
    "db status": _object(
        "ServerStatus", state=Literal["running", "stopped", "none"], directory=str, url=str | None
    ),
    "db stop": _object("Stopped", directory=str, was_running=bool),
    "db destroy": _object("Destroyed", directory=str),
    "models add": AddedModel,
    "models list": _object("Models", models=list[ModelStatus]),
    "models backfill": EnqueuedBackfill | ModelStatus,
    "models index": IndexedModel,
    "models check-recall": Recall,
    "models activate": Switch,
    "models rollback": Switch,
    "models drop": DroppedModel,
    "models rename": RegisteredModel,
    "jobs stats": _object("Stats", types=list[TypeStats]),
    "jobs list": _object("Jobs", jobs=list[ListedJob]),
    "jobs retry": _object("Retried", retried=list[UUID], refused=list[str]),
    "jobs cancel": _object("Cancelled", cancelled=list[UUID], refused=list[str]),
    "documents delete": Deletion,
    "documents undelete": _object("Undeleted", undeleted=list[str], chunks=int, unknown=list[str]),
    "documents purge": _object("PurgedOrNot", is_dry_run=bool, purged=PurgedDocuments),
    "index health": _object("IndexesHealth", indexes=list[IndexHealth]),
    "index rebuild": Rebuild,
    "index maintain": Maintenance,
    "grants": Grants,
    "graph import": GraphImport,
    "graph export": GraphExport,
    "graph stats": GraphStats,
    "graph verify": _object("BrokenGraph", broken=list[BrokenFact]),
    "collections list": _object("Collections", collections=list[CollectionRecord]),
    "collections create": CollectionRecord,
    "collections update": CollectionRecord,
    "collections add": AddedDocuments,
    "collections remove": RemovedDocuments,
    "collections delete": DeletedCollection,
    "tenants list": _object("Tenants", tenants=list[Tenant]),
    "tenants create": CreatedTenant,
    "tenants drop": DroppedTenant,
    "tenants migrate": FleetResult,
    "tenants status": FleetStatus,
    "tenants verify": FleetDrift,
    "tenants distribute": PlacedTenant,
    "tenants move": PlacedTenant,
    "tenants undistribute": PlacedTenant,
    "jobs prune": _object("Pruned", is_dry_run=bool, jobs=_COMPLETED | _FINISHED),
    "chat prune": _object("PrunedChat", is_dry_run=bool, before=datetime, pruned=ChatPruning),
    "jobs schedule add": Schedule,
    "jobs schedule list": _object("Schedules", schedules=list[Schedule]),
    "jobs schedule pause": _object("Paused", paused=str),
    "jobs schedule resume": _object("Resumed", resumed=str),
    "jobs schedule remove": _object("Removed", removed=str),
}
"""What each command prints."""


class _Generator(GenerateJsonSchema):
    """Says of an object what `dataclasses.asdict` makes of it: every attribute, and nothing else."""

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        made = super().dataclass_schema(schema)
        summary, attributes = _read_docstring(schema["cls"])
        for name, text in attributes.items():
            made["properties"][name]["description"] = text
        del made["title"]  # its key in $defs
        return {"description": summary, **made, "additionalProperties": False}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])  # what is printed has no default

    def field_is_required(self, field: object, total: bool) -> bool:
        return True

    def field_title_should_be_set(self, schema: object) -> bool:
        return False

    def timedelta_schema(self, schema: object) -> JsonSchemaValue:
        return {"type": "number", "description": "seconds"}


def _read_docstring(cls: type) -> tuple[str, dict[str, str]]:
    """Return what a dataclass says of itself, and of its attributes and those of its bases."""
    texts = [cleandoc(each.__doc__ or "") for each in reversed(cls.__mro__) if is_dataclass(each)]
    attributes: dict[str, str] = {}
    for text in texts:
        for name, words in _ATTRIBUTE.findall(text.partition("Attributes:\n")[2]):
            attributes[name] = _NONE.sub("null", " ".join(words.replace("``", "").split()))
    return texts[-1].partition("\n")[0], attributes


def json_schemas_path() -> Path:
    """Return where the schemas are: beside the commands."""
    return Path(__file__).parents[1] / "cli" / "json_schemas.json"


def json_schemas_text() -> str:
    """Return the text of ``cli/json_schemas.json``."""
    mode: JsonSchemaMode = "serialization"
    inputs = [(command, mode, TypeAdapter(document)) for command, document in DOCUMENTS.items()]
    schemas, shared = TypeAdapter.json_schemas(inputs, schema_generator=_Generator)
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What each command prints with --json",
        "description": "`commands` has a schema for each command; $ref it, or read it.",
        "$defs": shared["$defs"],
        "commands": {command: schemas[command, mode] for command in DOCUMENTS},
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
