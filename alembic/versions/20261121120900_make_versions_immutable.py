"""Make versions immutable

A version that changes under its chunks says of them what is not true. Title and url, which citations show, may be
corrected.

Locks: SHARE ROW EXCLUSIVE on rag_document_versions for a moment; the downgrade ACCESS EXCLUSIVE.
Data: none.
Deploy: expand (a service that updates versions in place is refused, and must publish new ones).
Downgrade: drops the trigger; nothing is lost.
"""

from ragschema.operations_v2 import create_function, create_trigger, drop_function, drop_trigger

revision = "20261121120900"
down_revision = "20261121120801"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_refuse_version_change", 1)
    create_trigger("rag_document_versions_immutable", 1)


def downgrade() -> None:
    drop_trigger("rag_document_versions_immutable", "rag_document_versions")
    drop_function("rag_refuse_version_change()")
