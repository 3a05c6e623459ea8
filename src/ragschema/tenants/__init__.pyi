"""The public names, each with the module it is loaded from on first use; see ``__init__.py``."""

from ragschema.errors import TenantRefused as TenantRefused
from ragschema.tenants.counting import TenantRows as TenantRows
from ragschema.tenants.creating import CreatedTenant as CreatedTenant
from ragschema.tenants.creating import create_tenant as create_tenant
from ragschema.tenants.dropping import DroppedTenant as DroppedTenant
from ragschema.tenants.dropping import count_tenant as count_tenant
from ragschema.tenants.dropping import drop_tenant as drop_tenant
from ragschema.tenants.finding import Tenant as Tenant
from ragschema.tenants.finding import find_tenants as find_tenants
from ragschema.tenants.finding import list_tenants as list_tenants
from ragschema.tenants.migrating import Rollout as Rollout
from ragschema.tenants.migrating import migrate_tenants as migrate_tenants
from ragschema.tenants.outcomes import FleetResult as FleetResult
from ragschema.tenants.outcomes import Progress as Progress
from ragschema.tenants.outcomes import TenantOutcome as TenantOutcome
from ragschema.tenants.placing import PlacedTenant as PlacedTenant
from ragschema.tenants.placing import distribute_tenant as distribute_tenant
from ragschema.tenants.placing import locate as locate
from ragschema.tenants.placing import move_tenant as move_tenant
from ragschema.tenants.standings import FleetStatus as FleetStatus
from ragschema.tenants.standings import read_standings as read_standings
from ragschema.tenants.undistributing import undistribute_tenant as undistribute_tenant
from ragschema.tenants.verifying import DriftGroup as DriftGroup
from ragschema.tenants.verifying import FleetDrift as FleetDrift
from ragschema.tenants.verifying import verify_tenants as verify_tenants
