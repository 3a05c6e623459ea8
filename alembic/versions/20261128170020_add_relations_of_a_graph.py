"""Add relations of a graph

What one entity is to another. Walks read those that are current, the weightiest first, from either end: by an index
for each, which has all that a walk asks for.

Locks: SHARE ROW EXCLUSIVE on rag_entities for a moment, for the foreign keys.
Data: none.
Deploy: expand (before the code that keeps a graph).
Downgrade: drops the relations.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261128170020"
down_revision = "20261128170010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rag_relations",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("source_id", sa.Uuid(), nullable=False),
        sa.Column(
            "relation_type",
            sa.Text(),
            nullable=False,
            comment="works_for, part_of, ...: the extractor's own word",
        ),
        sa.Column("target_id", sa.Uuid(), nullable=False),
        sa.Column(
            "weight",
            sa.REAL(),
            server_default=sa.text("1"),
            nullable=False,
            comment="How much it counts, 0 or more: the greatest that was said",
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
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name="rag_relations_pkey"),
        sa.UniqueConstraint(
            "source_id",
            "relation_type",
            "target_id",
            name="rag_relations_source_id_relation_type_target_id_key",
        ),
        sa.ForeignKeyConstraint(
            ["source_id"], ["rag_entities.id"], name="rag_relations_source_id_fkey", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["target_id"], ["rag_entities.id"], name="rag_relations_target_id_fkey", ondelete="CASCADE"
        ),
        sa.CheckConstraint(
            r"relation_type ~ '\S' AND octet_length(relation_type) <= 200",
            name="rag_relations_relation_type_check",
        ),
        sa.CheckConstraint("weight >= 0 AND weight < 'Infinity'", name="rag_relations_weight_check"),
        sa.CheckConstraint("jsonb_typeof(properties) = 'object'", name="rag_relations_properties_check"),
    )
    op.create_index(
        "rag_relations_current_source_idx",
        "rag_relations",
        ["source_id", sa.text("weight DESC"), "id"],
        postgresql_include=["target_id", "relation_type"],
        postgresql_where=sa.text("is_current"),
    )
    op.create_index(
        "rag_relations_current_target_idx",
        "rag_relations",
        ["target_id", sa.text("weight DESC"), "id"],
        postgresql_include=["source_id", "relation_type"],
        postgresql_where=sa.text("is_current"),
    )
    op.create_index("rag_relations_target_id_idx", "rag_relations", ["target_id"])


def downgrade() -> None:
    op.drop_table("rag_relations")
