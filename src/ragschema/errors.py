"""Errors, each with its exit code.

An error is one sentence of fact, one of remedy, then evidence. The command line prints those three and
exits with ``exit_code``; a service catches `RagSchemaError` or the class it cares about.
"""


class RagSchemaError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        message: One sentence saying what is wrong. Never holds a password.
        remedy: One sentence saying what to do next.
        evidence: Lines that support the message, such as a server's own words.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "", evidence: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.evidence = evidence

    def __str__(self) -> str:
        return "\n".join(part for part in (self.message, self.remedy, self.evidence) if part)


class UsageError(RagSchemaError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 2


class UnknownModel(UsageError):
    """No embedding model of that key is registered."""


class UnknownCollection(UsageError):
    """There is no collection of that id or name."""


class ModelRefused(RagSchemaError):
    """An embedding model is not in a state for what was asked; nothing was changed."""


class ImportRefused(RagSchemaError):
    """Tables of another library cannot be imported as was asked; what was committed before stays."""


class DatabaseAhead(RagSchemaError):
    """The database is at a revision this package does not know."""

    exit_code = 6


class DatabaseUnreachable(RagSchemaError):
    """No connection could be made to the database."""

    exit_code = 69


class NodeUnreachable(DatabaseUnreachable):
    """The database answers, and a node of the cluster of Citus that it is in does not."""


class LockNotObtained(RagSchemaError):
    """Another deployer, or a blocking session, held on for too long; nothing is broken, run again."""

    exit_code = 75


class ConfigurationError(RagSchemaError):
    """A setting is missing, unreadable or refused."""

    exit_code = 78


class DependentsFound(RagSchemaError):
    """Something that is not ours depends on what a step would drop, which PostgreSQL would refuse."""


class DatabaseMissing(ConfigurationError):
    """The server has no database of that name."""


class DataLossRefused(RagSchemaError):
    """A step would destroy rows or values, and was not told that it may."""


class TenantRefused(RagSchemaError):
    """A tenant cannot be made, placed, changed or dropped as was asked; nothing was changed."""


class TenantGone(RagSchemaError):
    """A tenant was dropped while all of them were migrated; it was not made again."""


class RowsHidden(RagSchemaError):
    """Row security hides rows from the role that is to count, change or judge them."""

    exit_code = 78


class UnmanagedDatabase(RagSchemaError):
    """The database has our tables, but no version row says which revision they are."""

    exit_code = 78


class RevisionRefused(RagSchemaError):
    """A revision's own check, before or after it, found rows that it cannot work with."""


class DriftFound(RagSchemaError):
    """The database is not what its revision says."""

    exit_code = 4


class PlanStale(RagSchemaError):
    """The database is not what it was when the plan was made."""


class PendingRevisions(RagSchemaError):
    """The database is not yet at the revision that is needed."""

    exit_code = 3
