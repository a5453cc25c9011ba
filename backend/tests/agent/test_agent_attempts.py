"""The wrapper around every node: retry, timeout, discarded text, defaults."""

from __future__ import annotations

from typing import Any

import pytest

from app.agent.core.interfaces import Finished, ModelError, TextDelta
from app.agent.graph.policies import RetryPolicy
from app.agent.graph.ports import RunFailed, SystemClock
from app.core.errors import NotFound, RateLimited, Unavailable
from tests.agent.documents import ANSWER, end, graph, llm, node
from tests.agent.doubles import Bench, Script, Shelf, says

BUSY = [ModelError("rate_limit", "busy")]


def writer(**policies: Any) -> dict[str, Any]:
    return graph(
        llm("write", **policies),
        end(answer="{{ write.text }}"),
        edges=["start > write", "write > done"],
        **ANSWER,
    )


def searcher(**policies: Any) -> dict[str, Any]:
    search = node("search", "retrieve", {"collection": "kb", "query": "x"}, **policies)
    return graph(search, end(), edges=["start > search", "search > done"])


class TestRetry:
    async def test_success_after_failures(self) -> None:
        bench = Bench(writer(retry={}), BUSY, BUSY, says("Yes."))
        assert (await bench.run()).output == {"answer": "Yes."}
        assert bench.log.steps[-1].attempts == 3

    async def test_without_a_policy_there_is_one_attempt(self) -> None:
        bench = Bench(writer(), BUSY)
        with pytest.raises(RunFailed):
            await bench.run()
        assert len(bench.model.requests) == 1

    async def test_gives_up_after_the_last_attempt(self) -> None:
        bench = Bench(writer(retry={"max_attempts": 4}), BUSY)
        with pytest.raises(RunFailed, match="busy"):
            await bench.run()
        assert len(bench.model.requests) == 4

    async def test_another_error_is_not_retried(self) -> None:
        bench = Bench(writer(retry={"on": ["timeout"]}), BUSY)
        with pytest.raises(RunFailed):
            await bench.run()
        assert len(bench.model.requests) == 1

    async def test_delays_double_up_to_the_maximum(self) -> None:
        retry = {"max_attempts": 6, "initial_s": 1, "max_s": 5, "jitter": False}
        bench = Bench(writer(retry=retry), BUSY)
        with pytest.raises(RunFailed):
            await bench.run()
        assert bench.clock.slept == [1, 2, 4, 5, 5]

    async def test_constant_delays(self) -> None:
        retry = {"backoff": "constant", "initial_s": 2, "jitter": False}
        bench = Bench(writer(retry=retry), BUSY, BUSY, says("x"))
        await bench.run()
        assert bench.clock.slept == [2, 2]

    async def test_jitter_stays_in_the_upper_half(self) -> None:
        bench = Bench(writer(retry={"max_attempts": 10, "initial_s": 4, "backoff": "constant"}), BUSY)
        with pytest.raises(RunFailed):
            await bench.run()
        assert all(2 <= slept <= 4 for slept in bench.clock.slept)
        assert len(set(bench.clock.slept)) > 1

    async def test_a_provider_s_wait_is_honoured(self) -> None:
        bench = Bench(writer(retry={}), [ModelError("rate_limit", "busy", retry_after_s=42)], says("x"))
        await bench.run()
        assert bench.clock.slept == [42]

    async def test_each_retry_is_told(self) -> None:
        bench = Bench(writer(retry={"initial_s": 1, "jitter": False}), BUSY, says("x"))
        await bench.run()
        assert bench.log.custom("retry") == [
            {
                "node_id": "write",
                "attempt": 2,
                "delay_ms": 1000.0,
                "error": {"code": "rate_limit", "message": "busy"},
            }
        ]

    @pytest.mark.parametrize(("error", "attempts"), [(RateLimited, 3), (Unavailable, 3), (NotFound, 1)])
    async def test_errors_of_our_own_services(self, error: type[Exception], attempts: int) -> None:
        bench = Bench(searcher(retry={}), shelf=Shelf(error=error("no")))
        with pytest.raises(RunFailed):
            await bench.run()
        assert len(bench.shelf.searches) == attempts

    def test_the_default_policy(self) -> None:
        assert RetryPolicy().on == ("rate_limit", "timeout", "server_error")


