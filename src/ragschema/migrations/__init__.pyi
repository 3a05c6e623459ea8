"""The public names, each with the module it is loaded from on first use; see ``__init__.py``."""

from ragschema.migrations.commands import adopt as adopt
from ragschema.migrations.commands import downgrade as downgrade
from ragschema.migrations.commands import foresee_rollback as foresee_rollback
from ragschema.migrations.commands import plan as plan
from ragschema.migrations.commands import stamp as stamp
from ragschema.migrations.commands import upgrade as upgrade
from ragschema.migrations.commands import upgrade_sql as upgrade_sql
from ragschema.migrations.grants import Grants as Grants
from ragschema.migrations.grants import apply_grants as apply_grants
from ragschema.migrations.grants import find_grants as find_grants
from ragschema.migrations.inspection import HistoryEntry as HistoryEntry
from ragschema.migrations.inspection import assert_current as assert_current
from ragschema.migrations.inspection import history as history
from ragschema.migrations.inspection import status as status
from ragschema.migrations.inspection import verify as verify
from ragschema.migrations.inspection import verify_data as verify_data
from ragschema.migrations.inspection import verify_facts as verify_facts
from ragschema.migrations.inspection import wait as wait
from ragschema.migrations.request import Result as Result
