"""Each uniform policy on each registered node type that can fail, also on those that come later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from app.agent.core.base import (
    NODE_TYPES,
    Effect,
    NodeConfig,
    NodeError,
    NodeType,
    NodeTypes,
    Outputs,
    node_type,
)
from app.agent.core.scope import Scope
from app.agent.graph.compiler import AgentCompiler
from app.agent.graph.ports import RunFailed
from app.agent.graph.schema import node_model
from app.core.report import Severity
from tests.agent.documents import end, graph, node
from tests.agent.doubles import Bench, Kept
from tests.agent.samples import around, config_of

FORKED = [("start", "quick"), ("start", "slow"), ("quick", "n"), ("slow", "n")]
FAILING = [kind for kind in NODE_TYPES.values() if kind.fails]
PURELY = [kind for kind in NODE_TYPES.values() if not kind.fails]
every_type = pytest.mark.parametrize("kind", FAILING, ids=lambda kind: kind.name)
Act = Callable[[NodeConfig, Scope], Awaitable[Outputs]]


class HeldConfig(NodeConfig):
    """Ends when it may."""

    type: ClassVar[str] = "held"

    slow: bool = False


def document(kind: NodeType, **policies: Any) -> dict[str, Any]:
    """start → the node → done, from each way out."""
    config = config_of(kind)
    ways = kind.config.model_validate(config).handles()
    edges = ["start > n", *(f"n.{way} > done" for way in ways)]
    if policies.pop("caught", False):
        edges.append("n.error > done")
    return graph(node("n", kind.name, config, **policies), end(), edges=edges, **around(kind))


def bench(kind: NodeType, act: Act, /, *, kept: Kept | None = None, **policies: Any) -> Bench:
    """An agent whose node of type `kind` behaves as told; `kept` is what its cache holds."""
    types = NodeTypes(
        [*(other for other in NODE_TYPES.values() if other is not kind), replace(kind, run=act)]
    )
    return Bench(document(kind, **policies), compiler=AgentCompiler(types), cache=kept or Kept())


def fails(times: int, code: str = "server_error") -> tuple[Act, list[int]]:
    """Behaviour that fails so often, and then leaves by the first way out; and its calls."""
    calls: list[int] = []

    async def act(config: NodeConfig, scope: Scope) -> Outputs:
        calls.append(len(calls))
        if len(calls) <= times:
            raise NodeError("no luck", code=code)
        scope.take(config.handles()[0])
        return {}

    return act, calls


def configured(kind: NodeType) -> NodeConfig:
    return kind.config.model_validate(config_of(kind))


def cacheable(kind: NodeType) -> bool:
    """Whether what a node of the type did once is as good as doing it again."""
    config = configured(kind)
    return kind.effect_of(config) is not Effect.WRITE and not config.writes() and not kind.suspends


async def sleeps(config: NodeConfig, scope: Scope) -> Outputs:
    await asyncio.sleep(60)
    return {}


def finished(bench: Bench) -> dict[str, Any]:
    return next(value for value in bench.log.custom("node.finished") if value["node_id"] == "n")


@every_type
class TestPolicies:
    async def test_without_any_a_failure_ends_the_run(self, kind: NodeType) -> None:
        act, calls = fails(1)
        with pytest.raises(RunFailed) as failure:
            await bench(kind, act).run()
        assert (failure.value.node_id, failure.value.code, len(calls)) == ("n", "server_error", 1)

    async def test_timeout(self, kind: NodeType) -> None:
        with pytest.raises(RunFailed) as failure:
            await bench(kind, sleeps, timeout_s=0.01).run()
        assert failure.value.code == "timeout"

    async def test_retry(self, kind: NodeType) -> None:
        act, calls = fails(2)
        run = bench(kind, act, retry={"max_attempts": 3})
        await run.run()
        assert (len(calls), finished(run)["attempts"]) == (3, 3)

    async def test_retry_only_on_what_it_names(self, kind: NodeType) -> None:
        act, calls = fails(2)
        with pytest.raises(RunFailed):
            await bench(kind, act, retry={"on": ["timeout"]}).run()
        assert len(calls) == 1

    async def test_on_error_goes_on_by_the_fallback(self, kind: NodeType) -> None:
        run = bench(kind, fails(9)[0], on_error={"default": {}})
        await run.run()
        ended = finished(run)
        fallback = configured(kind).fallback()
        assert (ended["status"], ended["handle"], ended["error"]["message"]) == (
            "failed",
            fallback,
            "no luck",
        )

    async def test_the_error_handle(self, kind: NodeType) -> None:
        run = bench(kind, fails(9)[0], caught=True)
        await run.run()
        assert (finished(run)["status"], finished(run)["handle"]) == ("failed", "error")

    async def test_cache(self, kind: NodeType) -> None:
        if not cacheable(kind):
            findings = AgentCompiler().check(document(kind, cache={"ttl_s": 60})).issues
            assert "not_cacheable" in [issue.code for issue in findings]
            return
        (act, calls), kept = fails(0), Kept()
        runs = [bench(kind, act, kept=kept, cache={"ttl_s": 60}) for _ in range(2)]
        for run in runs:
            await run.run()
        assert len(calls) == 1
        assert [finished(run).get("cached") for run in runs] == [None, True]
        assert len({finished(run)["handle"] for run in runs}) == 1

    async def test_an_effect_that_is_raised_is_announced_before(self, kind: NodeType) -> None:
        run = bench(kind, fails(0)[0], effect="write")
        await run.run()
        planned = next(planned for planned in run.agent.plan.nodes if planned.id == "n")
        announced = [] if planned.holds_graphs else [("n", "started")]  # what runs inside sees to it itself
        assert [(step.node_path, step.status) for step in run.log.begun] == announced

    async def test_an_effect_cannot_be_lowered(self, kind: NodeType) -> None:
        found = AgentCompiler().check(document(kind, effect="pure")).issues
        lowered = [issue.code for issue in found if issue.severity is Severity.ERROR]
        assert lowered == ([] if kind.effect is Effect.PURE else ["effect_lowered"])

    @pytest.mark.parametrize(("join", "order"), [("all", ["slow", "n"]), ("any", ["n", "slow"])])
    async def test_join(self, kind: NodeType, join: str, order: list[str]) -> None:
        """Of two nodes before it one is there at once; the other one ends after it where that can be."""
        found = document(kind, join=join)
        found["nodes"] += [node("quick", "held"), node("slow", "held", {"slow": True})]
        found["edges"] = [edge for edge in found["edges"] if edge["source"] != "start"]
        found["edges"] += [{"source": source, "target": target} for source, target in FORKED]
        ran, ended = asyncio.Event(), []

        async def hold(config: HeldConfig, scope: Scope) -> Outputs:
            if config.slow:
                await asyncio.sleep(0) if join == "all" else await ran.wait()
                ended.append("slow")
            return {}

        async def act(config: NodeConfig, scope: Scope) -> Outputs:
            ended.append("n")
            ran.set()
            scope.take(config.handles()[0])
            return {}

        others = [other for other in NODE_TYPES.values() if other is not kind]
        held = node_type(HeldConfig, hold, effect=Effect.READ, outputs={})
        await Bench(found, compiler=AgentCompiler(NodeTypes([*others, replace(kind, run=act), held]))).run()
        assert ended == order

    async def test_failures_are_not_cached(self, kind: NodeType) -> None:
        kept = Kept()
        retry = {"max_attempts": 2}
        if cacheable(kind):
            with pytest.raises(RunFailed):
                await bench(kind, fails(9)[0], kept=kept, cache={"ttl_s": 60}, retry=retry).run()
        assert kept.steps == {}


@pytest.mark.parametrize("kind", PURELY, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    "policy", [{"timeout_s": 1}, {"retry": {}}, {"on_error": "fail"}, {"cache": {"ttl_s": 1}}]
)
def test_types_that_cannot_fail_have_none(kind: NodeType, policy: dict[str, Any]) -> None:
    whole = graph(end(), edges=["start > done"])
    next(part for part in whole["nodes"] if part["type"] == kind.name).update(policy)
    (issue,) = AgentCompiler().check(whole).issues
    assert issue.code in ("cannot_fail", "not_cacheable")


@pytest.mark.parametrize("kind", NODE_TYPES.values(), ids=lambda kind: kind.name)
class TestDescriptions:
    def test_the_schema_says_what_the_node_does(self, kind: NodeType) -> None:
        schema = node_model(kind).model_json_schema()
        assert kind.summary
        assert schema["description"] == kind.summary
        config = next(part for name, part in schema["$defs"].items() if name == kind.config.__name__)
        assert config["description"].startswith(kind.summary)

    def test_its_example_is_sound(self, kind: NodeType) -> None:
        kind.config.model_validate(kind.config.example)
        assert list(kind.config.mistakes(kind.config.example)) == []
        assert bool(kind.config.example) is bool(kind.config.model_fields)

    def test_its_example_compiles_with_an_input_and_bindings(self, kind: NodeType) -> None:
        if kind.fails:
            assert AgentCompiler().check(document(kind)).issues == []

    def test_unknown_keys_are_refused(self, kind: NodeType) -> None:
        with pytest.raises(ValidationError, match="Extra inputs"):
            kind.config.model_validate({"type_": "x"})
