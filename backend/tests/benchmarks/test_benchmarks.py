"""The frame of the benchmarks, and each of them at a size that says nothing about speed."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path

import pytest

from benchmarks import registry
from benchmarks.__main__ import main
from benchmarks._texts import make_texts
from benchmarks.registry import Benchmark, Report, Row, Scale, benchmark, load_all
from benchmarks.rounds import Cost, take_turns
from benchmarks.tables import changes, markdown

NAMES = ["compile", "durable", "fused", "ingestion", "run", "search", "startup", "tokens"]
QUICK = ("compile", "search")


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Benchmark]:
    """A registry of this test's own."""
    own: dict[str, Benchmark] = {}
    monkeypatch.setattr(registry, "BENCHMARKS", own)
    monkeypatch.setattr("benchmarks.__main__.load_all", lambda: own)
    return own


def register(name: str, *, aim: float = 1.5, cost: float = 2) -> None:
    @benchmark(name, floor="nothing")
    async def measure(scale: Scale) -> Report:
        row = Row("a thing", "ms", float(scale.pick(1, cost, 3)), 1.0, aim)
        return Report([row], {"a thing": {"API": 1.5, "PostgreSQL": 0.5}})


def shown(*rows: Row) -> str:
    return markdown(Benchmark("one", "nothing", load_all()["compile"].measure), Report(rows))


class TestRegistry:
    def test_knows_every_benchmark_of_the_package(self) -> None:
        assert list(load_all()) == NAMES

    def test_a_name_is_taken_once(self, registered: dict[str, Benchmark]) -> None:
        register("one")
        with pytest.raises(ValueError, match="two benchmarks 'one'"):
            register("one")


class TestEachBenchmark:
    @pytest.mark.parametrize(
        "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.soak) for name in NAMES]
    )
    async def test_measures_both_sides(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ORRERY_RUN_WARM_UP", "false")  # no figure counts here
        report = await load_all()[name].measure(Scale.TINY)
        assert report.rows
        assert all(isfinite(row.ours) and isfinite(row.floor) for row in report.rows)


class TestCommand:
    def test_prints_a_table_with_the_ratio(
        self, registered: dict[str, Benchmark], capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        register("one")
        main(["--out", str(tmp_path)])
        line = next(line for line in capsys.readouterr().out.splitlines() if "≤ 1.5 × floor" in line)
        assert [cell.strip() for cell in line.strip("|").split("|")] == [
            "a thing", "ms", "2.00", "1.00", "2.00", "", "≤ 1.5 × floor", "**no**",
        ]  # fmt: skip

    def test_prints_one_document_for_programs(
        self, registered: dict[str, Benchmark], capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        register("one")
        register("two")
        main(["two", "--full", "--json", "--out", str(tmp_path)])
        (only,) = json.loads(capsys.readouterr().out)["benchmarks"]
        assert (only["name"], only["rows"][0]["ratio"], only["cpu"]["a thing"]["API"]) == ("two", 3, 1.5)

    def test_writes_tables_document_and_picture(
        self, registered: dict[str, Benchmark], tmp_path: Path
    ) -> None:
        register("one")
        main(["--out", str(tmp_path / "new")])
        written = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
        assert sorted(written) == ["bench.json", "bench.md", "bench.png"]
        assert written["bench.png"].startswith(b"\x89PNG")
        assert "cores" in json.loads(written["bench.json"])["machine"]["CPU"]

    def test_compares_with_an_earlier_run(
        self, registered: dict[str, Benchmark], capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        register("one", cost=4)
        main(["--out", str(tmp_path)])
        registered.clear()
        register("one", cost=1)
        main(["--out", str(tmp_path / "after"), "--against", str(tmp_path / "bench.json")])
        assert "| one       | a thing |   4.00 | 1.00 |   -75% | yes |" in capsys.readouterr().out

    @pytest.mark.parametrize("content", [None, "{", "{}", '{"benchmarks": [1]}'])
    def test_names_the_file_it_cannot_compare_with(
        self,
        registered: dict[str, Benchmark],
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        content: str | None,
    ) -> None:
        register("one")
        earlier = tmp_path / "earlier.json"
        if content is not None:
            earlier.write_text(content)
        with pytest.raises(SystemExit):
            main(["--out", str(tmp_path), "--against", str(earlier)])
        assert repr(str(earlier)) in capsys.readouterr().err

    def test_an_unknown_name_is_told_with_the_known_ones(
        self, registered: dict[str, Benchmark], capsys: pytest.CaptureFixture[str]
    ) -> None:
        register("one")
        with pytest.raises(SystemExit):
            main(["tow"])
        assert "there is no benchmark 'tow'; there are one" in capsys.readouterr().err


class TestPromise:
    @pytest.mark.parametrize(
        ("row", "met"),
        [
            (Row("a", "ms", 3, 2), None),
            (Row("a", "ms", 3, 2, aim=1.5), True),
            (Row("a", "ms", 3.1, 2, aim=1.5), False),
            (Row("a", "MB", 300, 2, budget=300), True),
            (Row("a", "MB", 301, 2, budget=300), False),
            (Row("a", "MB", 300, 2, aim=2, budget=300), False),
        ],
    )
    def test_is_kept_where_ratio_and_budget_are(self, row: Row, met: bool | None) -> None:
        assert row.met is met

    def test_is_shown_with_its_unit(self) -> None:
        assert "| ≤ 300 MB | yes |" in shown(Row("a", "MB", 200, 100, budget=300))


class TestMarkdown:
    def test_a_floor_too_small_to_be_measured_is_no_error(self) -> None:
        assert " inf " in shown(Row("a", "ms", 1.0, 0.0))

    def test_what_changed_little_is_not_called_a_change(self) -> None:
        table = changes({("one", "a"): 2.0}, {"one": [Row("a", "ms", 2.1, 1.0), Row("b", "ms", 1.0, 1.0)]})
        assert table.splitlines()[2:] == ["| one       | a    |   2.00 | 2.10 |        |     |"]


class TestRounds:
    async def test_sides_take_turns(self) -> None:
        order: list[str] = []

        async def side(name: str) -> Cost:
            order.append(name)
            return {"API": len(order)}

        rounds = await take_turns({"ours": lambda: side("ours"), "floor": lambda: side("floor")}, 2)
        assert order == ["ours", "floor", "ours", "floor"]
        assert rounds.least("ours") == {"API": 1}
        assert rounds.spread("floor", "ours", "API") == pytest.approx(2 / (4 / 3) - 1)


class TestTexts:
    def test_are_the_same_every_time(self) -> None:
        assert make_texts(2, words=30) == make_texts(2, words=30)

    def test_have_as_many_words_as_demanded(self) -> None:
        assert len(make_texts(1, words=100)[0].split()) == 100
