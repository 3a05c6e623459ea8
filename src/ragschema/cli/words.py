"""Words of other programs, Alembic, Atlas and their like, and the command or option of ours that each means."""

from __future__ import annotations

from collections.abc import Sequence

_ROWS_GO = "It drops every table of ours, and their rows: it says which, and asks, first. Have a backup."
_LOOK = "rag migrate status"
_BACK = "rag migrate rollback REVISION"
_WRITE = 'rag migrate create "MESSAGE"'
_VERIFY = "rag migrate verify"
_ADOPT = "rag migrate adopt --baseline REVISION"
_RESET = "rag migrate rollback base"

_MIGRATE = {
    "rag migrate": "up upgrade deploy migrate latest run update execute head",
    "rag migrate --to REVISION": "goto upto up-to",
    "rag migrate rollback -1": "down undo revert redo",
    _BACK: "downgrade down-to downto back",
    _RESET: "reset drop clean fresh destroy wipe",
    _LOOK: "current heads version info pending state ls backup dump",
    "rag migrate history": "show list log branches showmigrations merge rebase squash edit",
    _WRITE: "revision new make generate add makemigrations makemigration",
    f"{_WRITE} --autogenerate": "dev autogenerate",
    _VERIFY: "check drift inspect compare",
    f"{_VERIFY}` to see what differs, or `{_WRITE} --autogenerate": "diff",
    _ADOPT: "set baseline import resolve",
    "rag migrate stamp REVISION": "force mark fake",
    "rag migrate init": "ensure_version ensure-version setup install bootstrap prepare",
    "rag migrate plan": "dry-run dryrun preview test simulate explain",
    "rag migrate --sql": "sql sqlmigrate script export",
    "rag migrate health": "doctor ping",
    "rag migrate repair": "fix heal reindex",
    "rag migrate hash": "sum checksum rehash",
    "rag migrate --host HOST --port PORT --database NAME --user USER": "migrate-manual",
}
_DB = {
    "rag db start": "up run serve create init",
    "rag db stop": "down shutdown kill",
    "rag db psql": "shell connect console cli sql",
    "rag db status": "info ps state log logs ls list",
    "rag db destroy": "drop reset clean delete rm remove wipe",
    "rag db url": "uri dsn",
}
_JOBS = {
    "rag jobs list": "ls show",
    "rag jobs stats": "status info count counts health",
    "rag jobs prune --older-than 30d": "delete clean cleanup purge rm remove clear vacuum",
    "rag jobs retry ID": "requeue rerun restart",
    "rag jobs cancel ID": "kill abort stop fail",
}
_MODELS = {
    "rag models list": "ls show status info count counts state",
    "rag models add KEY --dimensions D": "create new register make",
    "rag models drop KEY": "delete rm remove destroy retire purge",
    "rag models activate KEY": "use switch set promote",
    "rag models rollback": "back undo revert deactivate",
    "rag models backfill KEY": "embed fill reembed re-embed",
    "rag models index KEY": "reindex build rebuild",
    "rag models check-recall KEY": "recall check test verify health",
    "rag models rename KEY NEW_KEY": "mv move",
}
_INDEX = {
    "rag index health": "status info check recall list ls show stats",
    "rag index rebuild": "reindex repair fix heal create build",
    "rag index maintain": "vacuum auto run cron",
}
_DOCUMENTS = {
    "rag documents delete ARTICLE_ID": "rm remove hide trash archive",
    "rag documents undelete ARTICLE_ID": "restore recover unhide",
    "rag documents purge --deleted-before 30d": "prune destroy erase clean cleanup vacuum expire",
}
_CHAT = {
    "rag chat prune --before 90d": "delete clean cleanup purge rm remove clear vacuum",
}
_COLLECTIONS = {
    "rag collections list": "ls show status info count counts",
    "rag collections create NAME --description TEXT": "new make register",
    "rag collections add NAME ARTICLE_ID": "insert put join append fill",
    "rag collections remove NAME ARTICLE_ID": "rm take leave unlink exclude",
    "rag collections delete NAME": "drop destroy purge",
}
_TENANTS = {
    "rag tenants list": "ls show info count counts",
    "rag tenants create NAME": "new make add register provision",
    "rag tenants drop NAME": "delete rm remove destroy purge",
}
_GROUPS = {
    group: {word: command for command, words in table.items() for word in words.split()}
    for group, table in {
        "migrate": _MIGRATE,
        "db": _DB,
        "jobs": _JOBS,
        "models": _MODELS,
        "index": _INDEX,
        "documents": _DOCUMENTS,
        "chat": _CHAT,
        "collections": _COLLECTIONS,
        "tenants": _TENANTS,
    }.items()
}

