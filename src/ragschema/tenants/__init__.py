"""Tenants: schemas with our tables, as many in one database as there are customers.

A service picks one for a session by `ragschema.use_schema`, or for an engine by ``create_engine(schema=...)``.
"""

from __future__ import annotations

from ragschema.errors import TenantRefused
from ragschema.tenants.creating import CreatedTenant, create_tenant
from ragschema.tenants.dropping import DroppedTenant, TenantRows, count_tenant, drop_tenant
from ragschema.tenants.finding import Tenant, find_tenants, list_tenants
from ragschema.tenants.placing import (
    PlacedTenant,
    distribute_tenant,
    locate,
    move_tenant,
)

__all__ = [
    "CreatedTenant",
    "DroppedTenant",
    "PlacedTenant",
    "Tenant",
    "TenantRefused",
    "TenantRows",
    "count_tenant",
    "create_tenant",
    "distribute_tenant",
    "drop_tenant",
    "find_tenants",
    "list_tenants",
    "locate",
    "move_tenant",
]
