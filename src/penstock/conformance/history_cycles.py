"""Cycles among operations: no order of them all agrees with what they wrote, read and when.

Nodes are appends and commits, and each partition that a take or read looked at. Edges say that one
operation comes before another: both wrote next to each other in a partition, or committed next to
each other in a store (ww); the second read what the first wrote (wr); the first saw the end where
the second then wrote (rw); the first ended before the second began, in one process or by the clock.
The clock's edges go through a chain with one link for each end, so there are three for each
operation however many run at once. What has nothing before it is taken away until nothing is left
(Kahn); where something is left, it is cut into strong components (Tarjan) and each shows one
shortest cycle.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from penstock.conformance.history import FOREVER, Line, Op, Place
from penstock.conformance.history_index import LOOKS, Index

WW, WR, RW, PROCESS, CLOCK = range(5)
WORDS = ("ww", "wr", "rw", "process", "real time")
_KINDS = 8  # an edge is its target times this, and its kind
DEPENDENT = (("G0", {WW}), ("G1c", {WW, WR}), ("G2", {WW, WR, RW}))
ORDERED: tuple[tuple[str, set[int]], ...] = (
    ("", set()), ("-process", {PROCESS}), ("-realtime", {PROCESS, CLOCK}),
)
_LOOKED_AT_MAX = 1_000_000  # nodes, in the search for one component's shortest cycle


class Graph:
    """The operations of an index with the edges between them. A node has its operation's number;
    further ones of the same operation, and the links of the clock's chain, come after these."""

    def __init__(self, index: Index) -> None:
        self._index, self._ops, self.found = index, index.ops, index.found
        self._author = index.author
        self.edges: list[list[int]] = [[] for _ in index.ops]
        self._further: dict[int, list[int]] = {}  # operation -> its nodes but the first
        self._owner: list[int] = []  # of the nodes that come after: the operation
        self._halves: dict[tuple[int, Place], int] = {}  # nodes of appends that are not whole
        self._neighbours()
        self._transactions()
        self._reads()
        self.count = len(self.edges)  # what follows are links

    def op(self, node: int) -> Op:
        """The operation of a node."""
        first = len(self._ops)
        return self._ops[node if node < first else self._owner[node - first]]

    def _further_node(self, op: int) -> int:
        node = len(self.edges)
        self.edges.append([])
        self._owner.append(op)
        self._further.setdefault(op, []).append(node)
        return node

    def _writer(self, op: int, place: Place) -> int:
        if self._index.is_whole(self._ops[op]):
            return op
        if (op, place) not in self._halves:
            self._halves[op, place] = self._further_node(op)
        return self._halves[op, place]

    def _edge(self, source: int, target: int, kind: int) -> None:
        if source != target:
            self.edges[source].append(target * _KINDS + kind)

    def _neighbours(self) -> None:
        """Who appended next to whom."""
        author, offsets = self._author, self._index.offsets
        for place, held in self._index.log.items():
            before, last = -1, -1
            for offset in offsets(place):
                op = author.get(held[offset])
                if op is None or op == last:
                    continue
                node = self._writer(op, place)
                if before >= 0:
                    self.edges[before].append(node * _KINDS + WW)
                before, last = node, op

    def _transactions(self) -> None:
        """A store numbers its commits."""
        stores: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for number, op in enumerate(self._ops):
            if op.asked.do == "commit" and op.told is not None and op.told.txn:
                stores[op.asked.scope].append((op.told.txn, number))
        for commits in stores.values():
            commits.sort()
            for (txn, first), (other, second) in pairwise(commits):
                self._edge(first, second, WW)
                if txn == other:
                    self._edge(second, first, WW)

    def _reads(self) -> None:
        for number, op in enumerate(self._ops):
            if op.asked.do == "commit" and op.result != "fail" and op.asked.records:
                for place, value in _lasts(op.asked.records).items():
                    self._read(number, place, value)
            elif op.asked.do in LOOKS and op.told is not None and op.result == "ok":
                self._look(number, op.told)

    def _look(self, number: int, told: Line) -> None:
        """Each partition of a look has a node: they were not looked at at once."""
        nodes: dict[Place, int] = {}
        for place, value in _lasts(told.records).items():
            nodes[place] = self._further_node(number) if nodes else number
            self._read(nodes[place], place, value)
        for topic, partition, end in told.ends:
            place = topic, partition
            beyond = self._index.next_known(place, end)
            if beyond is None:
                continue
            writer = self._author.get(self._index.log[place][beyond])
            if writer is None:
                continue
            if place not in nodes:
                nodes[place] = self._further_node(number) if nodes else number
            self._edge(nodes[place], self._writer(writer, place), RW)

    def _read(self, node: int, place: Place, value: str) -> None:
        writer = self._author.get(value)
        if writer is not None:
            self._edge(self._writer(writer, place), node, WR)

    def _nodes(self, op: int) -> list[int]:
        return [op, *self._further.get(op, ())]

    def add_clock(self) -> None:
        """Every operation comes after the chain's last link before it began, and before the link
        of its own end. Ends that no beginning comes between share a link."""
        moments = [(op.began, False, n) for n, op in enumerate(self._ops) if op.result != "fail"]
        moments += [(op.ended, True, n) for n, op in enumerate(self._ops) if op.result == "ok"]
        moments.sort()
        edges, further = self.edges, self._further
        done, filling = -1, -1
        for _, is_end, number in moments:
            nodes = self._nodes(number) if number in further else (number,)
            if is_end:
                if filling < 0:
                    filling = self._link(done)
                for node in nodes:
                    edges[node].append(filling * _KINDS + CLOCK)
                continue
            if filling >= 0:
                done, filling = filling, -1
            if done >= 0:
                edges[done] += [node * _KINDS + CLOCK for node in nodes]

    def _link(self, before: int) -> int:
        link = len(self.edges)
        self.edges.append([])
        if before >= 0:
            self.edges[before].append(link * _KINDS + CLOCK)
        return link

    def add_processes(self, among: set[int]) -> None:
        """What a process did first comes first: the clock says it too, but not why."""
        last: dict[str, list[int]] = {}
        for number in sorted(range(len(self._ops)), key=lambda n: self._ops[n].began):
            nodes = [node for node in self._nodes(number) if node in among]
            process = self._ops[number].asked.process
            for before in last.get(process, ()) if nodes else ():
                for node in nodes:
                    self._edge(before, node, PROCESS)
            if nodes:
                last[process] = nodes if self._ops[number].ended != FOREVER else []