class TestShownText:
    HALF: Script = (TextDelta("Half"), ModelError("server_error", "cut"))

    async def test_is_not_retried(self) -> None:
        bench = Bench(writer(retry={}), self.HALF, says("Whole."))
        with pytest.raises(RunFailed, match="cut"):
            await bench.run()
        assert len(bench.model.requests) == 1

    async def test_is_closed_and_discarded_before_the_error(self) -> None:
        bench = Bench(writer(), self.HALF)
        with pytest.raises(RunFailed):
            await bench.run()
        assert bench.log.names[-4:] == [
            "TEXT_MESSAGE_END",
            "message.discarded write",
            "node.finished write",
            "RUN_ERROR",
        ]

    async def test_is_retried_if_the_node_says_so_under_another_id(self) -> None:
        bench = Bench(writer(retry={"restart_stream": True}), self.HALF, says("Whole."))
        result = await bench.run()
        ids = [event.message_id for event in bench.log.events if event.type.value == "TEXT_MESSAGE_START"]
        (discarded,) = bench.log.custom("message.discarded")
        assert len(set(ids)) == 2
        assert discarded["message_id"] == ids[0]
        assert result.output == {"answer": "Whole."}

    async def test_hidden_text_is_retried_freely(self) -> None:
        document = writer(retry={})
        del document["interface"]
        bench = Bench(document, self.HALF, says("Whole."))
        assert (await bench.run()).output == {"answer": "Whole."}
        assert bench.log.custom("message.discarded") == []

    async def test_an_apology_follows_the_discarded_text(self) -> None:
        document = graph(
            llm("write"),
            node("sorry", "template", {"text": "Sorry."}),
            end(answer="{{ write.text ?? sorry.text }}"),
            edges=["start > write", "write > done", "write.error > sorry", "sorry > done"],
            **ANSWER,
        )
        bench = Bench(document, self.HALF)
        assert (await bench.run()).output == {"answer": "Sorry."}
        assert bench.log.text == "HalfSorry."


class TestTimeout:
    async def test_bounds_each_attempt(self) -> None:
        slow: Script = [5.0, Finished()]
        bench = Bench(writer(timeout_s=0.2, retry={}), slow, slow, says("Yes."))
        assert (await bench.run()).output == {"answer": "Yes."}
        assert bench.model.closed == 3

    async def test_says_how_long_it_waited(self) -> None:
        bench = Bench(writer(timeout_s=0.02), [5.0, Finished()], clock=SystemClock())
        with pytest.raises(RunFailed, match=r"did not finish within 0.02 s") as failure:
            await bench.run()
        assert failure.value.code == "timeout"
        assert bench.log.steps[-1].duration_ms >= 20


class TestOnError:
    async def test_a_default_takes_the_place_of_the_outputs(self) -> None:
        bench = Bench(writer(on_error={"default": {"text": "Sorry."}}), BUSY)
        assert (await bench.run()).output == {"answer": "Sorry."}
        assert bench.log.text == "Sorry."

    async def test_a_default_leaves_the_error_to_be_read(self) -> None:
        document = writer(on_error={"default": {"text": ""}})
        document["nodes"][-1]["config"]["output"]["why"] = '{{ write.error.code ?? "fine" }}'
        assert (await Bench(document, BUSY).run()).output["why"] == "rate_limit"
        assert (await Bench(document).run()).output["why"] == "fine"

    async def test_a_handled_failure_is_recorded_as_one(self) -> None:
        bench = Bench(writer(on_error={"default": {"text": "Sorry."}}), BUSY)
        await bench.run()
        step = bench.log.steps[-1]
        assert (step.status, step.handle, step.error) == (
            "failed",
            "out",
            {"code": "rate_limit", "message": "busy"},
        )

    async def test_fail_is_what_it_says(self) -> None:
        with pytest.raises(RunFailed):
            await Bench(writer(on_error="fail"), BUSY).run()
