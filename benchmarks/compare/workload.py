"""The workload: documents, their versions, their embeddings and the queries. Deterministic; needs numpy only.

A document belongs to one of 100 topics. Vectors are normalised sums: a topic's direction, a document's, a
chunk's, so that a chunk is nearest to its own document, then to its topic. An edited text has a new vector close
to the old one: cosine distance about 0.01.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

DIMENSION = 768
TOPICS = 100
VERSIONS = 6
VOCABULARY = 20_000
EDIT = 0.14  # length of an edit's move: cosine distance about 0.01
HOT = 7  # the document that is re-published many times
WORDS = 90  # of a chunk's text: about 600 characters


@dataclass(frozen=True)
class Text:
    """Which text it is: the chunk at a place of a document, in a state; 0 is the first."""

    document: int
    place: int
    state: int


@dataclass(frozen=True)
class Query:
    """An embedding to search with, and the documents that may answer: all where None.

    Attributes:
        embedding: Unit length.
        articles: Indexes of the documents that may answer, or None.
        title: Title of the documents that may answer, or None.
        below: A key of the metadata, and the number that it is below in documents that may answer; or None.
    """

    embedding: Vector
    articles: tuple[int, ...] | None = None
    title: str | None = None
    below: tuple[str, int] | None = None


class Workload:
    """Documents with 8 to 12 chunks in six versions, each of which edits 10-20 % of the chunks.

    Args:
        documents: How many.
        seed: Same seed, same workload.
        dimension: Of the embeddings.
        is_described: Whether documents have metadata with two numbers to filter by: ``permille`` at random, and
            ``topic``, whose documents are near each other.
    """

    def __init__(
        self, documents: int, seed: int = 0, dimension: int = DIMENSION, is_described: bool = False
    ) -> None:
        self.documents = documents
        self.seed = seed
        self.dimension = dimension
        random = np.random.default_rng(seed)
        self.chunk_counts = random.integers(8, 13, documents)
        self._topics = _directions(random, TOPICS, dimension)
        self._document_directions = _directions(random, documents, dimension)
        self.is_described = is_described
        self._permilles = np.random.default_rng((seed, 6)).permutation(documents) * 1000 // documents

    def article_id(self, document: int) -> str:
        return f"article-{document:06}"

    def title(self, document: int) -> str:
        """Return one of a hundred titles: each is that of one document in a hundred."""
        return f"Handbook {document * 7919 % 100}"

    def metadata(self, document: int) -> dict[str, int]:
        """Return the numbers that a document can be filtered by; none where documents are not described."""
        if not self.is_described:
            return {}
        return {"permille": int(self._permilles[document]), "topic": document % TOPICS}

    def states(self, document: int, version: int) -> list[int]:
        """Return the state of each chunk of a document in a version; versions count from 1."""
        states = [0] * int(self.chunk_counts[document])
        for number in range(2, version + 1):
            for place in self.edited(document, number):
                states[place] = number - 1
        return states

    def edited(self, document: int, version: int) -> list[int]:
        """Return the places that a version edits: 10-20 % of the chunks."""
        random = np.random.default_rng((self.seed, document, version))
        count = int(self.chunk_counts[document])
        edits = max(1, round(count * random.uniform(0.1, 0.2)))
        return sorted(int(place) for place in random.choice(count, edits, replace=False))

    def texts(self, document: int, version: int) -> list[str]:
        """Return the chunks of a document in a version, in order."""
        return [
            self.text(Text(document, place, state))
            for place, state in enumerate(self.states(document, version))
        ]

    def text(self, text: Text) -> str:
        """Return what a text says; `parse` reads which one it is from its first words."""
        random = np.random.default_rng((self.seed, text.document, text.place, text.state, 1))
        words = " ".join(self._vocabulary[np.searchsorted(self._word_shares, random.random(WORDS))])
        return f"document {text.document} chunk {text.place} state {text.state} {words}"

    def vector(self, text: Text) -> Vector:
        """Return the embedding of a text."""
        document = self._document_directions[text.document]
        topic = self._topics[text.document % TOPICS]
        chunk = self._direction(text.document, text.place)
        vector = _unit(topic + 0.8 * document + 0.8 * chunk)
        if text.state:
            vector = _unit(vector + EDIT * self._direction(text.document, text.place, text.state))
        return vector

    def embed(self, text: str) -> Vector:
        """Return the embedding of a text given in words, as a model would."""
        return self.vector(parse(text))

    def query_set(self, kind: str, count: int) -> list[Query]:
        """Return the queries of a kind: all, hot, article or title; ``permille N`` or ``topic N``: below N."""
        if kind == "hot":
            return self.queries_near(HOT, count)
        if kind == "article":
            return self.queries_by_article(count)
        if kind == "title":
            return self.queries_by_title(count)
        if " " in kind:
            return self.queries_below(*kind.split(), count=count)
        return self.queries(count)

    def queries(self, count: int) -> list[Query]:
        """Return queries near chunks of documents drawn at random."""
        random = np.random.default_rng((self.seed, 1))
        documents = random.integers(0, self.documents, count)
        return [Query(self._near(random, int(document))) for document in documents]

    def queries_near(self, document: int, count: int) -> list[Query]:
        """Return queries near the chunks of one document."""
        random = np.random.default_rng((self.seed, 2))
        return [Query(self._near(random, document, distance=0.3)) for _ in range(count)]

    def queries_by_article(self, count: int) -> list[Query]:
        """Return queries that one document in a hundred, drawn at random, may answer."""
        random = np.random.default_rng((self.seed, 3))
        wanted = max(2, self.documents // 100)
        return [
            Query(
                query.embedding,
                articles=tuple(map(int, random.choice(self.documents, wanted, replace=False))),
            )
            for query in self.queries(count)
        ]

    def queries_by_title(self, count: int) -> list[Query]:
        """Return queries that the documents with one title may answer, one in a hundred."""
        random = np.random.default_rng((self.seed, 4))
        return [
            Query(query.embedding, title=self.title(int(random.integers(0, self.documents))))
            for query in self.queries(count)
        ]

    def queries_below(self, key: str, number: str, count: int) -> list[Query]:
        """Return queries that the documents with a number below another may answer; of a topic, near such documents."""
        below = (key, int(number))
        if key != "topic":
            return [Query(query.embedding, below=below) for query in self.queries(count)]
        inside = [each for each in range(self.documents) if self.metadata(each)[key] < below[1]]
        random = np.random.default_rng((self.seed, 7))
        return [
            Query(self._near(random, int(document)), below=below) for document in random.choice(inside, count)
        ]

    def allows(self, query: Query, document: int) -> bool:
        """Whether a document may answer a query."""
        return (
            (query.articles is None or document in query.articles)
            and (query.title is None or self.title(document) == query.title)
            and (query.below is None or self.metadata(document)[query.below[0]] < query.below[1])
        )

    def _near(self, random: np.random.Generator, document: int, distance: float = 0.5) -> Vector:
        place = int(random.integers(0, self.chunk_counts[document]))
        return _unit(
            self.vector(Text(document, place, 0)) + distance * _directions(random, 1, self.dimension)[0]
        )

    def _direction(self, *place: int) -> NDArray[np.float32]:
        return _directions(np.random.default_rng((self.seed, *place)), 1, self.dimension)[0]

    @cached_property
    def _vocabulary(self) -> NDArray[np.str_]:
        random = np.random.default_rng((self.seed, 5))
        letters = np.array(list("etaoinshrdlu"))
        return np.array(["".join(random.choice(letters, random.integers(3, 9))) for _ in range(VOCABULARY)])

    @cached_property
    def _word_shares(self) -> NDArray[np.float64]:
        """Zipf's law, cumulated: the second word is half as frequent as the first, and so on."""
        shares = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
        return shares / shares[-1]


def parse(text: str) -> Text:
    """Return which text it is, read from its first words."""
    words = text.split(maxsplit=6)
    return Text(int(words[1]), int(words[3]), int(words[5]))


def _unit(vector: NDArray[np.float32]) -> Vector:
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _directions(random: np.random.Generator, count: int, dimension: int) -> NDArray[np.float32]:
    vectors = random.standard_normal((count, dimension), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
