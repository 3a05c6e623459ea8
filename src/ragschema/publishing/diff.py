"""The diff of two versions: which chunks of the new one are those of the one before."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence


def match_contents(old: Sequence[str], new: Sequence[str]) -> list[int | None]:
    """Return for each new content the index of the old one that it is, or None.

    Contents are a multiset: a text that stands there twice is matched twice at most, and as many identical
    texts are matched as both sides have. Which of them is which keeps the order where it can: texts that occur
    once on either side and keep their order are anchors (a longest increasing subsequence); between two
    anchors identical texts are paired in order; what is left is paired in order wherever it stands, as moved.

    Takes O(n log n) comparisons for n contents on both sides.
    """
    matches: list[int | None] = [None] * len(new)

    def pair(old_places: Iterable[int], new_places: Iterable[int]) -> None:
        waiting: defaultdict[str, deque[int]] = defaultdict(deque)
        for place in old_places:
            waiting[old[place]].append(place)
        for place in new_places:
            if waiting[new[place]]:
                matches[place] = waiting[new[place]].popleft()

    after_old = after_new = 0
    for old_place, new_place in [*_find_anchors(old, new), (len(old), len(new))]:
        pair(range(after_old, old_place), range(after_new, new_place))
        if new_place < len(new):
            matches[new_place] = old_place
        after_old, after_new = old_place + 1, new_place + 1
    matched = set(matches)
    pair(
        (place for place in range(len(old)) if place not in matched),
        [place for place, match in enumerate(matches) if match is None],
    )
    return matches


def pair_left_over(matches: Sequence[int | None], old_count: int) -> dict[int, int]:
    """Return the old place of each new one that is not matched and stands where an old one stood that is not.

    That is: with as many matched contents before it. Several such are paired in order. Takes O(n).

    Args:
        matches: By `match_contents`.
        old_count: How many old contents there are.
    """
    matched = set(matches)
    waiting: defaultdict[int, deque[int]] = defaultdict(deque)
    matched_before = 0
    for place in range(old_count):
        if place in matched:
            matched_before += 1
        else:
            waiting[matched_before].append(place)
    pairs = {}
    matched_before = 0
    for place, match in enumerate(matches):
        if match is not None:
            matched_before += 1
        elif waiting[matched_before]:
            pairs[place] = waiting[matched_before].popleft()
    return pairs


def _find_anchors(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """Return the most pairs of places, ascending on both sides, of texts that each side has once (patience)."""
    old_counts, new_counts = Counter(old), Counter(new)
    place_in_old = {content: place for place, content in enumerate(old) if old_counts[content] == 1}
    pairs = [
        (place_in_old[content], place)
        for place, content in enumerate(new)
        if new_counts[content] == 1 and content in place_in_old
    ]
    tops: list[int] = []  # of the piles: the least old place that ends a chain of this length
    ends: list[int] = []  # the pairs they belong to
    before: list[int] = []  # for each pair, the one before it in its chain
    for number, (old_place, _) in enumerate(pairs):
        pile = bisect_left(tops, old_place)
        tops[pile : pile + 1] = [old_place]
        ends[pile : pile + 1] = [number]
        before.append(ends[pile - 1] if pile else -1)
    chain = []
    number = ends[-1] if ends else -1
    while number >= 0:
        chain.append(pairs[number])
        number = before[number]
    return chain[::-1]
