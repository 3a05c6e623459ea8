"""A bar for index builds on a terminal; elsewhere the migration logs a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ragschema.migrations.watch import Build

Show = Callable[["Build | None"], None]


@contextmanager
def showing_builds() -> Iterator[Show | None]:
    """Yield what shows an index build on this terminal, or None where there is none."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID

    # rich sends standard output through its own console, here to standard error: only where both are seen
    with Progress(
        console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()
    ) as progress:
        shown: tuple[TaskID, str, bool] | None = None

        def show(build: Build | None) -> None:
            nonlocal shown
            text = f"{build.index}: {build.phase}" if build is not None else ""
            is_known = build is not None and build.fraction is not None
            if shown is not None and shown[1:] != (text, is_known):
                progress.remove_task(shown[0])
                shown = None
            if build is None:
                return
            if shown is None:  # a bar for each phase, for its own estimate
                shown = progress.add_task(text, total=1.0 if is_known else None), text, is_known
            if build.fraction is not None:
                progress.update(shown[0], completed=build.fraction)

        yield show
