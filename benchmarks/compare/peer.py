"""What both peer scripts share: requests as JSON lines on standard input, answers on standard output.

A peer script runs in a virtual environment of its own, where ragschema is not installed: it may import this
module and the workloads only. Requests:

    {"do": "create", "index": bool}              make an empty table, with the HNSW index or without
    {"do": "load", "documents": [...], "version": n, "way": w}
    {"do": "build_index"}
    {"do": "search", "kind": k, "count": n, "start": i, "stop": j}
    {"do": "republish", "document": d, "states": [...], "way": w}
    {"do": "delete", "documents": [...]}

Each is answered by its time in seconds, a search and a deletion by the CPU seconds of the script too, and by what it
found or sent.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

from passages import Passages, PassageWorkload

from compare.workload import Query, Text, Workload, parse


class Embedder:
    """A model that knows its answers already and counts the texts it is given."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.known: dict[str, list[float]] = {}
        self.sent = 0

    def prepare(self, texts: Sequence[str]) -> None:
        """Compute embeddings before the clock starts."""
        self.known = {text: self.workload.embed(text).tolist() for text in texts}

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.sent += len(texts)
        return [self.known[text] for text in texts]


class Store(Protocol):
    """What a peer script does with its library."""

    def create(self, index: bool) -> None: ...

    def load(self, documents: dict[int, list[str]], way: str) -> None: ...

    def build_index(self) -> None: ...

    def search(self, query: Query) -> list[str]: ...

    def republish(self, document: int, texts: list[str], way: str) -> None: ...

    def delete(self, documents: list[int]) -> None: ...


def serve(make: Any) -> None:
    """Answer requests until standard input ends: ``make(parameters, workload, embedder)`` is the store."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is not an answer
    parameters, documents, dimension = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    is_described, text = json.loads(sys.argv[4]), json.loads(sys.argv[5])
    if text:
        workload: Workload = PassageWorkload(Passages(text), documents)
    else:
        workload = Workload(documents, dimension=dimension, is_described=is_described)
    embedder = Embedder(workload)
    store = make(parameters, workload, embedder)
    for line in sys.stdin:
        print(json.dumps(_answer(store, workload, embedder, json.loads(line))), file=answers, flush=True)


def _answer(store: Store, workload: Workload, embedder: Embedder, request: dict[str, Any]) -> dict[str, Any]:
    do = request["do"]
    if do == "create":
        return {"seconds": _seconds(store.create, request["index"])}
    if do == "build_index":
        return {"seconds": _seconds(store.build_index)}
    if do == "load":
        documents = {number: workload.texts(number, request["version"]) for number in request["documents"]}
        embedder.prepare([text for texts in documents.values() for text in texts])
        return {"seconds": _seconds(store.load, documents, request["way"])}
    if do == "republish":
        number = request["document"]
        texts = [workload.text(Text(number, place, state)) for place, state in enumerate(request["states"])]
        embedder.prepare(texts)
        embedder.sent = 0
        seconds = _seconds(store.republish, number, texts, request["way"])
        return {"seconds": seconds, "texts": embedder.sent}
    if do == "delete":
        began = time.process_time()
        seconds = _seconds(store.delete, request["documents"])
        return {"seconds": seconds, "cpu": time.process_time() - began}
    assert do == "search", do
    queries = workload.query_set(request["kind"], request["count"])[request["start"] : request["stop"]]
    seconds, cpu, found = [], [], []
    for query in queries:
        start, began = time.perf_counter(), time.process_time()
        texts = store.search(query)
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - began)
        found.append([(which.document, which.place, which.state) for which in map(parse, texts)])
    return {"seconds": seconds, "cpu": cpu, "found": found}


def _seconds(work: Any, *arguments: Any) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start
