"""Follow mentions of entities

Whoever writes, corrects or deletes mentions of entities in SQL: what they are of is current, or not, when the
statement ends.

Locks: SHARE ROW EXCLUSIVE on rag_entity_mentions for a moment, for the triggers.
Data: none.
Deploy: expand (before the code that keeps a graph).
Downgrade: drops the triggers: from then on only the package's own functions keep the entities current.
"""

from ragschema.operations_v2 import create_trigger, drop_trigger

revision = "20261128170080"
down_revision = "20261128170070"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_trigger("rag_entity_mentions_inserted", 1)
    create_trigger("rag_entity_mentions_deleted", 1)
    create_trigger("rag_entity_mentions_moved", 1)


def downgrade() -> None:
    drop_trigger("rag_entity_mentions_moved", "rag_entity_mentions")
    drop_trigger("rag_entity_mentions_deleted", "rag_entity_mentions")
    drop_trigger("rag_entity_mentions_inserted", "rag_entity_mentions")
