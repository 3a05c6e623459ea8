"""Tenants: schemas with our tables, as many in one database as there are customers.

A service picks one for a session by `ragschema.use_schema`, or for an engine by ``create_engine(schema=...)``.
"""

from __future__ import annotations

from ragschema.tenants.finding import Tenant, find_tenants

__all__ = ["Tenant", "find_tenants"]
