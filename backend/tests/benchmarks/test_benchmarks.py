"""The frame of the benchmarks, and the cheapest of them at a size that says nothing about speed."""

from __future__ import annotations

import json

import pytest

from benchmarks import registry
from benchmarks.__main__ import main
from benchmarks._texts import make_texts
from benchmarks.registry import Benchmark, Row, Scale, benchmark, load_all
from benchmarks.tables import markdown


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Benchmark]:
    """A registry of this test's own."""
    own: dict[str, Benchmark] = {}
    monkeypatch.setattr(registry, "BENCHMARKS", own)
    monkeypatch.setattr("benchmarks.__main__.load_all", lambda: own)
    return own


def register(name: str) -> None:
    @benchmark(name, floor="nothing")
    async def measure(scale: Scale) -> list[Row]:
        return [Row("a thing", "ms", float(scale.pick(1, 2, 3)), 1.0, aim=1.5)]


class TestRegistry:
    def test_knows_every_benchmark_of_the_package(self) -> None:
        assert list(load_all()) == ["compile", "ingestion", "run", "search", "startup", "tokens"]

    def test_a_name_is_taken_once(self, registered: dict[str, Benchmark]) -> None:
        register("one")
        with pytest.raises(ValueError, match="two benchmarks 'one'"):
            register("one")


class TestCompile:
    async def test_measures_both_sides(self) -> None:
        rows = await load_all()["compile"].measure(Scale.TINY)
        assert all(row.ours > 0 and row.floor > 0 for row in rows)


class TestCommand:
    def test_prints_a_table_with_the_ratio(
        self, registered: dict[str, Benchmark], capsys: pytest.CaptureFixture[str]
    ) -> None:
        register("one")
        main([])
        assert "| a thing | ms   | 2.00 |  1.00 |         2.00 | ≤ 1.5 |" in capsys.readouterr().out

    def test_prints_one_document_for_programs(
        self, registered: dict[str, Benchmark], capsys: pytest.CaptureFixture[str]
    ) -> None:
        register("one")
        register("two")
        main(["two", "--full", "--json"])
        (only,) = json.loads(capsys.readouterr().out)["benchmarks"]
        assert (only["name"], only["rows"][0]["ratio"]) == ("two", 3)

    def test_an_unknown_name_is_told_with_the_known_ones(
        self, registered: dict[str, Benchmark], capsys: pytest.CaptureFixture[str]
    ) -> None:
        register("one")
        with pytest.raises(SystemExit):
            main(["tow"])
        assert "there is no benchmark 'tow'; there are one" in capsys.readouterr().err


class TestMarkdown:
    def test_a_floor_too_small_to_be_measured_is_no_error(self) -> None:
        one = Benchmark("one", "nothing", load_all()["compile"].measure)
        assert " inf " in markdown(one, [Row("a", "ms", 1.0, 0.0)])


class TestTexts:
    def test_are_the_same_every_time(self) -> None:
        assert make_texts(2, words=30) == make_texts(2, words=30)

    def test_have_as_many_words_as_demanded(self) -> None:
        assert len(make_texts(1, words=100)[0].split()) == 100
