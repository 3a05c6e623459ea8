"""Add entities of a graph

Who and what the texts speak of, beside the texts: a person is one row, however many chunks name her. Of each type a
name is there once, by a key that its spellings have in common.

Locks: none on existing tables.
Data: none.
Deploy: expand (before the code that keeps a graph).
Downgrade: drops the entities.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from ragschema.operations_v2 import create_function, drop_function

revision = "20261128170000"
down_revision = "20261128165010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_function("rag_name_key", 1)
    op.create_table(
        "rag_entities",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column(
            "entity_type",
            sa.Text(),
            nullable=False,
            comment="person, place, product, ...: the extractor's own word",
        ),
        sa.Column("name", sa.Text(), nullable=False, comment="As it was written first"),
        sa.Column(
            "name_key",
            sa.Text(),
            sa.Computed("rag_name_key(name)", persisted=True),
            nullable=False,
            comment="What spellings of the name have in common",
        ),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column(
            "properties",
            postgresql.JSONB(),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="An object of the caller's",
        ),
        sa.Column(
            "is_current",
            sa.Boolean(),
            server_default=sa.false(),
            nullable=False,
            comment="Whether a current chunk mentions it, or it was imported",
        ),
        sa.Column(
            "is_imported",
            sa.Boolean(),
            server_default=sa.false(),
            nullable=False,
            comment="Whether it is current without a chunk that mentions it",
        ),
        sa.Column("merged_into", sa.Uuid(), nullable=True, comment="The entity that was kept in its place"),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name="rag_entities_pkey"),
        sa.UniqueConstraint("entity_type", "name_key", name="rag_entities_entity_type_name_key_key"),
        sa.ForeignKeyConstraint(
            ["merged_into"], ["rag_entities.id"], name="rag_entities_merged_into_fkey", ondelete="CASCADE"
        ),
        sa.CheckConstraint(
            r"entity_type ~ '\S' AND octet_length(entity_type) <= 200", name="rag_entities_entity_type_check"
        ),
        sa.CheckConstraint(
            "octet_length(name) <= 1000 AND octet_length(name_key) >= 1 AND octet_length(name_key) <= 2000",
            name="rag_entities_name_check",
        ),
        sa.CheckConstraint("jsonb_typeof(properties) = 'object'", name="rag_entities_properties_check"),
        sa.CheckConstraint(
            "merged_into IS NULL OR merged_into <> id AND NOT is_current",
            name="rag_entities_merged_into_check",
        ),
    )
    op.create_index(
        "rag_entities_merged_into_idx",
        "rag_entities",
        ["merged_into"],
    )


def downgrade() -> None:
    op.drop_table("rag_entities")
    drop_function("rag_name_key(text)")
