"""An unsafe and a safe revision for every rule of lint, and what is said of the unsafe one."""

# ruff: noqa: E501

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """Bodies of upgrade functions.

    Attributes:
        unsafe: One with a finding.
        message: The whole text of the finding.
        safe: One without a finding.
        deploy: The label of both.
        safe_deploy: The label of the safe one, where it is another.
        safe_data: What the safe one says of the data.
        imports: A line above the unsafe one.
    """

    unsafe: str
    message: str
    safe: str
    deploy: str = "expand"
    safe_deploy: str = ""
    safe_data: str = "none"
    imports: str = ""


EXAMPLES = {
    "require-concurrent-index-creation": Example(
        'op.create_index("rag_jobs_type_idx", "rag_jobs", ["job_type"])',
        """
20260101000000_try.py:21: require-concurrent-index-creation
  CREATE INDEX rag_jobs_type_idx ON rag_jobs (job_type)
Blocks every write to rag_jobs until the index is built.
In a revision of its own:

    from ragschema.operations_v2 import concurrent_index, drop_concurrent_index


    def upgrade() -> None:
        concurrent_index("rag_jobs_type_idx", "rag_jobs", ["job_type"])


    def downgrade() -> None:
        drop_concurrent_index("rag_jobs_type_idx")
""",
        safe='concurrent_index("rag_jobs_type_idx", "rag_jobs", ["job_type"])',
    ),
    "an HNSW index": Example(
        """
op.create_index(
    "rag_chunks_half_idx",
    "rag_chunks",
    [sa.text("(embedding::halfvec(768)) halfvec_cosine_ops")],
    postgresql_using="hnsw",
    postgresql_with={"m": 16},
    postgresql_where=sa.text("ordinal > 0"),
)
""",
        """
20260101000000_try.py:21: require-concurrent-index-creation
  CREATE INDEX rag_chunks_half_idx ON rag_chunks USING hnsw ((embedding::halfvec(768)) halfvec_cosine_ops) WITH (m = 16) WHERE ordinal > 0
Blocks every write to rag_chunks until the index is built.
In a revision of its own:

    from ragschema.operations_v2 import concurrent_index, drop_concurrent_index


    def upgrade() -> None:
        concurrent_index(
            "rag_chunks_half_idx",
            "rag_chunks",
            ["(embedding::halfvec(768)) halfvec_cosine_ops"],
            using="hnsw",
            with_={"m": 16},
            where="ordinal > 0",
        )


    def downgrade() -> None:
        drop_concurrent_index("rag_chunks_half_idx")
""",
        safe='concurrent_index("i", "rag_chunks", ["(embedding::halfvec(768)) halfvec_cosine_ops"], using="hnsw")',
    ),
    "require-concurrent-index-deletion": Example(
        'op.drop_index("rag_jobs_old_idx", "rag_jobs")',
        """
20260101000000_try.py:21: require-concurrent-index-deletion
  DROP INDEX rag_jobs_old_idx
Blocks reads and writes of the index's table, as soon as it waits for a query that is running.
In a revision of its own:

    from ragschema.operations_v2 import drop_concurrent_index


    def upgrade() -> None:
        drop_concurrent_index("rag_jobs_old_idx")
""",
        safe='drop_concurrent_index("rag_jobs_old_idx")',
    ),
    "ban-concurrent-index-creation-in-transaction": Example(
        'op.execute("CREATE INDEX CONCURRENTLY rag_jobs_type_idx ON rag_jobs (job_type)")',
        """
20260101000000_try.py:21: ban-concurrent-index-creation-in-transaction
  CREATE INDEX CONCURRENTLY rag_jobs_type_idx ON rag_jobs (job_type)
PostgreSQL refuses CREATE INDEX CONCURRENTLY in a transaction.
In a revision of its own:

    from ragschema.operations_v2 import concurrent_index, drop_concurrent_index


    def upgrade() -> None:
        concurrent_index("rag_jobs_type_idx", "rag_jobs", ["job_type"])


    def downgrade() -> None:
        drop_concurrent_index("rag_jobs_type_idx")
""",
        safe="""
with op.get_context().autocommit_block():
    op.execute("CREATE INDEX CONCURRENTLY rag_jobs_type_idx ON rag_jobs (job_type)")
""",
    ),
    "disallowed-unique-constraint": Example(
        'op.create_unique_constraint("rag_jobs_job_type_key", "rag_jobs", ["job_type"])',
        """
20260101000000_try.py:21: disallowed-unique-constraint
  ALTER TABLE rag_jobs ADD CONSTRAINT rag_jobs_job_type_key UNIQUE (job_type)
Blocks reads and writes of rag_jobs until the unique index is built.
In a revision of its own:

    from ragschema.operations_v2 import add_unique


    def upgrade() -> None:
        add_unique("rag_jobs", "rag_jobs_job_type_key", ["job_type"])


    def downgrade() -> None:
        op.drop_constraint("rag_jobs_job_type_key", "rag_jobs", type_="unique")
""",
        safe='add_unique("rag_jobs", "rag_jobs_job_type_key", ["job_type"])',
    ),
    "adding-serial-primary-key-field": Example(
        'op.execute("ALTER TABLE rag_jobs ADD PRIMARY KEY (id)")',
        """
20260101000000_try.py:21: adding-serial-primary-key-field
  ALTER TABLE rag_jobs ADD PRIMARY KEY (id)
Blocks reads and writes of rag_jobs until the index of the key is built.
In a revision of its own, on columns that are NOT NULL:

    from ragschema.operations_v2 import concurrent_index


    def upgrade() -> None:
        concurrent_index("rag_jobs_pkey", "rag_jobs", ["id"], unique=True)


    # and in the next revision (`rag migrate create`):
    def upgrade() -> None:
        op.execute("ALTER TABLE rag_jobs ADD CONSTRAINT rag_jobs_pkey PRIMARY KEY USING INDEX rag_jobs_pkey")
""",
        safe='op.execute("ALTER TABLE rag_jobs ADD CONSTRAINT rag_jobs_pkey PRIMARY KEY USING INDEX rag_jobs_pkey")',
    ),
    "adding-foreign-key-constraint": Example(
        """
op.create_foreign_key(
    "rag_jobs_document_id_fkey",
    "rag_jobs",
    "rag_documents",
    ["document_id"],
    ["id"],
    ondelete="CASCADE",
    deferrable=True,
    initially="DEFERRED",
)
""",
        """
20260101000000_try.py:21: adding-foreign-key-constraint
  ALTER TABLE rag_jobs ADD CONSTRAINT rag_jobs_document_id_fkey FOREIGN KEY(document_id) REFERENCES rag_documents (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFE...
Blocks writes to rag_jobs and rag_documents while every row of rag_jobs is checked.
In a revision of its own:

    from ragschema.operations_v2 import add_foreign_key, validate_constraint


    def upgrade() -> None:
        add_foreign_key(
            "rag_jobs",
            "rag_jobs_document_id_fkey",
            ["document_id"],
            "rag_documents",
            ["id"],
            on_delete="CASCADE",
            initially_deferred=True,
        )
        validate_constraint("rag_jobs", "rag_jobs_document_id_fkey")


    def downgrade() -> None:
        op.drop_constraint("rag_jobs_document_id_fkey", "rag_jobs", type_="foreignkey")
""",
        safe="""
add_foreign_key("rag_jobs", "rag_jobs_document_id_fkey", ["document_id"], "rag_documents", ["id"])
validate_constraint("rag_jobs", "rag_jobs_document_id_fkey")
""",
    ),
    "a foreign key without a name": Example(
        'op.create_foreign_key(None, "rag_jobs", "rag_documents", ["document_id"], ["id"], deferrable=True)',
        """
20260101000000_try.py:21: adding-foreign-key-constraint
  ALTER TABLE rag_jobs ADD FOREIGN KEY(document_id) REFERENCES rag_documents (id) DEFERRABLE
Blocks writes to rag_jobs and rag_documents while every row of rag_jobs is checked.
In a revision of its own:

    def upgrade() -> None:
        op.execute("ALTER TABLE rag_jobs ADD FOREIGN KEY(document_id) REFERENCES rag_documents (id) DEFERRABLE NOT VALID")


    def downgrade() -> None:
        op.drop_constraint("rag_jobs_document_id_fkey", "rag_jobs", type_="foreignkey")


    # and in the next revision (`rag migrate create`):
    from ragschema.operations_v2 import validate_constraint


    def upgrade() -> None:
        validate_constraint("rag_jobs", "rag_jobs_document_id_fkey")
""",
        safe='add_foreign_key("rag_jobs", "k", ["document_id"], "rag_documents", ["id"], initially_deferred=True)',
    ),
    "constraint-missing-not-valid": Example(
        'op.create_check_constraint("rag_chunks_ordinal_check", "rag_chunks", "ordinal >= 0")',
        """
20260101000000_try.py:21: constraint-missing-not-valid
  ALTER TABLE rag_chunks ADD CONSTRAINT rag_chunks_ordinal_check CHECK (ordinal >= 0)
Blocks reads and writes of rag_chunks while every row is checked.
In a revision of its own:

    from ragschema.operations_v2 import add_check, validate_constraint


    def upgrade() -> None:
        add_check("rag_chunks", "rag_chunks_ordinal_check", "ordinal >= 0")
        validate_constraint("rag_chunks", "rag_chunks_ordinal_check")


    def downgrade() -> None:
        op.drop_constraint("rag_chunks_ordinal_check", "rag_chunks", type_="check")
""",
        safe="""
add_check("rag_chunks", "rag_chunks_ordinal_check", "ordinal >= 0")
validate_constraint("rag_chunks", "rag_chunks_ordinal_check")
""",
    ),
    "VALIDATE under the lock": Example(
        """
add_check("rag_chunks", "rag_chunks_ordinal_check", "ordinal >= 0")
op.execute("ALTER TABLE rag_chunks VALIDATE CONSTRAINT rag_chunks_ordinal_check")
""",
        """
20260101000000_try.py:22: constraint-missing-not-valid
  ALTER TABLE rag_chunks VALIDATE CONSTRAINT rag_chunks_ordinal_check
Blocks reads and writes of rag_chunks, because the lock that added the constraint is still held.
In the next revision, when that lock is gone:

    from ragschema.operations_v2 import validate_constraint


    def upgrade() -> None:
        validate_constraint("rag_chunks", "rag_chunks_ordinal_check")
""",
        safe='validate_constraint("rag_chunks", "rag_chunks_ordinal_check")',
    ),
    "adding-not-nullable-field": Example(
        'op.alter_column("rag_jobs", "error_message", nullable=False)',
        """
20260101000000_try.py:21: adding-not-nullable-field
  ALTER TABLE rag_jobs ALTER COLUMN error_message SET NOT NULL
Blocks reads and writes of rag_jobs while every row is read.
In a revision of its own:

    from ragschema.operations_v2 import set_not_null


    def upgrade() -> None:
        set_not_null("rag_jobs", "error_message")


    def downgrade() -> None:
        op.alter_column("rag_jobs", "error_message", nullable=True)
""",
        safe='set_not_null("rag_jobs", "error_message")',
    ),
    "adding-required-field": Example(
        'op.add_column("rag_jobs", sa.Column("kind", sa.Text(), nullable=False))',
        """
20260101000000_try.py:21: adding-required-field
  ALTER TABLE rag_jobs ADD COLUMN kind TEXT NOT NULL
Fails where rag_jobs has rows; and after it the INSERTs of the code that runs now fail.
Add it nullable; forbid NULL when the code writes it and every row has a value:

    def upgrade() -> None:
        op.execute("ALTER TABLE rag_jobs ADD COLUMN kind TEXT")


    # and in the next revision (`rag migrate create`):
    from ragschema.operations_v2 import backfill, set_not_null


    def upgrade() -> None:
        backfill("rag_jobs", "kind = 'what old rows get'", "kind IS NULL")
        set_not_null("rag_jobs", "kind")
""",
        safe='op.add_column("rag_jobs", sa.Column("kind", sa.Text(), server_default="none", nullable=False))',
    ),
    "adding-field-with-default": Example(
        """
op.add_column(
    "rag_jobs",
    sa.Column("token", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
)
""",
        """
20260101000000_try.py:21: adding-field-with-default
  ALTER TABLE rag_jobs ADD COLUMN token UUID DEFAULT gen_random_uuid() NOT NULL
Rewrites rag_jobs, and blocks its reads and writes meanwhile.
Set the default when the column is there, and fill it in for the old rows:

    def upgrade() -> None:
        op.execute("ALTER TABLE rag_jobs ADD COLUMN token UUID")
        op.execute("ALTER TABLE rag_jobs ALTER COLUMN token SET DEFAULT gen_random_uuid()")


    # and in the next revision (`rag migrate create`):
    from ragschema.operations_v2 import backfill, set_not_null


    def upgrade() -> None:
        backfill("rag_jobs", "token = gen_random_uuid()", "token IS NULL")
        set_not_null("rag_jobs", "token")
""",
        safe='op.add_column("rag_jobs", sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()")))',
    ),
    "a generated column": Example(
        """
op.add_column(
    "rag_chunks",
    sa.Column("words", postgresql.TSVECTOR(), sa.Computed("to_tsvector('simple', content)", persisted=True)),
)
""",
        """
20260101000000_try.py:21: adding-field-with-default
  ALTER TABLE rag_chunks ADD COLUMN words TSVECTOR GENERATED ALWAYS AS (to_tsvector('simple', content)) STORED
Rewrites rag_chunks, and blocks its reads and writes meanwhile.
Add a plain column that whoever writes the row sets, and fill it in for the old rows:

    def upgrade() -> None:
        op.execute("ALTER TABLE rag_chunks ADD COLUMN words TSVECTOR")


    # and in the next revision (`rag migrate create`):
    from ragschema.operations_v2 import backfill


    def upgrade() -> None:
        backfill("rag_chunks", "words = to_tsvector('simple', content)", "words IS NULL")
""",
        safe='op.add_column("rag_chunks", sa.Column("words", postgresql.TSVECTOR()))',
    ),
    "a column that needs quotes": Example(
        'op.add_column("rag_jobs", sa.Column("order", sa.Text(), nullable=False))',
        """
20260101000000_try.py:21: adding-required-field
  ALTER TABLE rag_jobs ADD COLUMN "order" TEXT NOT NULL
Fails where rag_jobs has rows; and after it the INSERTs of the code that runs now fail.
Add it nullable; forbid NULL when the code writes it and every row has a value:

    def upgrade() -> None:
        op.execute('ALTER TABLE rag_jobs ADD COLUMN "order" TEXT')


    # and in the next revision (`rag migrate create`):
    from ragschema.operations_v2 import backfill, set_not_null


    def upgrade() -> None:
        backfill("rag_jobs", "\\"order\\" = 'what old rows get'", '"order" IS NULL')
        set_not_null("rag_jobs", "order")
""",
        safe='op.add_column("rag_jobs", sa.Column("order", sa.Text()))',
    ),
    "changing-column-type": Example(
        'op.alter_column("rag_jobs", "importance", type_=sa.BigInteger())',
        """
20260101000000_try.py:21: changing-column-type
  ALTER TABLE rag_jobs ALTER COLUMN importance TYPE BIGINT
Rewrites rag_jobs, blocks its reads and writes meanwhile, and breaks code that knows the old type.
Add a second column, write both, and drop the first in a contract revision:

    def upgrade() -> None:
        op.execute("ALTER TABLE rag_jobs ADD COLUMN importance_new BIGINT")


    # and in the next revision (`rag migrate create`):
    from ragschema.operations_v2 import backfill


    def upgrade() -> None:
        backfill(
            "rag_jobs",
            "importance_new = importance::BIGINT",
            "importance_new IS NULL AND importance IS NOT NULL",
        )


    # and in a contract revision, when nothing reads the first:
    def upgrade() -> None:
        op.drop_column("rag_jobs", "importance")
""",
        safe='op.add_column("rag_jobs", sa.Column("importance_new", sa.BigInteger()))',
    ),
    "renaming-column": Example(
        'op.alter_column("rag_jobs", "payload", new_column_name="arguments")',
        """
20260101000000_try.py:21: renaming-column
  ALTER TABLE rag_jobs RENAME payload TO arguments
Breaks the code that runs now, which reads rag_jobs.payload, until the last of it is gone.
Give it the new name in Python only, where its model keeps its type:

    arguments: Mapped[...] = mapped_column("payload")
""",
        safe='op.add_column("rag_jobs", sa.Column("arguments", postgresql.JSONB()))',
    ),
    "renaming-table": Example(
        'op.rename_table("rag_jobs", "rag_tasks")',
        """
20260101000000_try.py:21: renaming-table
  ALTER TABLE rag_jobs RENAME TO rag_tasks
Breaks the code that runs now, which reads rag_jobs, until the last of it is gone.
Give the new name to the model's class only:

    __tablename__ = "rag_jobs"
""",
        safe='op.create_table("rag_tasks", sa.Column("id", sa.Uuid(), primary_key=True))',
    ),
    "ban-drop-column": Example(
        'op.drop_column("rag_jobs", "old")',
        """
20260101000000_try.py:21: ban-drop-column
  ALTER TABLE rag_jobs DROP COLUMN "old"
Breaks the code that runs now, where it still uses column old of rag_jobs.
Remove it in a revision that runs after that code is gone, and say so in its docstring:

    Deploy: contract (after the last code that used column old of rag_jobs is gone).
""",
        safe='op.drop_column("rag_jobs", "old")',
        safe_deploy="contract",
    ),
    "ban-drop-table": Example(
        'op.drop_table("rag_old")',
        """
20260101000000_try.py:21: ban-drop-table
  DROP TABLE rag_old
Breaks the code that runs now, where it still uses table rag_old.
Remove it in a revision that runs after that code is gone, and say so in its docstring:

    Deploy: contract (after the last code that used table rag_old is gone).
""",
        safe='op.drop_table("rag_old")',
        safe_deploy="contract",
    ),
    "ban-drop-extension": Example(
        'op.execute("DROP EXTENSION vector")',
        """
20260101000000_try.py:21: ban-drop-extension
  DROP EXTENSION vector
Takes the extension from every schema of the database, and fails where one uses it.
Delete the statement: an extension stays.
""",
        safe='op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")',
        deploy="contract",
    ),
    "a rule in squawk's own words": Example(
        'op.add_column("rag_jobs", sa.Column("kind", sa.String(20)))',
        """
20260101000000_try.py:21: prefer-text-field
  ALTER TABLE rag_jobs ADD COLUMN kind VARCHAR(20)
Changing the size of a `varchar` field requires an `ACCESS EXCLUSIVE` lock, that will prevent all reads and writes to the table.
Use a `TEXT` field with a `CHECK` constraint. See https://squawkhq.com/docs/prefer-text-field.
""",
        safe='op.add_column("rag_jobs", sa.Column("kind", sa.Text()))',
    ),
    "syntax-error": Example(
        'op.execute("ALTER TABLE rag_jobs ADD COLUMN")',
        """
20260101000000_try.py:21: syntax-error
  ALTER TABLE rag_jobs ADD COLUMN
expected name
See https://squawkhq.com/docs/syntax-error.
""",
        safe='op.execute("ALTER TABLE rag_jobs ADD COLUMN kind text")',
    ),
    "autocommit-not-alone": Example(
        """
op.add_column("rag_jobs", sa.Column("kind", sa.Text()))
with op.get_context().autocommit_block():
    op.execute("CREATE INDEX CONCURRENTLY rag_jobs_kind_idx ON rag_jobs (kind)")
""",
        """
20260101000000_try.py:22: autocommit-not-alone
An autocommit block commits what is before it: where it fails, that stays without its revision, and the next run fails on it.
Give it a revision of its own:

    def upgrade() -> None:
        op.add_column("rag_jobs", sa.Column("kind", sa.Text()))


    # and in the next revision (`rag migrate create`):
    def upgrade() -> None:
        with op.get_context().autocommit_block():
            op.execute("CREATE INDEX CONCURRENTLY rag_jobs_kind_idx ON rag_jobs (kind)")
""",
        safe="""
with op.get_context().autocommit_block():
    op.execute("ALTER TYPE job_status ADD VALUE 'paused'")
    op.execute("ALTER TYPE job_status ADD VALUE 'waiting'")
""",
    ),
    "a helper that commits, not alone": Example(
        """
concurrent_index("rag_jobs_type_idx", "rag_jobs", ["job_type"])
op.add_column("rag_jobs", sa.Column("kind", sa.Text()))
""",
        """
20260101000000_try.py:21: autocommit-not-alone
An autocommit block commits what is before it: where it fails, that stays without its revision, and the next run fails on it.
Give it a revision of its own:

    def upgrade() -> None:
        op.add_column("rag_jobs", sa.Column("kind", sa.Text()))


    # and in the next revision (`rag migrate create`):
    from ragschema.operations_v2 import concurrent_index


    def upgrade() -> None:
        concurrent_index("rag_jobs_type_idx", "rag_jobs", ["job_type"])
""",
        safe="""
concurrent_index("rag_jobs_type_idx", "rag_jobs", ["job_type"])
concurrent_index("rag_jobs_updated_at_idx", "rag_jobs", ["updated_at"])
""",
    ),
    "two autocommit blocks": Example(
        """
with op.get_context().autocommit_block():
    op.execute("CREATE INDEX CONCURRENTLY rag_jobs_type_idx ON rag_jobs (job_type)")
with op.get_context().autocommit_block():
    op.execute("CREATE INDEX CONCURRENTLY rag_jobs_updated_at_idx ON rag_jobs (updated_at)")
""",
        """
20260101000000_try.py:23: autocommit-not-alone
An autocommit block commits what is before it: where it fails, that stays without its revision, and the next run fails on it.
Give it a revision of its own:

    def upgrade() -> None:
        with op.get_context().autocommit_block():
            op.execute("CREATE INDEX CONCURRENTLY rag_jobs_type_idx ON rag_jobs (job_type)")


    # and in the next revision (`rag migrate create`):
    def upgrade() -> None:
        with op.get_context().autocommit_block():
            op.execute("CREATE INDEX CONCURRENTLY rag_jobs_updated_at_idx ON rag_jobs (updated_at)")
""",
        safe="""
with op.get_context().autocommit_block():
    op.execute("CREATE INDEX CONCURRENTLY rag_jobs_type_idx ON rag_jobs (job_type)")
""",
    ),
    "session-set": Example(
        """op.execute("SET maintenance_work_mem = '1GB'")""",
        """
20260101000000_try.py:21: session-set
  SET maintenance_work_mem = '1GB'
Outlives the revision: it holds for every later one of the run, over what the runner set; behind a pooler for other clients too.
For this revision's transaction only:

    op.execute("SET LOCAL maintenance_work_mem = '1GB'")
""",
        safe="""op.execute("SET LOCAL maintenance_work_mem = '1GB'")""",
    ),
    "SET lock_timeout": Example(
        'op.execute("SET SESSION lock_timeout TO 0")',
        """
20260101000000_try.py:21: session-set
  SET SESSION lock_timeout TO 0
Outlives the revision: it holds for every later one of the run, over what the runner set; behind a pooler for other clients too.
Delete it, and run `rag migrate --lock-timeout` where 2 s are wrong.
""",
        safe='op.execute("SET CONSTRAINTS ALL IMMEDIATE")',
    ),
    "set_config": Example(
        """op.execute("SELECT set_config('search_path', 'other', false)")""",
        """
20260101000000_try.py:21: session-set
  SELECT set_config('search_path', 'other', false)
Outlives the revision: it holds for every later one of the run, over what the runner set; behind a pooler for other clients too.
Delete it: names resolve in the schema that is being migrated.
""",
        safe="""op.execute("SELECT set_config('work_mem', '64MB', true)")""",
    ),
    "RESET ROLE": Example(
        'op.execute("RESET ROLE")',
        """
20260101000000_try.py:21: session-set
  RESET ROLE
Outlives the revision: it holds for every later one of the run, over what the runner set; behind a pooler for other clients too.
Delete it, and run `rag migrate --role`.
""",
        safe='op.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")',
    ),
    "concurrent-if-not-exists": Example(
        """
with op.get_context().autocommit_block():
    op.create_index(
        "rag_jobs_type_idx", "rag_jobs", ["job_type"], postgresql_concurrently=True, if_not_exists=True
    )
""",
        """
20260101000000_try.py:22: concurrent-if-not-exists
  CREATE INDEX CONCURRENTLY IF NOT EXISTS rag_jobs_type_idx ON rag_jobs (job_type)
After a failed build it keeps the INVALID index rag_jobs_type_idx and succeeds: writes pay for an index that no query uses.
Let the helper drop what a failed build left:

    from ragschema.operations_v2 import concurrent_index, drop_concurrent_index


    def upgrade() -> None:
        concurrent_index("rag_jobs_type_idx", "rag_jobs", ["job_type"])


    def downgrade() -> None:
        drop_concurrent_index("rag_jobs_type_idx")
""",
        safe='concurrent_index("rag_jobs_type_idx", "rag_jobs", ["job_type"])',
    ),
    "missing-deploy-label": Example(
        'op.add_column("rag_jobs", sa.Column("kind", sa.Text()))',
        """
20260101000000_try.py:1: missing-deploy-label
`rag migrate --expand-only` cannot tell whether code that runs now can live with it.
Write one of the two into the docstring:

    Deploy: expand (before the code that needs it).
    Deploy: contract (after the last code that used it is gone).
""",
        safe='op.add_column("rag_jobs", sa.Column("kind", sa.Text()))',
        deploy="soon",
        safe_deploy="expand",
    ),
    "removed-but-modelled": Example(
        'op.drop_column("rag_document_versions", "title")',
        """
20260101000000_try.py:21: removed-but-modelled
  ALTER TABLE rag_document_versions DROP COLUMN title
The models of this package still have column title of rag_document_versions: statements built from them fail, or `alembic check` asks for it again.
Ship the models without it first, and this revision after that code is gone:

    # ragschema/schema/documents.py: delete title of class DocumentVersion
""",
        safe='op.drop_column("rag_document_versions", "headline")',
        deploy="contract",
    ),
    "a table in the models": Example(
        'op.drop_table("rag_jobs")',
        """
20260101000000_try.py:21: removed-but-modelled
  DROP TABLE rag_jobs
The models of this package still have table rag_jobs: statements built from them fail, or `alembic check` asks for it again.
Ship the models without it first, and this revision after that code is gone:

    # ragschema/schema/jobs.py: delete class Job
""",
        safe='op.drop_table("rag_tasks")',
        deploy="contract",
    ),
    "an index in the models": Example(
        'drop_concurrent_index("rag_jobs_status_job_type_idx")',
        """
20260101000000_try.py:21: removed-but-modelled
  DROP INDEX CONCURRENTLY rag_jobs_status_job_type_idx
The models of this package still have index rag_jobs_status_job_type_idx: statements built from them fail, or `alembic check` asks for it again.
Ship the models without it first, and this revision after that code is gone:

    # ragschema/schema/jobs.py: delete the index rag_jobs_status_job_type_idx of class Job
""",
        safe="""
op.execute("DROP INDEX rag_chunks_embedding_idx")  # lint: allow require-concurrent-index-deletion: built again below
op.execute("CREATE INDEX rag_chunks_embedding_idx ON rag_chunks USING hnsw (embedding vector_l2_ops)")  # lint: allow require-concurrent-index-creation: an example
""",
        deploy="contract",
    ),
    "a constraint in the models": Example(
        'op.drop_constraint("fk_current_version", "rag_documents")',
        """
20260101000000_try.py:21: removed-but-modelled
  ALTER TABLE rag_documents DROP CONSTRAINT fk_current_version
The models of this package still have constraint fk_current_version of rag_documents: statements built from them fail, or `alembic check` asks for it again.
Ship the models without it first, and this revision after that code is gone:

    # ragschema/schema/documents.py: delete the constraint fk_current_version of class Document
""",
        safe='op.drop_constraint("rag_documents_old_check", "rag_documents")',
        deploy="contract",
    ),
    "two-tables-locked": Example(
        """
op.add_column("rag_jobs", sa.Column("kind", sa.Text()))
op.add_column("rag_chunks", sa.Column("kind", sa.Text()))
""",
        """
20260101000000_try.py:22: two-tables-locked
  ALTER TABLE rag_chunks ADD COLUMN kind TEXT
Holds the lock on rag_jobs while it waits for rag_chunks: readers or writers of both stand still, and a session that takes them the other way round deadlocks.
Lock one table a revision:

    def upgrade() -> None:
        op.add_column("rag_jobs", sa.Column("kind", sa.Text()))


    # and in the next revision (`rag migrate create`):
    def upgrade() -> None:
        op.add_column("rag_chunks", sa.Column("kind", sa.Text()))
""",
        safe="""
op.add_column("rag_jobs", sa.Column("kind", sa.Text()))
op.add_column("rag_jobs", sa.Column("place", sa.Text()))
""",
    ),
    "two-statements": Example(
        """op.execute("UPDATE rag_jobs SET status = 'new'; UPDATE rag_jobs SET error_message = 'a;b'")""",
        """
20260101000000_try.py:21: two-statements
  UPDATE rag_jobs SET status = 'new'
A distributed database refuses two statements in one string, and an error does not say which of them failed.
One statement in each op.execute:

    op.execute("UPDATE rag_jobs SET status = 'new'")
    op.execute("UPDATE rag_jobs SET error_message = 'a;b'")
""",
        safe="""op.execute("UPDATE rag_jobs SET error_message = 'a;b';  -- one; only")""",
    ),
    "models-import": Example(
        "op.execute(sa.update(Job).values(error_message=None))",
        """
20260101000000_try.py:15: models-import
ragschema.models.Job is what it is at head: when it changes, this revision does something else, or fails.
Write out the names that the revision needs:

    documents = sa.table("rag_documents", sa.column("id"), sa.column("article_id"))
""",
        safe='op.execute(sa.update(sa.table("rag_jobs", sa.column("error_message"))).values(error_message=None))',
        imports="from ragschema.models import Job",
    ),
    "needs-a-database": Example(
        'op.get_bind().execute(sa.text("SELECT 1")).scalar()',
        """
20260101000000_try.py:21: needs-a-database
Where there is no database, `rag migrate --sql` fails here, and nobody can tell what it drops: AttributeError: 'NoneType' object has no attribute 'scalar'
Read from the database only where there is one:

    if not op.get_context().as_sql:
        ...
""",
        safe="""
if not op.get_context().as_sql:
    op.get_bind().execute(sa.text("SELECT 1")).scalar()
""",
    ),
    "undeclared-deletion": Example(
        """op.execute("DELETE FROM rag_jobs WHERE status = 'failed'")""",
        """
20260101000000_try.py:21: undeclared-deletion
  DELETE FROM rag_jobs WHERE status = 'failed'
Destroys rows of rag_jobs, so the run is refused without --allow-data-loss, and nobody who reads the refusal learns why.
Say in the docstring which rows go, and why nobody misses them:

    Data: deletes the rows of rag_jobs that ...
""",
        safe="""op.execute("DELETE FROM rag_jobs WHERE status = 'failed'")""",
        safe_data="deletes failed jobs, which nobody reads",
    ),
    "destructive-autocommit": Example(
        """
with op.get_context().autocommit_block():
    op.execute("DO $$ BEGIN PERFORM drop_old_partitions(); END $$")
""",
        """
20260101000000_try.py:22: destructive-autocommit
  DO $$ BEGIN PERFORM drop_old_partitions(); END $$
May destroy rows where nothing can be rolled back, so the run is refused without --allow-data-loss.
Take it out of the autocommit block, into a revision of its own.
""",
        safe="op.execute('DO $$ BEGIN PERFORM drop_old_partitions(); END $$')",
    ),
}
