"""Every reference: it exists, it can have run, it is set whenever it is read, it is of the right type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from app.agent.core.base import ERROR
from app.agent.core.interfaces import Session
from app.agent.core.value_types import (
    ANY,
    FAILURE,
    TEXT,
    Lost,
    ValueType,
    fits,
    follow,
    given_by,
    of_value,
    union,
)
from app.agent.graph.branches import Cube
from app.agent.graph.checks.expressions import hopeless
from app.agent.graph.checks.expressions import type_of as type_of_expression
from app.agent.graph.checks.state import taken_by, type_of
from app.agent.graph.config_fields import Use, uses_in, uses_in_raw
from app.agent.graph.draft import Draft, DraftNode
from app.agent.graph.expressions import Expression
from app.agent.graph.flow import Flow
from app.agent.graph.issues import Findings, IssueCode, Path
from app.agent.graph.policies import DefaultOutputs
from app.agent.graph.references import Chain, Reference
from app.agent.graph.schema import StateField

_SESSION = given_by(Session)
_ONLY_INSIDE = {"item": "'map'", "loop": "'map' or 'loop'"}
_OUTSIDE = ("state", "session")


@dataclass(frozen=True, slots=True)
class _Read:
    """What is known of one reference. `set_when`: the runs in which it is set, None if unknown."""

    type: ValueType = ANY
    always: bool = False
    source: str = ""
    set_when: list[Cube] | None = None


def own_sources(draft: Draft) -> dict[str, ValueType]:
    """What references in an agent's own graph read besides its inputs."""
    unset = frozenset(name for name, field in draft.state.items() if field.initial is None)
    kinds = {name: type_of(field) for name, field in draft.state.items()}
    return {"state": ValueType(frozenset({"object"}), kinds, unset), "session": _SESSION}


def check_references(
    flow: Flow, sources: Mapping[str, ValueType], findings: Findings, arguments: Mapping[str, ValueType]
) -> None:
    """`sources` are what can be read besides the outputs of nodes; `arguments`, what those of nodes that call
    tools take, where that is known.
    """
    for reader in flow.draft.nodes:
        for use in _uses(reader, flow.draft.state, arguments.get(reader.id)):
            seen = {**sources, **_seen_besides(reader, use)}
            _UseCheck(flow, seen, findings, reader=reader, use=use).run()
    if flow.branches and not flow.branches.complete:
        message = "the graph branches too much to prove that every reference is set whenever it is read"
        findings.add(
            IssueCode.TOO_BRANCHY, ("nodes",), message,
            fix="join branches earlier, or split the agent",
        )  # fmt: skip


def _seen_besides(reader: DraftNode, use: Use) -> dict[str, ValueType]:
    """What a field reads of the graph inside of its node."""
    if reader.type is None or use.path[0] != "config" or len(use.path) == 1:
        return {}
    config = reader.type.config
    return {name: config.inside[name] for name in config.aware.get(str(use.path[1]), ())}


def _uses(reader: DraftNode, state: Mapping[str, StateField], arguments: ValueType | None) -> Iterator[Use]:
    """Every template of a node, its place counted from the node; without those of the graph inside of it."""
    found = uses_in(reader.node.config) if reader.node else _uses_in_raw(reader)
    written = _written(reader, state)
    for use in found:
        expected = written.get(use.path, use.expected)
        if arguments and use.path[0] == "arguments":
            place = follow(arguments, map(str, use.path[1:]))
            expected = None if isinstance(place, Lost) else place.type
        yield replace(use, path=("config", *use.path), expected=expected)
    if reader.node and reader.node.cache and reader.node.cache.key:
        yield Use(("cache", "key"), reader.node.cache.key)


def _uses_in_raw(reader: DraftNode) -> Iterator[Use]:
    holds_graph = reader.type is not None and reader.type.config.holds_graph()
    found = uses_in_raw(reader.raw.get("config"))
    return (use for use in found if not (holds_graph and use.path[:1] == ("graph",)))


