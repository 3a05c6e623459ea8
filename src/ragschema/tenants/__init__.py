"""Tenants: schemas with our tables, as many in one database as there are customers.

A service picks one for a session by `ragschema.use_schema`, or for an engine by ``create_engine(schema=...)``.
"""

from __future__ import annotations

from ragschema.errors import TenantRefused
from ragschema.tenants.counting import TenantRows
from ragschema.tenants.creating import CreatedTenant, create_tenant
from ragschema.tenants.dropping import DroppedTenant, count_tenant, drop_tenant
from ragschema.tenants.finding import Tenant, find_tenants, list_tenants
from ragschema.tenants.migrating import Rollout, migrate_tenants
from ragschema.tenants.outcomes import FleetResult, Progress, TenantOutcome
from ragschema.tenants.placing import (
    PlacedTenant,
    distribute_tenant,
    locate,
    move_tenant,
)
from ragschema.tenants.standings import FleetStatus, read_standings
from ragschema.tenants.verifying import DriftGroup, FleetDrift, verify_tenants

__all__ = [
    "CreatedTenant",
    "DriftGroup",
    "DroppedTenant",
    "FleetDrift",
    "FleetResult",
    "FleetStatus",
    "PlacedTenant",
    "Progress",
    "Rollout",
    "Tenant",
    "TenantOutcome",
    "TenantRefused",
    "TenantRows",
    "count_tenant",
    "create_tenant",
    "distribute_tenant",
    "drop_tenant",
    "find_tenants",
    "list_tenants",
    "locate",
    "migrate_tenants",
    "move_tenant",
    "read_standings",
    "verify_tenants",
]
