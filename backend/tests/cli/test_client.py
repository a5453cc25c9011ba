"""How names that people choose become parts of requests."""

from pathlib import Path

import pytest

from app.cli.client import ApiError, segment
from app.cli.ingesting import collect_files
from app.core.errors import Misconfigured


class TestSegment:
    @pytest.mark.parametrize(
        ("name", "shown"), [("handbook", "handbook"), ("?", "%3F"), ("x/../y", "x%2F..%2Fy")]
    )
    def test_is_one_part_of_a_path_whatever_it_holds(self, name: str, shown: str) -> None:
        assert segment(name) == shown

    @pytest.mark.parametrize("name", ["", ".", ".."])
    def test_of_nothing_is_refused(self, name: str) -> None:
        with pytest.raises(ApiError, match="neither a slug nor an id"):
            segment(name)


class TestCollectFiles:
    def test_shows_names_that_are_not_utf8(self, tmp_path: Path) -> None:
        (tmp_path / "bad\udcff.txt").write_text("hi")
        ((_, name),) = collect_files([tmp_path])
        assert name == "bad?.txt"

    def test_refuses_two_files_of_one_name(self, tmp_path: Path) -> None:
        for folder in ("north", "south"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "readme.md").write_text(folder)
        both = [tmp_path / "north" / "readme.md", tmp_path / "south" / "readme.md"]
        with pytest.raises(Misconfigured, match=r"would both be 'readme\.md' in the collection"):
            collect_files(both)
        assert [name for _, name in collect_files([tmp_path])] == ["north/readme.md", "south/readme.md"]

    def test_takes_a_file_that_is_named_twice_once(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("hi")
        assert [name for _, name in collect_files([tmp_path / "a.txt", tmp_path])] == ["a.txt"]
