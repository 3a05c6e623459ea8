"""The blocks of a page, run in order as one script: ``uv run python docs/run.py search.md``, from the root.

Blocks of Python share their names; of a console block each line that begins with ``$`` is run.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent


def script_of(page: str) -> str:
    """Return the blocks of a page, which is a file of this directory, as a script."""
    lines = ["import subprocess, sys"]
    for match in re.finditer(r"^```(python|console)\n(.*?)^```$", (DOCS / page).read_text(), re.M | re.S):
        if match[1] == "python":
            lines.append(match[2])
            continue
        for command in re.findall(r"^\$ (?:uv run )?(.+)$", match[2], re.M):
            program, *arguments = shlex.split(command)
            call = [str(Path(sys.executable).with_name(program)), *arguments]
            lines += ["sys.stdout.flush()", f"subprocess.run({call!r}, check=True)"]
    return "\n".join(lines)


def main() -> int:
    environment = os.environ | {"PYTHONPATH": str(DOCS)}
    for page in sys.argv[1:]:
        done = subprocess.run([sys.executable, "-u", "-c", script_of(page)], env=environment, check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
