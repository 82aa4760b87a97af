"""Constrains the decoding of a language model to the titles of the catalogue."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor


class TitleTrie:
    """A prefix tree of titles as token sequences. Its leaves are items.

    Items are sorted by their tokens, so the items below a node are a contiguous range. A difference
    of two prefix sums then gives the number of items in it that may still be recommended.

    Args:
        sequences: Tokens of each title, starting with item 1. No sequence may be a prefix of
            another, which holds if all end with a token that occurs nowhere else. Equal sequences
            share a leaf.

    Raises:
        ValueError: A sequence is empty or a prefix of another.
    """

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        rows = [tuple(sequence) for sequence in sequences]
        if not all(rows):
            raise ValueError(f"item {rows.index(()) + 1} has no tokens: expected at least one")
        order = sorted(range(len(rows)), key=rows.__getitem__)
        self.items = np.array(order, dtype=np.int64) + 1
        """Item numbers, sorted by their tokens."""
        self.longest = max(map(len, rows))
        """Number of tokens of the longest title."""
        nodes = [(0, len(rows), 0)]  # start, stop, depth; parents precede children
        children: list[list[tuple[int, int]]] = []
        while len(children) < len(nodes):
            start, stop, depth = nodes[len(children)]
            children.append([])
            for first, last in _ranges(rows, order, start, stop, depth):
                children[-1].append((rows[order[first]][depth], len(nodes)))
                nodes.append((first, last, depth + 1))
        self.starts, self.stops = np.array(nodes, dtype=np.int64)[:, :2].T
        counts = [len(of_node) for of_node in children]
        self.first_child = np.concatenate([[0], np.cumsum(counts)])
        flat = np.array([pair for of_node in children for pair in of_node], dtype=np.int64)
        self.child_tokens, self.child_nodes = flat.reshape(-1, 2).T

    def is_leaf(self, node: int) -> bool:
        """Return whether a title ends at this node."""
        return bool(self.first_child[node] == self.first_child[node + 1])


def _ranges(
    rows: list[tuple[int, ...]], order: list[int], start: int, stop: int, depth: int
) -> list[tuple[int, int]]:
    """Group the items ``start`` to ``stop`` by their token at ``depth``; empty at a leaf."""
    ends = [len(rows[item]) == depth for item in order[start:stop]]
    if all(ends):
        return []
    if any(ends):
        raise ValueError(
            f"the tokens of item {order[start] + 1} are a prefix of another item's: end each "
            "sequence with a token that occurs nowhere else"
        )
    tokens = [rows[item][depth] for item in order[start:stop]]
    cuts = [place for place in range(1, len(tokens)) if tokens[place] != tokens[place - 1]]
    edges = [start, *(start + place for place in cuts), stop]
    return list(pairwise(edges))


class TrieDecoding:
    """A transformers logits processor that restricts each row to a sequence of allowed titles.

    Supports greedy decoding and sampling, but not beam search. After ``length`` titles, or when no
    item is allowed any more, a row can only write ``end_token``.

    Args:
        trie: The titles of the catalogue.
        allowed: Which items each row may write, bool ``(rows, num_items + 1)``.
        length: Number of titles per row.
        end_token: Token that ends the text.

    Attributes:
        paths: Item numbers that each row has written.
    """

    def __init__(self, trie: TitleTrie, allowed: Tensor, length: int, end_token: int) -> None:
        self.trie = trie
        self.length = length
        self.end_token = end_token
        self.paths: list[list[int]] = [[] for _ in allowed]
        self._available = allowed.cpu().numpy()[:, trie.items]
        self._sums = np.zeros((len(allowed), len(trie.items) + 1), dtype=np.int64)
        np.cumsum(self._available, axis=1, out=self._sums[:, 1:])
        self._nodes = np.zeros(len(allowed), dtype=np.int64)
        self._has_begun = False

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores ``(rows, vocabulary)`` with minus infinity for forbidden tokens."""
        if self._has_begun:
            self._advance(input_ids[:, -1].cpu().numpy())
        self._has_begun = True
        rows, tokens, _ = self._choices()
        is_done = np.ones(len(self._nodes), dtype=bool)
        is_done[rows] = False
        rows = np.concatenate([rows, np.flatnonzero(is_done)])
        tokens = np.concatenate([tokens, np.full(is_done.sum(), self.end_token)])
        at = torch.from_numpy(rows).to(scores.device), torch.from_numpy(tokens).to(scores.device)
        return torch.full_like(scores, -torch.inf).index_put(at, scores[at])

    def _choices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return row, token and node of each allowed next token; finished rows have none."""
        trie = self.trie
        is_writing = np.array([len(path) < self.length for path in self.paths])
        firsts = trie.first_child[self._nodes]
        counts = np.where(is_writing, trie.first_child[self._nodes + 1] - firsts, 0)
        rows = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        children = np.repeat(firsts, counts) + within
        nodes = trie.child_nodes[children]
        is_available = self._sums[rows, trie.stops[nodes]] > self._sums[rows, trie.starts[nodes]]
        return rows[is_available], trie.child_tokens[children][is_available], nodes[is_available]

    def _advance(self, written: np.ndarray) -> None:
        rows, tokens, nodes = self._choices()
        taken = tokens == written[rows]
        self._nodes[rows[taken]] = nodes[taken]
        for row in rows[taken]:
            node = self._nodes[row]
            if self.trie.is_leaf(node):
                start, stop = self.trie.starts[node], self.trie.stops[node]
                place = start + int(self._available[row, start:stop].argmax())
                self._available[row, place] = False
                self._sums[row, place + 1 :] -= 1
                self.paths[row].append(int(self.trie.items[place]))
                self._nodes[row] = 0
