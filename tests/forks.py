"""Processes of ``rag``, ``alembic`` and scripts without their start: forks of one that has imported what they need.

Such a process has its own environment, working directory, standard streams, signals and exit code, waits for its
threads and runs what is registered for its end. What is not in it is the start, half a second of imports, the
making of all commands for Typer, and the taking apart of what was imported: tests of these run the installed
script. In a copy of the checkout, named by PYTHONPATH, its revisions count; the modules are ours, which a copy
does not change.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, Self, TextIO

ENTRY_POINTS = {"rag": "ragschema.cli:main", "alembic": "alembic.config:main"}

_IMPORTED = (
    "alembic.command",
    "alembic.config",
    "encodings.ascii",
    "psutil",
    "ragschema.authoring.create",
    "ragschema.chat",
    "ragschema.cli.app",
    "ragschema.cli.progress",
    "ragschema.cli.quick",
    "ragschema.collections",
    "ragschema.embedded",
    "ragschema.embedding_models",
    "ragschema.graph",
    "ragschema.importing.neo4j",
    "ragschema.index_health",
    "ragschema.jobs",
    "ragschema.migrations.autogenerate",
    "ragschema.migrations.drafts",
    "ragschema.migrations.environment",
    "ragschema.migrations.health",
    "ragschema.migrations.inspection",
    "ragschema.models",
    "ragschema.operations_v1",
    "ragschema.operations_v2",
    "ragschema.planning.plan",
    "ragschema.planning.rollback",
    "ragschema.publishing",
    "ragschema.queries",
    "ragschema.schema.index_reads",
    "ragschema.state.drift",
    "ragschema.tenants",
    "rich.console",
    "sqlalchemy.dialects.postgresql.psycopg",
    "tenacity",
    "typer._click._textwrap",
    "typer._click.decorators",
    "unicodedata",
)


class Forks:
    """The process to fork; it ends with us."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.address = str(directory / f"forks-{os.getpid()}")
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, self.address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment, "OPENBLAS_NUM_THREADS": "1"},  # a fork has no threads
            cwd="/",
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def run(
        self, program: str, arguments: Sequence[str], cwd: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of `ENTRY_POINTS`, or ``python -c``, to its end."""
        from asking import ask  # not where the process to fork starts: it does not look beside its script

        return ask(self.address, program, arguments, str(cwd), environment)

    def start(
        self,
        program: str,
        arguments: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str],
        stderr: int = subprocess.PIPE,
    ) -> Fork:
        """Start a program of `ENTRY_POINTS`; its standard error goes to a pipe, or to a file descriptor."""
        from asking import command_of, request

        command = command_of(program, arguments)
        out, its_out = os.pipe()
        error, its_error = os.pipe() if stderr == subprocess.PIPE else (None, stderr)
        connection = request(self.address, command, str(cwd), environment, (its_out, its_error))
        os.close(its_out)
        if error is not None:
            os.close(its_error)
        return Fork(command, connection, os.fdopen(out), None if error is None else os.fdopen(error))

    def close(self) -> None:
        self._process.communicate()


class Fork:
    """A command that runs in a fork, with what tests ask of a `subprocess.Popen`."""

    def __init__(
        self, args: Sequence[str], connection: socket.socket, stdout: TextIO, stderr: TextIO | None
    ) -> None:
        self.args, self.stdout, self.stderr = args, stdout, stderr
        self.returncode: int | None = None
        self._connection, self._told = connection, connection.makefile()
        self.pid = int(self._told.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        self._close()

    def poll(self) -> int | None:
        """Return the exit code, None before its end."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, for so many seconds; return the exit code."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._told.readline())
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return what it prints until its end, which comes within so many seconds."""
        if timeout is not None:
            self.wait(timeout)
        errors: list[str] = []
        reading = threading.Thread(target=lambda: errors.append(self.stderr.read() if self.stderr else ""))
        reading.start()
        printed = self.stdout.read()
        reading.join()
        self.wait()
        self._close()
        return printed, errors[0]

    def send_signal(self, sent: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sent)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _close(self) -> None:
        for each in (self._told, self._connection, self.stdout, self.stderr):
            if each is not None:
                each.close()


def collect_garbage_seldom() -> None:
    """Let the collector of garbage look at new objects less often: it takes a tenth of a short process's time."""
    gc.set_threshold(20_000, 20, 20)


def main(address: str) -> None:
    """Fork for each request; in the fork, run it as the interpreter would run the script."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        collect_garbage_seldom()
        _make_ready()
        gc.freeze()
        an_end, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        asking: dict[int, socket.socket] = {}
        print("ready", flush=True)  # noqa: T201
        while True:
            ready, _, _ = select.select([listening, sys.stdin, an_end], [], [])
            if an_end in ready:
                os.read(an_end, 4096)
                _answer(asking)
            if sys.stdin in ready:
                return
            if listening not in ready:
                continue
            connection, _ = listening.accept()
            process = os.fork()
            if process == 0:
                break
            asking[process] = connection
            with suppress(OSError):
                connection.sendall(b"%d\n" % process)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.close(an_end)
    os.close(wakeup)
    _, outputs, _, _ = socket.recv_fds(connection, 1, 2)
    with connection.makefile() as told:
        request = json.loads(told.read())
    for other in (connection, *asking.values()):
        other.close()
    _run(*request, *outputs)


def _make_ready() -> None:
    """Import and make what each command would: a third of a short one is making all commands for Typer."""
    for module in _IMPORTED:
        import_module(module)
    import_module("ragschema.revisions.manifest").read_manifest()
    typer_main = import_module("typer.main")
    app = import_module("ragschema.cli.app").whole_app()
    made, make = typer_main.get_command(app), typer_main.get_command
    typer_main.get_command = lambda wanted: made if wanted is app else make(wanted)  # type: ignore[attr-defined]


def _answer(asking: dict[int, socket.socket]) -> None:
    """Send the exit code of each fork that has ended to who asked for it."""
    while asking:
        process, status = os.waitpid(-1, os.WNOHANG)
        if process == 0:
            return
        with asking.pop(process) as connection, suppress(OSError):  # who asked is gone
            connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _run(argv: list[str], cwd: str, environment: dict[str, str], stdout: int, stderr: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nothing, stdout, stderr)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = argv
    sources = environment.get("PYTHONPATH")
    if sources and (package := Path(sources) / "ragschema").is_dir():
        import_module("ragschema.revisions.locations")._PACKAGE = package  # type: ignore[attr-defined]
    try:
        if Path(argv[0]).name == "python":
            _run_script(argv[2], sources)
            _end(0)
        sys.exit(_function_of(argv[0])())
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            _end(end.code or 0)
        raise


def _function_of(command: str) -> Any:
    module, _, name = ENTRY_POINTS[Path(command).name].partition(":")
    return getattr(import_module(module), name)


def _run_script(source: str, sources: str | None) -> None:
    """Run a script as ``python -c`` does; it imports our package itself, and finds imported what that depends on."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "ragschema"]:
        del sys.modules[name]
    sys.argv = ["-c"]
    sys.path[:0] = ["", *filter(None, (sources or "").split(os.pathsep))]
    module = sys.modules["__main__"] = ModuleType("__main__")
    exec(compile(source, "<string>", "exec"), module.__dict__)


def _end(code: int) -> NoReturn:
    """Do what an interpreter does at its end, but for taking apart what we imported: half of a short command."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    main(sys.argv[1])
