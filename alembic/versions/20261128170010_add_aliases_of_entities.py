"""Add aliases of entities

What else an entity is called. An alias goes with the document that said it first: a name of somebody's must not
outlive the text that it stood in.

Locks: SHARE ROW EXCLUSIVE on rag_documents for a moment, so that writers wait, for the foreign key.
Data: none.
Deploy: expand (before the code that keeps a graph).
Downgrade: drops the aliases.
"""

import sqlalchemy as sa
from alembic import op

revision = "20261128170010"
down_revision = "20261128170000"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rag_entity_aliases",
        sa.Column("entity_type", sa.Text(), nullable=False),
        sa.Column(
            "alias_key",
            sa.Text(),
            sa.Computed("rag_name_key(alias)", persisted=True),
            nullable=False,
            comment="What its spellings have in common",
        ),
        sa.Column("entity_id", sa.Uuid(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column(
            "document_id",
            sa.Uuid(),
            nullable=True,
            comment="The document that said it first, and takes it along; null where none did",
        ),
        sa.PrimaryKeyConstraint("entity_type", "alias_key", name="rag_entity_aliases_pkey"),
        sa.ForeignKeyConstraint(
            ["entity_id"], ["rag_entities.id"], name="rag_entity_aliases_entity_id_fkey", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["rag_documents.id"],
            name="rag_entity_aliases_document_id_fkey",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint(
            "octet_length(alias) <= 1000 AND octet_length(alias_key) >= 1 AND octet_length(alias_key) <= 2000",
            name="rag_entity_aliases_alias_check",
        ),
    )
    op.create_index("rag_entity_aliases_entity_id_idx", "rag_entity_aliases", ["entity_id"])
    op.create_index("rag_entity_aliases_document_id_idx", "rag_entity_aliases", ["document_id"])


def downgrade() -> None:
    op.drop_table("rag_entity_aliases")
