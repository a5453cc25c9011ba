"""Tokens: who runs, how often, when; and that compiled graphs hold what the compiler promised."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.agent.graph.issues import IssueCode
from app.agent.graph.ports import RunFailed
from tests.agent.documents import end, graph, llm, node, text
from tests.agent.doubles import COMPILER, Bench, Log


def runs_of(bench: Bench) -> list[str]:
    return [value["node_id"] for value in bench.log.custom("node.started")]


def pick(name: str, take: str, *choices: str) -> dict[str, Any]:
    return node(name, "pick", {"take": take, "choices": list(choices or ("yes", "no"))})


class TestAll:
    async def test_unequal_branches_join_once(self) -> None:
        document = graph(
            llm("a"),
            llm("b1"),
            llm("b2"),
            llm("b3"),
            llm("join", "{{ a.text }}{{ b3.text }}"),
            end(),
            edges=[
                "start > a", "start > b1", "b1 > b2", "b2 > b3", "a > join", "b3 > join", "join > done",
            ],
        )  # fmt: skip
        bench = Bench(document)
        await bench.run()
        assert runs_of(bench) == ["start", "a", "b1", "b2", "b3", "join", "done"]

    async def test_one_taken_branch_is_enough(self) -> None:
        document = graph(
            pick("p", "yes"),
            llm("a"),
            llm("b1"),
            llm("b2"),
            end(answer="{{ a.text ?? b2.text }}"),
            edges=["start > p", "p.yes > a", "p.no > b1", "b1 > b2", "a > done", "b2 > done"],
        )
        bench = Bench(document)
        assert (await bench.run()).output == {"answer": "Hello."}
        assert runs_of(bench) == ["start", "p", "a", "done"]

    async def test_skipped_nodes_are_recorded_but_tell_nothing(self) -> None:
        document = graph(
            pick("p", "yes"), llm("a"), llm("b"), end(),
            edges=["start > p", "p.yes > a", "p.no > b", "a > done", "b > done"],
        )  # fmt: skip
        bench = Bench(document)
        await bench.run()
        assert {step.node_path: (step.status, step.attempts) for step in bench.log.steps} == {
            "a": ("succeeded", 1),
            "b": ("skipped", 0),
        }

    async def test_success_and_failure_of_one_node_may_meet_at_once(self) -> None:
        document = graph(
            node("a", "nap", {"fail": True}),
            end(why='{{ a.error.message ?? "fine" }}'),
            edges=["start > a", "a > done", "a.error > done"],
        )
        bench = Bench(document)
        assert (await bench.run()).output == {"why": "woken up"}
        assert runs_of(bench) == ["start", "a", "done"]

    async def test_parallel_branches_run_at_the_same_time(self) -> None:
        naps = [node(f"n{i}", "nap", {"seconds": 0.2}) for i in range(5)]
        edges = [f"start > n{i}" for i in range(5)] + [f"n{i} > done" for i in range(5)]
        bench = Bench(graph(*naps, end(), edges=edges))
        await bench.run()
        names = bench.log.names
        assert names.index("node.started n4") < names.index("node.finished n0")


class TestBranches:
    """They do not wait for each other."""

    async def test_go_on_each_in_its_own_time(self) -> None:
        document = graph(
            node("quick", "nap", {"seconds": 0.01}),
            text("next", "x"),
            node("slow", "nap", {"seconds": 0.3}),
            end(),
            edges=["start > quick", "start > slow", "quick > next", "next > done", "slow > done"],
        )
        bench = Bench(document)
        await bench.run()
        names = bench.log.names
        assert names.index("node.finished next") < names.index("node.finished slow")

    async def test_are_cancelled_when_one_fails_the_run(self) -> None:
        document = graph(
            node("bad", "nap", {"seconds": 0.01, "fail": True}),
            node("slow", "nap", {"seconds": 30}),
            end(),
            edges=["start > bad", "start > slow", "bad > done", "slow > done"],
        )
        bench = Bench(document)
        with pytest.raises(RunFailed, match="bad"):
            await bench.run()
        assert "node.finished slow" not in bench.log.names

    def noting(self, quick: float, slow: float) -> dict[str, Any]:
        """Two branches that wait, write to the state and read it."""
        parts = [
            part
            for name, seconds in (("a", quick), ("b", slow))
            for part in (
                node(f"{name}_nap", "nap", {"seconds": seconds}),
                node(f"{name}_note", "note", {"field": "seen", "value": name}),
                text(f"{name}_read", "{{ state.seen }}"),
            )
        ]
        edges = ["a_read > done", "b_read > done"]
        for name in ("a", "b"):
            edges += [
                f"start > {name}_nap", f"{name}_nap > {name}_note", f"{name}_note > {name}_read"
            ]  # fmt: skip
        done = end(a="{{ a_read.text }}", b="{{ b_read.text }}", all="{{ state.seen }}")
        state = {"seen": {"type": "array", "reducer": "append", "initial": []}}
        return graph(*parts, done, edges=edges, state=state)

    @pytest.mark.parametrize(("quick", "slow"), [(0.0, 0.05), (0.05, 0.0)])
    async def test_see_what_led_to_them_whoever_was_faster(self, quick: float, slow: float) -> None:
        result = await Bench(self.noting(quick, slow)).run()
        assert result.output == {"a": '["a"]', "b": '["b"]', "all": ["a", "b"]}


class TestAny:
    def fast_and_slow(self, take: str = "both") -> dict[str, Any]:
        return graph(
            llm("fast"),
            llm("slow1"),
            llm("slow2"),
            llm("first", "{{ fast.text ?? slow2.text }}", join="any"),
            llm("after", "{{ first.text }}"),
            end(),
            edges=[
                "start > fast", "start > slow1", "slow1 > slow2",
                "fast > first", "slow2 > first", "first > after", "after > done",
            ],
        )  # fmt: skip

    async def test_acts_on_the_first_and_once(self) -> None:
        bench = Bench(self.fast_and_slow())
        await bench.run()
        ran = runs_of(bench)
        assert sorted(ran) == sorted(["start", "fast", "slow1", "slow2", "first", "after", "done"])
        assert ran.index("first") <= ran.index("slow2") + 1

    async def test_acts_while_what_is_slower_still_runs(self) -> None:
        document = graph(
            node("fast", "nap", {"seconds": 0.01}),
            node("slow", "nap", {"seconds": 0.3}),
            text("first", "x", join="any"),
            end(),
            edges=["start > fast", "start > slow", "fast > first", "slow > first", "first > done"],
        )
        bench = Bench(document)
        await bench.run()
        names = bench.log.names
        assert names.index("node.finished first") < names.index("node.finished slow")

    async def test_is_recorded_so_that_whoever_goes_on_takes_the_same_one(self) -> None:
        document = graph(
            node("a", "nap", {"seconds": 0.05}),
            node("b", "nap", {"seconds": 0.0}),
            text("first", '{{ a.text ?? b.text ?? "" }}', join="any"),
            end(answer="{{ first.text }}"),
            edges=["start > a", "start > b", "a > first", "b > first", "first > done"],
        )
        bench = Bench(document)
        told = (await bench.run()).output
        again = Bench(document)
        again.log = Log(*bench.log.steps)
        assert (await again.run()).output == told
        assert "node.started first" not in again.log.names

    async def test_acts_so_with_an_effect_of_its_own_and_behind_it(self) -> None:
        document = graph(
            node("fast", "nap", {"seconds": 0.01}),
            node("slow", "nap", {"seconds": 0.3}),
            node("first", "nap", {}, join="any"),
            node("after", "nap", {}),
            end(),
            edges=[
                "start > fast", "start > slow", "fast > first", "slow > first",
                "first > after", "after > done",
            ],
        )  # fmt: skip
        bench = Bench(document)
        await bench.run()
        names = bench.log.names
        assert names.index("node.finished after") < names.index("node.finished slow")

    async def test_is_followed_by_what_it_was_followed_by_then(self) -> None:
        """The slower branch has ended since: whoever goes on must not choose otherwise because of it."""
        document = graph(
            node("fast", "nap", {"seconds": 0.01}),
            node("slow", "nap", {"seconds": 0.1}),
            text("first", "x", join="any"),
            text("seen", '{{ slow.text ?? "nothing yet" }}'),
            end(answer="{{ seen.text }}"),
            edges=[
                "start > fast", "start > slow", "fast > first", "slow > first", "first > seen", "seen > done",
                "slow > done",
            ],
        )  # fmt: skip
        bench = Bench(document)
        told = (await bench.run()).output
        again = Bench(document)
        again.log = Log(*bench.log.steps)
        assert (await again.run()).output == told == {"answer": "nothing yet"}

    async def test_losers_are_not_cancelled(self) -> None:
        bench = Bench(self.fast_and_slow())
        await bench.run()
        finished = [value["node_id"] for value in bench.log.custom("node.finished")]
        assert "slow2" in finished

    async def test_a_skipped_token_does_not_count_as_the_first(self) -> None:
        document = graph(
            pick("p", "no"),
            llm("a"),
            llm("b1"),
            llm("b2"),
            llm("first", '{{ a.text ?? b2.text ?? "" }}', join="any"),
            end(),
            edges=[
                "start > p", "p.yes > a", "p.no > b1", "b1 > b2", "a > first", "b2 > first", "first > done",
            ],
        )  # fmt: skip
        bench = Bench(document)
        await bench.run()
        assert runs_of(bench) == ["start", "p", "b1", "b2", "first", "done"]

    async def test_passes_skipped_on_when_nothing_was_taken(self) -> None:
        document = graph(
            pick("p", "c", "a", "b", "c"),
            llm("a"),
            llm("b"),
            llm("c1"),
            llm("c2"),
            llm("first", join="any"),
            end(answer="{{ first.text ?? c2.text }}"),
            edges=[
                "start > p", "p.a > a", "p.b > b", "p.c > c1", "c1 > c2",
                "a > first", "b > first", "first > done", "c2 > done",
            ],
        )  # fmt: skip
        bench = Bench(document)
        await bench.run()
        assert runs_of(bench) == ["start", "p", "c1", "c2", "done"]

    async def test_a_later_join_on_all_still_waits_for_the_loser(self) -> None:
        document = self.fast_and_slow()
        document["nodes"][-1] = end(answer="{{ slow2.text }}{{ after.text }}")
        document["edges"].append({"source": "slow2", "target": "done"})
        bench = Bench(document)
        assert (await bench.run()).output == {"answer": "Hello.Hello."}

    async def test_many_in_a_row_run_once_each(self) -> None:
        nodes, edges = [llm("n0")], ["start > n0"]
        for i in range(1, 40):
            nodes.append(llm(f"n{i}", join="any"))
            edges += [f"n{j} > n{i}" for j in range(max(0, i - 3), i)]
        bench = Bench(graph(*nodes, end(), edges=[*edges, "n39 > done"]))
        await bench.run()
        assert sorted(runs_of(bench)) == sorted(["start", *(f"n{i}" for i in range(40)), "done"])


@st.composite
def branchy_graphs(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """Small graphs of nodes that choose by an input, whose references cover only some of the ways."""
    size = draw(st.integers(2, 6))
    joins = ["all"] if draw(st.booleans()) else ["all", "any"]
    names = [f"p{i}" for i in range(size)]
    edges = ["start > p0"]
    for i, name in enumerate(names[1:], start=1):
        edges.append(f"p{draw(st.integers(0, i - 1))}.{draw(st.sampled_from(['yes', 'no']))} > {name}")
    for i, handle in product(range(size), ("yes", "no")):
        later = st.sampled_from([*names[i + 1 :], "done"])
        edges += [f"p{i}.{handle} > {target}" for target in draw(st.lists(later, min_size=1, max_size=2))]
    read = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
    picks = [
        node(name, "pick", {"take": f"{{{{ inputs.{name} }}}}"}, join=draw(st.sampled_from(joins)))
        for name in names
    ]
    document = graph(
        *picks,
        end(answer="{{ " + " ?? ".join(f"{name}.picked" for name in read) + " }}"),
        edges=list(dict.fromkeys(edges)),
    )
    types = {name: {"type": "string"} for name in names}
    document["inputs"] = {"type": "object", "properties": types, "required": names}
    return document, size


class TestPromise:
    """The compiler's proofs against all runs. Where the first of several branches wins, which one that is
    depends on timing, so the compiler may warn of a run that did not happen here."""

    @given(branchy_graphs())
    @settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
    async def test_a_value_is_missing_in_some_run_exactly_if_the_compiler_says_so(
        self, drawn: tuple[dict[str, Any], int]
    ) -> None:
        await self.holds(*drawn)

    @pytest.mark.soak
    @given(branchy_graphs())
    @settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
    async def test_holds_for_many_graphs(self, drawn: tuple[dict[str, Any], int]) -> None:
        await self.holds(*drawn)

    async def holds(self, document: dict[str, Any], size: int) -> None:
        found = {issue.code for issue in COMPILER.check(document).issues}
        assert found <= {IssueCode.MAYBE_UNSET.value}
        checked = {**document, "nodes": [*document["nodes"]]}
        if found:
            checked["nodes"][-1] = end(answer=_with_fallback(document))
        missing = False
        bench = Bench(checked)
        for choices in product(("yes", "no"), repeat=size):
            inputs = {f"p{i}": choice for i, choice in enumerate(choices)}
            result = await bench.given(inputs)
            missing |= result.output["answer"] == "missing"
        timing_matters = any(part.get("join") == "any" for part in document["nodes"])
        assert missing == bool(found) or (timing_matters and found)


def _with_fallback(document: dict[str, Any]) -> str:
    answer: str = document["nodes"][-1]["config"]["output"]["answer"]
    return answer.replace(" }}", ' ?? "missing" }}')


@pytest.mark.parametrize("length", [1, 30])
async def test_a_long_chain_runs_within_the_recursion_limit(length: int) -> None:
    ids = [f"n{i}" for i in range(length * 10)]
    edges = [f"{a} > {b}" for a, b in zip(["start", *ids], [*ids, "done"], strict=True)]
    bench = Bench(graph(*(text(name, "x", timeout_s=5) for name in ids), end(answer="y"), edges=edges))
    assert (await bench.run()).output == {"answer": "y"}
