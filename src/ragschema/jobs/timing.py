"""Times of a schedule: what its cron text, or its span of time, says of the next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from ragschema.jobs.records import LONGEST, JobError
from ragschema.values import check_text
from ragschema.words import counted

_SHORTEST = timedelta(seconds=1)


def check_timing(cron: str | None, every: timedelta | None, timezone: str) -> None:
    """Refuse what says no time, or two.

    Raises:
        JobError: Not exactly one of ``cron`` and ``every`` is given, or one cannot be read.
    """
    if (cron is None) == (every is None):
        raise JobError(
            f"A schedule has {'both' if cron is not None else 'neither'} cron and every.",
            "Say when by one of them: cron='0 3 * * *', or every=timedelta(hours=1).",
        )
    if every is not None and not (isinstance(every, timedelta) and _SHORTEST <= every <= LONGEST):
        raise JobError(
            f"every is {every!r}.", "Pass a timedelta from a second to a century: every=timedelta(hours=1)."
        )
    if cron is not None:
        check_text("cron", cron, JobError)
    find_next(cron, every, timezone, datetime.now(UTC))


def find_next(
    cron: str | None, every: timedelta | None, timezone: str, now: datetime, *, due_at: datetime | None = None
) -> datetime:
    """Return the first time of a schedule after now, in UTC.

    A fixed time of day that a change of the clocks leaves out comes at the change, and one that comes twice is taken
    once; ``* * * * *`` and the like follow the time that passes: as Debian's cron does.

    Args:
        cron: Five fields, read by the clock of ``timezone``.
        every: The time from one to the next, as it passes: a day is 24 hours.
        timezone: A name of the IANA database.
        now: Aware.
        due_at: What was due at last, from which the steps of ``every`` are counted.

    Raises:
        JobError: The cron text or the time zone cannot be read, or the time never comes.
    """
    now = now.astimezone(UTC)
    zone = _find_zone(timezone)
    if every is not None:
        start = min(now if due_at is None else due_at.astimezone(UTC), now)
        return start + ((now - start) // every + 1) * every
    for time in _read_cron(cron or "", now.astimezone(zone)):
        if (found := time.astimezone(UTC)) > now:  # of an hour that comes twice it returns the first
            return found
    raise JobError(f"cron {cron!r} never comes.", "Look at its day and month.")


def _read_cron(cron: str, start: datetime) -> CronSim:
    remedy = "Write five fields, minute, hour, day of month, month and day of week, such as '0 3 * * *'."
    if (count := len(cron.split())) != 5:
        raise JobError(f"cron {cron!r} has {counted(count, 'field')}.", remedy)
    try:
        return CronSim(cron, start)
    except (CronSimError, ValueError) as exc:
        raise JobError(f"cron {cron!r} cannot be read: {exc}.", remedy) from exc


def _find_zone(timezone: str) -> ZoneInfo:
    check_text("timezone", timezone, JobError)
    try:
        return ZoneInfo(timezone)
    except (KeyError, ValueError, OSError) as exc:  # OSError: a directory of zones, such as Europe
        raise JobError(
            f"timezone {timezone!r} is not known here.",
            "Pass a name such as 'Europe/Vienna'; where the system has no time zones, install tzdata.",
        ) from exc
