"""The ``rag`` command: parse, call, print, exit code. Commands import what they need when they run."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run ``rag``."""
    _open_streams()
    arguments = sys.argv[1:]
    if arguments in (["migrate"], ["migrate", "status"]):
        gc.disable()  # an answer at head is over before there is garbage; a tenth of its time
        from ragschema.cli.quick import answer_at_head

        if answer_at_head(arguments):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)  # nothing is open: taking the interpreter apart would be a tenth more
        gc.enable()
    from ragschema.cli.app import run

    run()


def _open_streams() -> None:
    """Open those of the standard streams that this process was started without, as a daemon may be: to nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        # the descriptor too is given to no connection then: the lowest is taken
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 pathlib costs start-up; it is never closed
