"""What is journalled of an `agent` node's calls: they are made once, whoever goes on with the run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest

from app.agent.core.base import NodeConfig, NodeTypes, Outputs, node_type
from app.agent.core.interfaces import Finished, ModelError, Usage
from app.agent.core.scope import Scope
from app.agent.graph.compiler import AgentCompiler
from app.agent.graph.ports import Past, RunFailed
from app.services.runs.recovery import usage_of
from tests.agent.agent_calls import document, wants
from tests.agent.documents import end, graph, node
from tests.agent.doubles import TYPES, Bench, Script, says
from tests.agent.test_agent_approvals import OSLO
from tests.agent.test_agent_node import ROME, SKY, bench, calls_of
from tests.agent.test_inner_graphs import Team
from tests.agent.test_tool_node import SCHEMA, SUNNY, Listed, Shelf


class KeepingConfig(NodeConfig):
    """Makes one call, as an `agent` does."""

    type: ClassVar[str] = "keeping"
    keeps_calls: ClassVar[bool] = True


async def keeping(config: KeepingConfig, scope: Scope) -> Outputs:
    call = scope.call(1, "tool")
    await call.prepare("write", {})
    await call.finish({"done": True})
    return {}


class TestOtherTypes:
    async def test_that_keep_calls_announce_those_instead_of_themselves(self) -> None:
        compiler = AgentCompiler(NodeTypes([*TYPES.values(), node_type(KeepingConfig, keeping, outputs={})]))
        made = graph(node("keep", "keeping", {}), end(), edges=["start > keep", "keep > done"])
        run = Bench(made, compiler=compiler)
        await run.run()
        assert [(step.node_path, step.call) for step in run.log.begun] == [("keep", 1)]


class TestRetry:
    async def test_calls_that_have_ended_are_not_made_again(self) -> None:
        tool = Listed([SUNNY])
        run = bench(
            wants(ROME), [ModelError("rate_limit", "slow down")], says("Sunny."),
            shelf=Shelf(sky=[tool]), retry={"max_attempts": 2},
        )  # fmt: skip
        result = await run.run()
        assert (len(tool.calls), len(run.model.requests)) == (1, 3)
        assert result.usage.input_tokens == 13
        node = next(
            step for step in run.log.steps if step.node_path == "act" and step.ended and not step.call
        )
        assert node.usage is not None
        assert node.usage["input_tokens"] == 13
        assert [step.call for step in calls_of(run.log)] == [1, 2, 3]

    async def test_each_write_has_a_key_of_its_own_and_is_announced(self) -> None:
        tool = Listed([SUNNY])
        run = bench(wants(ROME, ROME), says("Done."), shelf=Shelf(sky=[tool]))
        await run.run()
        keys = [key for _, key in tool.calls]
        assert None not in keys
        assert len(set(keys)) == 2
        assert [(step.node_path, step.call, step.status) for step in run.log.begun] == [
            ("act", 2, "started"), ("act", 3, "started"),
        ]  # fmt: skip

    async def test_what_only_reads_has_none(self) -> None:
        tool = Listed([SUNNY], effect="read")
        run = bench(wants(ROME), says("Done."), shelf=Shelf(sky=[tool]))
        await run.run()
        assert ([key for _, key in tool.calls], run.log.begun) == ([None], [])


class TestRecall:
    async def test_another_process_repeats_nothing(self) -> None:
        tool = Listed([SUNNY])
        first = bench(wants(ROME), says("Sunny."), shelf=Shelf(sky=[tool]))
        before = (await first.run()).output
        again = bench(says("Never."), shelf=Shelf(sky=[tool]))
        again.log.known = {step.key: step for step in calls_of(first.log)}
        past = Past(continued=1, begun=True, usage={"scripted": Usage(13, 7)})
        result = await again.given({"question": "Why?"}, run_id="run-1", past=past)
        assert (result.output, again.model.requests, len(tool.calls)) == (before, [], 1)
        assert result.usage == Usage(13, 7)
        assert [event for event in again.log.events if event.type.value.startswith("TOOL")] == []

    async def test_a_call_in_doubt_is_repeated_with_the_same_key(self) -> None:
        tool = Listed([SUNNY])
        first = bench(wants(ROME), says("Sunny."), shelf=Shelf(sky=[tool]))
        await first.run()
        again = bench(says("Sunny."), shelf=Shelf(sky=[tool]))
        known = [first.log.begun[0], *(step for step in calls_of(first.log) if step.call == 1)]
        again.log.known = {step.key: step for step in known}
        await again.given({"question": "Why?"}, run_id="run-1", past=Past(continued=1, begun=True))
        assert len(tool.calls) == 2
        assert len({key for _, key in tool.calls}) == 1

    async def test_a_call_in_doubt_is_repeated_as_it_was_though_the_tool_has_other_defaults(self) -> None:
        tool = Listed([SUNNY])
        first = bench(wants(ROME), says("Sunny."), shelf=Shelf(sky=[tool]))
        await first.run()
        tool.schema = SCHEMA | {
            "properties": SCHEMA["properties"] | {"days": {"type": "integer", "default": 9}}
        }
        again = bench(says("Sunny."), shelf=Shelf(sky=[tool]))
        known = [first.log.begun[0], *(step for step in calls_of(first.log) if step.call == 1)]
        again.log.known = {step.key: step for step in known}
        await again.given({"question": "Why?"}, run_id="run-1", past=Past(continued=1, begun=True))
        assert [arguments for arguments, _ in tool.calls] == [{"city": "Rome", "days": 1}] * 2
        assert len({key for _, key in tool.calls}) == 1


class TestUnusable:
    """An answer that is no use, in the journal of a process that died before the node failed by it."""

    async def test_is_asked_for_again_and_what_it_used_counts_once(self) -> None:
        first = bench(wants(ROME), [Finished("content_filter", Usage(7, 0))])
        with pytest.raises(RunFailed):
            await first.run()
        known = calls_of(first.log)
        again = bench(says("Sunny."))
        again.log.known = {step.key: step for step in known}
        past = Past(continued=1, begun=True, usage=usage_of(known))
        result = await again.given({"question": "Why?"}, run_id="run-1", past=past)
        assert (result.output["answer"], result.usage) == ("Sunny.", Usage(20, 7))
        assert again.log.custom("node.finished")[1]["usage"] == {"input_tokens": 20, "output_tokens": 7}
        stored = {step.key: step for step in [*known, *again.log.steps]}
        assert usage_of(stored.values()) == {"scripted": Usage(20, 7)}


class TestKeys:
    """Of a run that is resumed on a corrected version, whose model may ask for something else."""

    async def keys(self, *runs: Bench, tool: Listed) -> list[str | None]:
        for run in runs:
            await run.given({"question": "Why?"}, effects_id="run-1")
        return [key for _, key in tool.calls]

    async def test_are_kept_for_the_same_call(self) -> None:
        tool = Listed([SUNNY])
        shelf = Shelf(sky=[tool])
        again = wants(("weather", {"days": 1, "city": "Rome"}), tokens=(1, 1))
        runs = [bench(wanted, says("Done."), shelf=shelf) for wanted in (wants(ROME), again)]
        assert len(set(await self.keys(*runs, tool=tool))) == 1

    async def test_are_others_for_other_arguments(self) -> None:
        tool = Listed([SUNNY])
        shelf = Shelf(sky=[tool])
        runs = [bench(wants(one), says("Done."), shelf=shelf) for one in (ROME, OSLO)]
        assert len(set(await self.keys(*runs, tool=tool))) == 2

    async def test_are_others_for_another_tool(self) -> None:
        calls: list[Any] = []
        shelf = Shelf(sky=[Listed([SUNNY], calls=calls), Listed([SUNNY], name="tides", calls=calls)])
        other = ("tides", {"city": "Rome"})
        for one in (ROME, other):
            await bench(wants(one), says("Done."), shelf=shelf).given({}, effects_id="run-1")
        assert len({key for _, key in calls}) == 2

    async def test_of_what_an_agent_does_depend_on_what_it_was_asked(self) -> None:
        tool = Listed([SUNNY])
        given = {"city": "{{ inputs.city }}"}
        made = graph(
            node("post", "tool", {"tool": "sky", "arguments": given}),
            end(answer="Posted."),
            edges=["start > post", "post > done"],
            bindings=SKY,
        )
        taken = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
        team = Team(helper=made | {"inputs": taken})
        bound = {"agents": {"helper": "helper"}}
        for city in ("Rome", "Oslo", "Rome"):
            asked = document(bindings=bound, agents=["helper"])
            run = Bench(
                asked, wants(("helper", {"city": city})), says("Done."), tools=Shelf(sky=[tool]), agents=team
            )
            await run.given({}, effects_id="run-1")
        rome, oslo, again = [key for _, key in tool.calls]
        assert rome == again != oslo


class TestTakenOver:
    """Of a run that is made of another one, which came as far as the second model call."""

    async def taken(self, *scripts: Script, **config: Any) -> tuple[Bench, Listed, list[str]]:
        tool = Listed([SUNNY])
        first = bench(wants(ROME, text="Let me look."), says("Sunny."), shelf=Shelf(sky=[tool]))
        await first.run()
        again = bench(*scripts, shelf=Shelf(sky=[tool]), **config)
        done = [replace(step, source_run_id="run-1") for step in calls_of(first.log) if step.call < 3]
        again.log.known = {step.key: step for step in done}
        return again, tool, first.log.names

    async def test_what_asks_the_same_is_told_as_it_was_and_not_done(self) -> None:
        again, tool, names = await self.taken(says("Sunny."))
        result = await again.given({"question": "Why?"})
        assert (len(again.model.requests), len(tool.calls)) == (1, 1)
        assert [name for name in again.log.names if name != "TOOL_CALL_ARGS"] == [
            name for name in names if name != "TOOL_CALL_ARGS"
        ]
        assert result.usage == Usage(3, 2)
        assert [step.source_run_id for step in calls_of(again.log)] == [None] * 3
        started = next(event for event in again.log.events if event.type.value == "TOOL_CALL_START")
        assert result.output["tool_calls"][0]["id"] == started.tool_call_id

    async def test_what_asks_something_else_is_done(self) -> None:
        again, tool, _ = await self.taken(wants(ROME), says("Sunny."), temperature=0.5)
        await again.given({"question": "Why?"})
        assert len(again.model.requests) == 2
        assert len(tool.calls) == 1
