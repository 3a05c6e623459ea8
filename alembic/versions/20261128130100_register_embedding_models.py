"""Register embedding models

Which models the chunks are embedded by, of which dimensions, and which of them new text is embedded for. Model 1 is the
column rag_chunks.embedding; where no model has a row, it is the only one.

Locks: none on existing tables.
Data: none.
Deploy: expand (before the code that knows several models; whoever reads and writes the column goes on).
Downgrade: drops the table: which models there are, and which one is active.
"""

import sqlalchemy as sa
from alembic import op

from ragschema.operations_v2 import create_function, drop_function

revision = "20261128130100"
down_revision = "20261128120200"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rag_embedding_models",
        sa.Column(
            "id",
            sa.SmallInteger(),
            sa.Identity(start=2),
            nullable=False,
            comment="1 is the column rag_chunks.embedding, n the partition rag_chunk_embeddings_n",
        ),
        sa.Column("key", sa.Text(), nullable=False, comment="What services and commands call it"),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.Column(
            "distance",
            sa.Text(),
            server_default=sa.text("'cosine'"),
            nullable=False,
            comment="cosine, l2 or inner_product",
        ),
        sa.Column(
            "index_type",
            sa.Text(),
            server_default=sa.text("'halfvec'"),
            nullable=False,
            comment="What its HNSW index holds: vector, halfvec or bit; none: no index",
        ),
        sa.Column(
            "hnsw_m",
            sa.Integer(),
            server_default=sa.text("16"),
            nullable=False,
            comment="Neighbours that an element keeps a layer",
        ),
        sa.Column(
            "hnsw_ef_construction",
            sa.Integer(),
            server_default=sa.text("64"),
            nullable=False,
            comment="Candidates kept while an element is inserted",
        ),
        sa.Column(
            "state",
            sa.Text(),
            server_default=sa.text("'building'"),
            nullable=False,
            comment="building: being filled; active: what new text is embedded for first; standby: kept up beside"
            " it; retired: its embeddings are gone",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
        ),
        sa.Column(
            "activated_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it last became the active one",
        ),
        sa.PrimaryKeyConstraint("id", name="rag_embedding_models_pkey"),
        sa.UniqueConstraint("key", name="rag_embedding_models_key_key"),
        sa.CheckConstraint(r"key ~ '\S' AND octet_length(key) <= 200", name="rag_embedding_models_key_check"),
        sa.CheckConstraint(
            "dimensions >= 1 AND dimensions <= 16000", name="rag_embedding_models_dimensions_check"
        ),
        sa.CheckConstraint(
            "distance = ANY (ARRAY['cosine', 'l2', 'inner_product'])",
            name="rag_embedding_models_distance_check",
        ),
        sa.CheckConstraint(
            "CASE index_type WHEN 'vector' THEN dimensions <= 2000 WHEN 'halfvec' THEN dimensions <= 4000"
            " WHEN 'bit' THEN distance = 'cosine' ELSE index_type = 'none' END",
            name="rag_embedding_models_index_type_check",
        ),
        sa.CheckConstraint(
            "hnsw_m >= 2 AND hnsw_m <= 100 AND hnsw_ef_construction >= 2 * hnsw_m"
            " AND hnsw_ef_construction <= 1000",
            name="rag_embedding_models_hnsw_check",
        ),
        sa.CheckConstraint(
            "state = ANY (ARRAY['building', 'active', 'standby', 'retired'])",
            name="rag_embedding_models_state_check",
        ),
        sa.CheckConstraint(
            "id <> 1 OR dimensions = 768 AND distance = 'cosine' AND index_type = 'vector'",
            name="rag_embedding_models_column_check",
        ),
    )
    op.create_index(
        "rag_embedding_models_active_idx",
        "rag_embedding_models",
        ["state"],
        unique=True,
        postgresql_where=sa.text("state = 'active'"),
    )
    create_function("rag_embedding_model", 1)


def downgrade() -> None:
    drop_function("rag_embedding_model(text, integer, text, text, integer)")
    op.drop_table("rag_embedding_models")