def _written(reader: DraftNode, state: Mapping[str, StateField]) -> dict[Path, ValueType | None]:
    """What is taken at the places whose value goes to the state."""
    places = reader.node.config.written() if reader.node else {}
    return {place: taken_by(state[name]) for name, place in places.items() if name in state}


class _UseCheck:
    """One template in one node."""

    def __init__(
        self,
        flow: Flow,
        sources: Mapping[str, ValueType],
        findings: Findings,
        *,
        reader: DraftNode,
        use: Use,
    ) -> None:
        self._flow = flow
        self._known = sources
        self._findings = findings
        self._reader = reader
        self._use = use
        self._path: Path = (*reader.path, *use.path)

    def run(self) -> None:
        types = [self._check_chain(chain) for chain in self._use.template.chains]
        if self._use.expression:
            self._check_expression(self._use.expression, types)
        elif self._use.template.chain is None and self._use.expected:
            self._fit(TEXT, repr(self._use.template.source))

    def _check_chain(self, chain: Chain) -> ValueType:
        """The type of the chain's value."""
        reads = [self._read(reference) for reference in chain.references]
        sound = [read for read in reads if read is not None]
        if len(sound) < len(reads):
            return ANY
        written = [read for reference in chain.references for read in self._writings(reference)]
        self._check_set(chain, [*sound, *written])
        types = [read.type for read in sound]
        if chain.literal:
            types.append(of_value(chain.literal.value))
        found = union(types)
        if self._use.template.chain is not None and self._use.expression is None:
            self._fit(found, f"'{chain}'")
        return found

    def _check_expression(self, expression: Expression, types: list[ValueType]) -> None:
        names = dict(zip(expression.names, types, strict=True))
        for left, right in hopeless(expression.tree, names):
            message = f"'{expression}' compares {left} with {right} by size, which always fails"
            fix = "compare values of one kind, for example by int(…) or str(…)"
            self._add(IssueCode.TYPE_MISMATCH, message, fix=fix)
        self._fit(type_of_expression(expression.tree, names), f"'{expression}'")

    def _add(self, code: IssueCode, message: str, *, fix: str) -> None:
        self._findings.add(code, self._path, message, fix=fix, node_id=self._reader.id)

    def _read(self, reference: Reference) -> _Read | None:
        """None where the reference is wrong, which is reported."""
        name = reference.source
        if name in self._known:
            return self._follow(reference, self._known[name], IssueCode.UNKNOWN_REFERENCE)
        if name in _ONLY_INSIDE:
            message = f"'{reference}': {name!r} exists only inside of a {_ONLY_INSIDE[name]} node"
            self._add(IssueCode.UNKNOWN_REFERENCE, message, fix=self._sources(name))
            return None
        if name in _OUTSIDE:
            message = f"'{reference}': {name!r} cannot be read inside of a {self._flow.draft.within!r} node"
            fix = "hand the value in by the node's 'inputs', and read it as 'inputs.<name>'"
            self._add(IssueCode.UNKNOWN_REFERENCE, message, fix=fix)
            return None
        return self._read_node(reference)

    def _writings(self, reference: Reference) -> Iterator[_Read]:
        """The nodes that surely write the state field, each as what sets it."""
        if reference.source != "state" or not reference.path:
            return
        for writer in self._flow.draft.nodes:
            if writer.node is None or isinstance(writer.node.on_error, DefaultOutputs):
                continue
            if writer.id in self._flow.active and reference.path[0] in writer.node.config.written():
                yield _Read(source=writer.id, set_when=self._flow.successful(writer.id))

    def _sources(self, wrong: str) -> str:
        names = [*self._known, *self._flow.nodes]
        return self._findings.instead(wrong, [name for name in names if name != self._reader.id])

    def _follow(self, reference: Reference, start: ValueType, code: IssueCode) -> _Read | None:
        found = follow(start, reference.path)
        if not isinstance(found, Lost):
            return _Read(found.type, always=found.certain)
        if found.choices or "object" in found.type.kinds:
            message = f"'{reference}': there is no {found.step!r}"
            fix = self._findings.instead(found.step, found.choices)
        else:
            message = f"'{reference}': {found.type} has no field {found.step!r}"
            fix = f"end the path before '.{found.step}'"
        self._add(code, message, fix=fix)
        return None

    def _read_node(self, reference: Reference) -> _Read | None:
        name = reference.source
        source = self._flow.nodes.get(name)
        if source is None:
            message = f"'{reference}': {name!r} is no node, input, state field or session"
            self._add(IssueCode.UNKNOWN_REFERENCE, message, fix=self._sources(name))
            return None
        if not self._may_precede(name):
            message = f"'{reference}': node {name!r} cannot have run before {self._reader.id!r}"
            fix = f"lead a path from {name!r} to {self._reader.id!r}, or read another node"
            self._add(IssueCode.NOT_YET_RUN, message, fix=fix)
            return None
        if source.type is None:
            return _Read()
        if source.type.name in ("start", "end"):
            message = f"'{reference}': {source.type.name!r} nodes have no outputs"
            self._add(IssueCode.UNKNOWN_OUTPUT, message, fix="read an input as 'inputs.<name>'")
            return None
        return self._read_output(reference, source)

    def _read_output(self, reference: Reference, source: DraftNode) -> _Read | None:
        outputs = ValueType(frozenset({"object"}), {**source.types, ERROR: FAILURE})
        found = self._follow(reference, outputs, IssueCode.UNKNOWN_OUTPUT)
        name = source.id
        if found is None:
            return None
        if not {name, self._reader.id} <= self._flow.active:
            return _Read(found.type, source=name)
        on_error = source.node.on_error if source.node else None
        if reference.path[:1] == (ERROR,):
            if ERROR not in self._flow.handles[name] and not isinstance(on_error, DefaultOutputs):
                message = f"'{reference}': node {name!r} never hands on an error"
                fix = f'add an edge {{"source": "{name}", "handle": "error", …}}, or a default in on_error'
                self._add(IssueCode.NEVER_SET, message, fix=fix)
                return None
            return _Read(found.type, source=name, set_when=self._flow.failed(name))
        lacking = isinstance(on_error, DefaultOutputs) and reference.path[:1] not in [
            (key,) for key in on_error.default
        ]
        when = [] if lacking and reference.path else self._flow.successful(name)
        return _Read(found.type, source=name, set_when=when)

    def _may_precede(self, name: str) -> bool:
        reader, branches = self._reader.id, self._flow.branches
        if name == reader:
            return False
        if branches is None or not {name, reader} <= self._flow.active:
            return True
        return branches.precedes(name, reader)

    def _check_set(self, chain: Chain, reads: list[_Read]) -> None:
        branches = self._flow.branches
        if chain.literal or any(read.always for read in reads) or self._reader.id not in self._flow.active:
            return
        ways = branches.ways(self._reader.id) if branches else None
        if branches is None or ways is None or any(read.source and read.set_when is None for read in reads):
            return
        for way in ways:
            cubes = [
                cube
                for read in reads
                if read.source in self._flow.active and branches.finished_before(way, read.source)
                for cube in read.set_when or []
            ]
            if not branches.implies(way.cube, cubes):
                self._report_unset(chain, reads)
                return

    def _report_unset(self, chain: Chain, reads: list[_Read]) -> None:
        if not any(read.source for read in reads):
            message = f"'{chain}' may be unset: nothing requires it, and it has no default"
            fix = f"write '{{{{ {chain} ?? \"…\" }}}}', require the value, or give it a default"
        else:
            message = (
                f"'{chain}' may be unset when {self._reader.id!r} runs: on some way there it is not produced"
            )
            fix = f"write '{{{{ {chain} ?? \"…\" }}}}', or name what the other branches produce"
        self._add(IssueCode.MAYBE_UNSET, message, fix=fix)

    def _fit(self, actual: ValueType, what: str) -> None:
        expected = self._use.expected
        if expected and not fits(expected, actual):
            self._add(
                IssueCode.TYPE_MISMATCH,
                f"{what} is {actual}, but {self._use.path[-1]!r} takes {expected}",
                fix=f"give {expected}",
            )
