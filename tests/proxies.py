"""Networks between a client and a server: one that can be cut at a COMMIT, and a listener that never answers."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Literal

from ragschema.database.settings import Database

Cut = Literal["before", "after"]


@dataclass
class Proxy:
    """A TCP proxy before a server's socket.

    Attributes:
        database: The database by way of the proxy.
        cut_at: The text of the statement at which the connection is cut, such as ``COMMIT``; None lets all pass.
        cut: Whether the server is not given that statement, or given it and its answer is lost.
        skips: How many statements of that text pass before.
        is_down: Whether the proxy drops new connections.
        stays_down: Whether it drops new connections once it has cut one.
        cuts: How many it has cut.
    """

    database: Database
    cut_at: bytes | None = None
    cut: Cut = "after"
    skips: int = 0
    is_down: bool = False
    stays_down: bool = False
    cuts: int = 0
    _sockets: list[socket.socket] = field(default_factory=list)

    def arm(self, statement: str, cut: Cut = "after", *, skips: int = 0, stays_down: bool = False) -> None:
        """Let the next statement of this text be the last of its connection."""
        self.cut_at, self.cut, self.skips, self.stays_down = statement.encode(), cut, skips, stays_down

    def _passes(self, data: bytes) -> bool:
        """Whether what a client sends does not hold the statement to cut at."""
        if self.cut_at is None or self.cut_at not in data:
            return True
        if self.skips:
            self.skips -= 1
            return True
        self.cut_at = None
        self.cuts += 1
        self.is_down = self.stays_down
        return False

    def _serve(self, client: socket.socket, path: str) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            server.connect(path)
            self._sockets += [client, server]
            while True:
                ready, _, _ = select.select([client, server], [], [])
                for source in ready:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is server:
                        client.sendall(data)
                        continue
                    passes = self._passes(data)
                    if passes or self.cut == "after":
                        server.sendall(data)
                    if not passes:
                        if self.cut == "after":
                            server.recv(65536)  # it has done so before the client sees that it is alone
                        return


@contextmanager
def proxied(database: Database) -> Iterator[Proxy]:
    """Yield a proxy before the Unix socket of a database's server."""
    parameters = database.parameters
    path = f"{parameters['host']}/.s.PGSQL.{parameters['port']}"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        by_proxy = replace(database, parameters={**parameters, "host": "127.0.0.1", "port": port})
        proxy = Proxy(by_proxy)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    if proxy.is_down:
                        client.close()
                    else:
                        threading.Thread(target=proxy._serve, args=(client, path), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in proxy._sockets:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


@contextmanager
def silent_listener() -> Iterator[Database]:
    """Yield the database of a listener that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        yield Database({"host": "127.0.0.1", "port": port, "user": "u", "dbname": "d"}, "the tests")
