"""`orrery demo`: from an empty folder to cited answers, or one sentence that says why not."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from tests.trust.served.conftest import FirstDemo
from tests.trust.serving import Platform, open_folder, orrery

pytestmark = pytest.mark.timeout(300)
Demo = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def again(served: Platform) -> Demo:
    """The demo once more, while the platform is served."""
    if not served.running:
        served.start()
    return orrery(["demo", "--json"], served.data_dir, COLUMNS="200")


class TestFirstDemo:
    def test_ends_well(self, first_demo: FirstDemo) -> None:
        assert first_demo.done.returncode == 0, first_demo.done.stdout + first_demo.done.stderr

    def test_shows_citations(self, first_demo: FirstDemo) -> None:
        assert re.search(r"\[1\] .+: “.+”", first_demo.done.stdout)

    def test_leaves_no_process(self, first_demo: FirstDemo) -> None:
        assert first_demo.left == []


class TestServedAfterwards:
    """What the demo made on the data folder is what `orrery serve` on it shows."""

    def test_has_the_agent_and_the_documents(self, platform: Platform) -> None:
        with platform.client() as client:
            assert client.get("/agents/handbook").json()["live_version"] == 1
            documents = client.get("/collections/handbook/documents").json()["items"]
            assert [document["status"] for document in documents] == ["ready"] * 12

    def test_answers_by_the_command_that_the_start_names(self, platform: Platform) -> None:
        said = platform.log.read_text()
        (question,) = set(re.findall(r'^Next, in a second terminal: orrery ask "(.*)"$', said, re.MULTILINE))
        done = orrery(["ask", question, "--json"], platform.data_dir)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["citations"]

    def test_is_counted_at_the_start(self, platform: Platform) -> None:
        first = platform.log.read_text().partition("Next, in a second terminal")[0]
        assert "The project 'default' has 1 agent and 1 collection." in first


class TestNextDemo:
    def test_joins_the_running_server(self, again: Demo, platform: Platform) -> None:
        assert again.returncode == 0, again.stderr
        assert "joining the running server" in again.stderr
        assert platform.running

    def test_names_the_address_of_that_server(self, again: Demo, platform: Platform) -> None:
        assert f"documented at {platform.url}/docs" in again.stderr

    def test_ingests_and_publishes_nothing_again(self, again: Demo) -> None:
        assert "0 documents ingested, 12 were there already" in again.stderr
        assert json.loads(again.stdout)["version"] == 1

    def test_prints_one_json_document(self, again: Demo) -> None:
        answers = json.loads(again.stdout)["answers"]
        assert len(answers) == 3
        assert [bool(answer["citations"]) for answer in answers] == [True, True, False]


class TestBrokenService:
    def test_postgres_that_is_a_file_is_said_in_one_sentence(self) -> None:
        with open_folder() as folder:
            (folder / "data").mkdir()
            (folder / "data" / "postgres").write_text("not a database")
            failed(orrery(["demo"], folder / "data"), naming="Not a directory")

    def test_damaged_database_is_said_in_one_sentence(self) -> None:
        with open_folder() as folder:
            (folder / "data" / "postgres").mkdir(parents=True)
            (folder / "data" / "postgres" / "PG_VERSION").write_text("7\n")
            failed(orrery(["demo"], folder / "data"), naming="postgres")

    def test_data_folder_that_is_a_file_is_said_in_one_sentence(self) -> None:
        with open_folder() as folder:
            (folder / "data").write_text("")
            failed(orrery(["demo"], folder / "data"), naming="data")


def failed(demo: Demo, *, naming: str) -> None:
    assert demo.returncode == 1, demo.stdout + demo.stderr
    assert "Traceback" not in demo.stdout + demo.stderr
    (line,) = [line for line in demo.stderr.splitlines() if line.strip()]
    assert line.startswith("Error: ")
    assert naming in line