_DATABASE_URL = "Write --database-url URL."
_PLAN = "Run `rag migrate plan`: it says what an upgrade would do, and changes nothing."
_SCHEMA = "Write --schema NAME."
_NO_PASSWORD = "Set DB_PASSWORD_FILE or DB_PASSWORD, or be asked: every user sees a command line."  # noqa: S105
_OPTIONS = {
    **dict.fromkeys(("--dry-run", "--dry_run", "--dryrun", "--simulate", "--preview"), _PLAN),
    **dict.fromkeys(("--url", "-u", "--uri", "--dsn", "--db-url", "--connection", "--conn"), _DATABASE_URL),
    **dict.fromkeys(("--password", "--pass", "-W"), _NO_PASSWORD),
    **dict.fromkeys(("--revisions-schema", "--search-path", "--search_path", "-n"), _SCHEMA),
    **dict.fromkeys(("--username", "-U"), "Write --user NAME."),
    **dict.fromkeys(("--db", "-d"), "Write --dbname NAME."),
    **dict.fromkeys(("--to-revision", "--target", "--revision", "-r"), "Write --to REVISION."),
    **dict.fromkeys(("--baseline", "--allow-dirty", "--baseline-version"), f"Run `{_ADOPT}`."),
    **dict.fromkeys(("--message", "-m"), f"Run `{_WRITE}`: the message needs no option."),
    **dict.fromkeys(("--auto-approve", "--no-input", "--noinput", "--assume-yes"), "Write --yes."),
    **dict.fromkeys(("--format", "--output", "-o"), "Write --json."),
    **dict.fromkeys(("--verbose", "-v", "--trace"), "Write --debug."),
    **dict.fromkeys(("--check", "--exit-status"), "Run `rag migrate status --exit-code`."),
    **dict.fromkeys(("--timeout", "--lock-wait"), "Write --wait, --wait-lock or --lock-timeout, see --help."),
    "-p": "Write --port PORT.",
    "-x": "Write --allow-data-loss or --expand-only.",
    "--offline": "Run `rag migrate --sql`.",
    "--autogenerate": f"Run `{_WRITE} --autogenerate`.",
    "--fake": "Run `rag migrate stamp REVISION`.",
}
_OPTIONS_OF = {
    ("rollback", "--dry-run"): "Leave it out: the command says what it would reverse, and asks.",
    ("prune", "--dry-run"): "Leave it out: without --yes the jobs are only counted.",
    ("prune", "--older-than"): "Write --before DURATION.",
}


def find_command(group: str, word: str, rest: Sequence[str] = ()) -> str | None:
    """Return the command of ours that a word of another program means, with what was written after it.

    Args:
        group: A group of commands, such as ``migrate``.
        word: What stands in the command's place.
        rest: What stands behind it.
    """
    command = _GROUPS.get(group, {}).get(word)
    if command is None:
        return None
    if command == "rag migrate":
        if "--dry-run" in rest:
            return "rag migrate plan"
        if "--sql" in rest:
            return "rag migrate --sql"
        target = next((each for each in rest if not each.startswith("-")), "head")
        return command if target in ("head", "heads", "latest") else f"{command} --to {target}"
    if command == _BACK and rest and (rest[0][:1] != "-" or rest[0][1:].isdecimal()):
        return command.replace("REVISION", rest[0])
    return f"{command} --autogenerate" if command == _WRITE and "--autogenerate" in rest else command


def find_warning(command: str) -> str:
    """Return what to mind before a command that stands for a word of another program is run; often nothing."""
    return _ROWS_GO if command == _RESET else ""


def find_option(command: str, option: str) -> str | None:
    """Return what to do instead of an option of other programs."""
    option = option.partition("=")[0]
    return _OPTIONS_OF.get((command, option)) or _OPTIONS.get(option)
