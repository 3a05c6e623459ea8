"""Replace the foreign key to the current version

The one over both ids says all that the old one said, and takes its name.

Locks: ACCESS EXCLUSIVE on rag_documents and rag_document_versions, catalogue changes only.
Data: none; the downgrade reads rag_documents once, and writers wait for it.
Deploy: expand (nothing changes for a service).
Downgrade: makes the old foreign key again beside the new one; nothing is lost.
"""

from alembic import op

revision = "20261121120400"
down_revision = "20261121120300"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # lint: allow ban-drop-constraint: the other one takes its place in the same transaction
    # lint: allow removed-but-modelled: see above
    op.drop_constraint("fk_current_version", "rag_documents", type_="foreignkey")
    # lint: allow renaming-object: no statement of a service names a foreign key
    op.execute(
        "ALTER TABLE rag_documents RENAME CONSTRAINT fk_current_version_of_document TO fk_current_version"
    )


def downgrade() -> None:
    # lint: allow renaming-object: see above
    op.execute(
        "ALTER TABLE rag_documents RENAME CONSTRAINT fk_current_version TO fk_current_version_of_document"
    )
    # lint: allow adding-foreign-key-constraint: one small row a document is read
    op.create_foreign_key(
        "fk_current_version",
        "rag_documents",
        "rag_document_versions",
        ["current_version_id"],
        ["id"],
        deferrable=True,
        initially="DEFERRED",
    )