def _lasts(records: Sequence[tuple[str, int, int, str]]) -> dict[Place, str]:
    """The last value of each partition: what comes before it, its writer comes after."""
    return {(topic, partition): value for topic, partition, _, value in records}


def check_cycles(index: Index) -> None:
    """Find cycles, name them by the edges they need, and report one of each component."""
    graph = Graph(index)
    graph.add_clock()
    left = _knotted(graph.edges)
    if not left:
        return
    graph.add_processes(left)
    told: set[int] = set()
    for suffix, order in ORDERED:
        for name, kinds in DEPENDENT:
            for component in _components(graph.edges, left, kinds | order):
                if not component & told:
                    told |= component
                    _report(graph, name, suffix, component, kinds | order)


def _knotted(edges: Sequence[Sequence[int]]) -> set[int]:
    """The nodes that are left when all that have nothing before them are taken away."""
    before = [0] * len(edges)
    for targets in edges:
        for target in targets:
            before[target // _KINDS] += 1
    free = [node for node, count in enumerate(before) if not count]
    gone = 0
    while free:
        gone += 1
        for target in edges[free.pop()]:
            node = target // _KINDS
            before[node] -= 1
            if not before[node]:
                free.append(node)
    if gone == len(edges):
        return set()
    return {node for node, count in enumerate(before) if count}


def _components(
    edges: Sequence[Sequence[int]], among: set[int], kinds: set[int]
) -> Iterator[set[int]]:
    """Strong components of more than one node (Tarjan), over edges of these kinds."""
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    path: list[int] = []
    on_path: set[int] = set()
    for root in sorted(among):
        if root in number:
            continue
        work = [(root, iter(edges[root]))]
        number[root] = low[root] = len(number)
        path.append(root)
        on_path.add(root)
        while work:
            node, targets = work[-1]
            for edge in targets:
                target, kind = divmod(edge, _KINDS)
                if target not in among or kind not in kinds:
                    continue
                if target not in number:
                    number[target] = low[target] = len(number)
                    path.append(target)
                    on_path.add(target)
                    work.append((target, iter(edges[target])))
                    break
                if target in on_path:
                    low[node] = min(low[node], number[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    component = _cut_off(path, on_path, node)
                    if len(component) > 1:
                        yield component


def _cut_off(path: list[int], on_path: set[int], node: int) -> set[int]:
    component = set()
    while True:
        last = path.pop()
        on_path.discard(last)
        component.add(last)
        if last == node:
            return component


class Cycle(NamedTuple):
    """A shortest cycle: its nodes, and the kind of the edge that leaves each."""

    nodes: list[int]
    kinds: list[int]


def _report(
    graph: Graph, name: str, suffix: str, component: set[int], kinds: set[int]
) -> None:
    cycle = _shortest(graph, component, kinds)
    steps = [(n, k) for n, k in zip(cycle.nodes, cycle.kinds, strict=True) if n < graph.count]
    if _told_elsewhere(cycle, len(steps)):
        return
    if name == "G2" and cycle.kinds.count(RW) == 1:
        name = "G-single"
    ops = [graph.op(node) for node, _ in steps]
    words = [f"{graph.op(node).name} -{WORDS[kind]}-> " for node, kind in steps]
    graph.found.add(f"{name}{suffix}", f"{''.join(words)}{ops[0].name}", ops)


def _told_elsewhere(cycle: Cycle, length: int) -> bool:
    """Two appends against the clock are a non-monotonic append, an end seen too early is a stale
    read, an end amid what was read is G1b: all found without a graph, under these names."""
    kinds = set(cycle.kinds) - {PROCESS, CLOCK}
    timed = len(set(cycle.kinds)) > len(kinds)
    return length == 2 and (kinds == {WR, RW} or (timed and kinds in ({WW}, {RW})))


def _shortest(graph: Graph, component: set[int], kinds: set[int]) -> Cycle:
    """A shortest cycle over edges of these kinds, from as many of the nodes as time allows."""
    starts = sorted(node for node in component if node < graph.count)
    best: Cycle | None = None
    for start in starts[: max(1, _LOOKED_AT_MAX // len(component))]:
        cycle = _back_to(start, graph.edges, lambda n, k: n in component and k in kinds)
        if best is None or len(cycle.nodes) < len(best.nodes):
            best = cycle
    assert best is not None, "a strong component without an operation"
    return best


def _back_to(
    start: int, edges: Sequence[Sequence[int]], allowed: Callable[[int, int], bool]
) -> Cycle:
    came: dict[int, tuple[int, int]] = {}
    ahead = deque([start])
    while ahead:
        node = ahead.popleft()
        for edge in edges[node]:
            target, kind = divmod(edge, _KINDS)
            if not allowed(target, kind) or target in came:
                continue
            came[target] = node, kind
            if target == start:
                return _walked(start, came)
            ahead.append(target)
    raise AssertionError("a node of a strong component that lies on no cycle")


def _walked(start: int, came: dict[int, tuple[int, int]]) -> Cycle:
    nodes: list[int] = []
    kinds: list[int] = []
    node = start
    while not nodes or node != start:
        node, kind = came[node]
        nodes.append(node)
        kinds.append(kind)
    return Cycle(nodes[::-1], kinds[::-1])
