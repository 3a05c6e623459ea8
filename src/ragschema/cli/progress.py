"""A bar for index builds on a terminal; elsewhere the migration logs a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ragschema.watch import Build

Show = Callable[["Build | None"], None]


@contextmanager
def showing_builds() -> Iterator[Show | None]:
    """Yield what shows an index build on this terminal, or None where there is none."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = None

        def show(build: Build | None) -> None:
            nonlocal task
            if build is None:
                if task is not None:
                    progress.remove_task(task)
                task = None
                return
            if task is None:
                task = progress.add_task("", total=1.0)
            description = f"{build.index}: {build.phase}"
            if build.fraction is None:
                progress.update(task, description=description, total=None)
            else:
                progress.update(task, description=description, total=1.0, completed=build.fraction)

        yield show
