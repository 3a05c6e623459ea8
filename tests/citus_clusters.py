"""Databases of a test's own on every node of the cluster that ``RAG_CITUS_URL`` names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg

from ragschema.database.settings import Database, find_database

URL = os.environ.get("RAG_CITUS_URL", "")


def connect_to(**parameters: Any) -> psycopg.Connection[Any]:
    """Connect to a node or a database of the cluster, each statement a transaction of its own."""
    return psycopg.connect(**{**find_database(URL).parameters, **parameters}, autocommit=True)


@contextmanager
def made_cluster_database(name: str) -> Iterator[Database]:
    """Make a database with Citus and pgvector on each node, and a cluster of them; drop all of it afterwards."""
    assert URL, "RAG_CITUS_URL names no coordinator of Citus"
    name = f"{name}_{os.getpid()}"
    with ExitStack() as stack:
        first = stack.enter_context(connect_to())
        nodes = first.execute(
            "SELECT nodename, nodeport FROM pg_dist_node WHERE isactive ORDER BY NOT groupid = 0"
        ).fetchall()
        assert len(nodes) > 2, "the coordinator and two nodes"
        first.execute("SELECT pg_advisory_lock(1)")  # nodes are told of roles: `tuple concurrently updated`
        for host, port in nodes:
            node = stack.enter_context(connect_to(host=host, port=port))
            node.execute("SET citus.enable_create_database_propagation = off")
            node.execute(f"CREATE DATABASE {name}".encode())
            stack.callback(node.execute, f"DROP DATABASE {name} WITH (FORCE)".encode())
            with connect_to(host=host, port=port, dbname=name) as made:
                made.execute("CREATE EXTENSION citus")
        with connect_to(dbname=name) as made:
            made.execute("SELECT citus_set_coordinator_host(%s, %s)", nodes[0])
            for node in nodes[1:]:
                made.execute("SELECT citus_add_node(%s, %s)", node)
            made.execute("CREATE EXTENSION vector")
        first.execute("SELECT pg_advisory_unlock(1)")
        yield Database({**find_database(URL).parameters, "dbname": name}, "the tests")
