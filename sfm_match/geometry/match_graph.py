"""The graph of images and the pairs that link them: its parts, its bridges and its cycles.

A graph is a number of nodes and int (P, 2) edges, rows of nodes; no edge is there twice, none joins
a node with itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from sfm_match.types import ArrayF64

ArrayInt = npt.NDArray[np.int64]


def components(num_nodes: int, edges: npt.NDArray[np.integer]) -> ArrayInt:
    """Return the number of the connected part that each node is in, int64 (N,).

    Parts count from 0, the largest first; among parts of one size, that with the first node.
    """
    _, labels = connected_components(_adjacency(num_nodes, edges), directed=False)
    sizes = np.bincount(labels, minlength=1)
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return rank[labels]


def bridges(num_nodes: int, edges: npt.NDArray[np.integer]) -> tuple[ArrayInt, ArrayInt]:
    """Find the edges without which their part falls in two.

    By depth-first search: an edge to a child is a bridge where nothing below reaches above it
    (Tarjan, "A note on finding the bridges of a graph", 1974).

    Returns:
        int64 (B,), their rows in `edges`, in order, and int64 (B,), how many nodes the smaller side
        has.
    """
    sizes_of_parts = np.bincount(part := components(num_nodes, edges), minlength=1)
    neighbours = _neighbours(num_nodes, edges)
    entered = [-1] * num_nodes
    lowest = [0] * num_nodes
    below = [1] * num_nodes  # nodes in the subtree
    found: list[tuple[int, int]] = []
    clock = 0
    for root in range(num_nodes):
        if entered[root] >= 0:
            continue
        entered[root] = lowest[root] = clock
        clock += 1
        path = [(root, -1, iter(neighbours[root]))]
        while path:
            node, edge_above, others = path[-1]
            for other, edge in others:
                if edge == edge_above:
                    continue
                if entered[other] < 0:
                    entered[other] = lowest[other] = clock
                    clock += 1
                    path.append((other, edge, iter(neighbours[other])))
                    break
                lowest[node] = min(lowest[node], entered[other])
            else:
                path.pop()
                if path:
                    above = path[-1][0]
                    lowest[above] = min(lowest[above], lowest[node])
                    below[above] += below[node]
                    if lowest[node] > entered[above]:
                        size = int(sizes_of_parts[part[node]])
                        found.append((edge_above, min(below[node], size - below[node])))
    rows = np.array(sorted(found), np.int64).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def triangles(
    num_nodes: int, edges: npt.NDArray[np.integer], max_num: int, seed: int = 0
) -> ArrayInt:
    """Return the cycles of three edges, int64 (T, 3): the rows of the edges ab, bc and ac.

    There a < b < c; the edges have their smaller node first. Where there are more than `max_num`
    (up to one edge's worth), it returns those of randomly drawn edges.
    """
    rows = csr_array(
        (np.arange(1, len(edges) + 1), (edges[:, 0], edges[:, 1])), shape=(num_nodes, num_nodes)
    )
    rows.sort_indices()
    after = [rows.indices[rows.indptr[a] : rows.indptr[a + 1]] for a in range(num_nodes)]
    row_of = [rows.data[rows.indptr[a] : rows.indptr[a + 1]] - 1 for a in range(num_nodes)]
    found, num = [np.empty((0, 3), np.int64)], 0
    for edge in np.random.default_rng(seed).permutation(len(edges)):
        a, b = edges[edge]
        _, in_a, in_b = np.intersect1d(after[a], after[b], assume_unique=True, return_indices=True)
        if len(in_a):
            ab = np.full(len(in_a), edge)
            found.append(np.stack([ab, row_of[b][in_b], row_of[a][in_a]], axis=1))
            num += len(in_a)
        if num >= max_num:
            break
    return np.concatenate(found)


def cycle_errors(rotations: ArrayF64, cycles: ArrayInt) -> ArrayF64:
    """Return by how many degrees the rotations of cycles of three do not close, float64 (T,).

    That is the angle of ``R_ac^T R_bc R_ab``, with `b_from_a` rotations (Zach, Klopschitz and
    Pollefeys, "Disambiguating visual relations using loop constraints", CVPR 2010).

    Args:
        rotations: float64 (P, 3, 3), `b_from_a` of each edge (a, b).
        cycles: int64 (T, 3), rows of `rotations`: ab, bc and ac.
    """
    ab, bc, ac = (rotations[cycles[:, i]] for i in range(3))
    # The trace of R_ac^T M is the sum of the products of the entries of R_ac and M.
    traces = np.sum(ac * (bc @ ab), axis=(1, 2))
    return np.asarray(np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1))))


def _adjacency(num_nodes: int, edges: npt.NDArray[np.integer]) -> coo_array:
    ones = np.ones(len(edges), np.int8)
    return coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(num_nodes, num_nodes))


def _neighbours(num_nodes: int, edges: npt.NDArray[np.integer]) -> list[list[tuple[int, int]]]:
    """Return for each node its neighbours, each with the row of the edge."""
    found: list[list[tuple[int, int]]] = [[] for _ in range(num_nodes)]
    for row, (a, b) in enumerate(edges.tolist()):
        found[a].append((b, row))
        found[b].append((a, row))
    return found
