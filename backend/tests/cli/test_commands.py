"""The commands that speak HTTP, as their users run them: against a live server, and without one."""

from __future__ import annotations

import io
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli.commands.platform import announce
from app.cli.credentials import save_credentials
from app.cli.inventory import Inventory
from app.core.config import Settings
from app.core.ids import new_id
from app.db.session import Tenant
from app.services.auth_service import Bootstrapped
from tests.cli.conftest import Command
from tests.embedded.served import logged
from tests.graphs import HELLO_GRAPH
from tests.trust.serving import Platform, open_folder, orrery

pytestmark = pytest.mark.timeout(300)
HANDBOOK = Path(__file__).resolve().parents[3] / "examples" / "agents" / "handbook.yaml"


@pytest.fixture(scope="session")
def ingested(served: Platform, notes: Path) -> dict[str, Any]:
    done = orrery(["ingest", notes, "--collection", "handbook", "--json"], served.data_dir)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="session")
def agent(served: Platform, ingested: dict[str, Any]) -> str:
    with served.client() as client:
        graph = yaml.safe_load(HANDBOOK.read_text())
        client.post("/agents", json={"name": "Handbook", "graph": graph}).raise_for_status()
        client.post("/agents/handbook/publish").raise_for_status()
    return "handbook"


class TestIngest:
    def test_counts_what_became_of_the_files(self, ingested: dict[str, Any]) -> None:
        assert ingested == {"ready": 2, "unchanged": 0, "failures": []}

    def test_again_finds_everything_unchanged(
        self, command: Command, served: Platform, notes: Path, ingested: dict[str, Any]
    ) -> None:
        done = command(["ingest", notes, "--collection", "handbook", "--json"], served.data_dir)
        assert json.loads(done.stdout) == {"ready": 0, "unchanged": 2, "failures": []}

    def test_fails_where_a_file_failed_and_names_it(self, command: Command, served: Platform) -> None:
        broken = served.data_dir.parent / "broken [draft].pdf"
        broken.write_bytes(b"%PDF-1.7 and nothing more")
        done = command(["ingest", broken, "--json"], served.data_dir)
        assert done.returncode == 1
        (failure,) = json.loads(done.stdout)["failures"]
        assert failure["name"] == "broken [draft].pdf"

    def test_says_which_file_is_missing(self, command: Command, served: Platform) -> None:
        done = command(["ingest", "nowhere[/x].txt"], served.data_dir)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "Error: There is no file or folder 'nowhere[/x].txt'.\n"


class TestSearch:
    def test_prints_one_json_document(
        self, command: Command, served: Platform, ingested: dict[str, Any]
    ) -> None:
        done = command(
            ["search", "euro per kilometre", "--collection", "handbook", "--json"], served.data_dir
        )
        assert done.returncode == 0
        assert json.loads(done.stdout)["items"][0]["external_id"] == "travel.md"

    def test_shows_text_as_it_is(self, command: Command, served: Platform, ingested: dict[str, Any]) -> None:
        done = command(
            ["search", "lantern", "--collection", "handbook", "--top-k", "1"], served.data_dir, COLUMNS="200"
        )
        assert done.returncode == 0, done.stderr
        assert "[/bold] and [red] and :smile:" in done.stdout

    def test_of_an_unknown_collection_says_so_in_one_sentence(
        self, command: Command, served: Platform
    ) -> None:
        done = command(["search", "x", "--collection", "nowhere"], served.data_dir)
        assert (done.returncode, done.stderr) == (1, "Error: There is no collection 'nowhere' here.\n")

    def test_in_an_unknown_mode_names_the_option_and_the_choices(
        self, command: Command, served: Platform
    ) -> None:
        done = command(["search", "x", "--mode", "magic"], served.data_dir)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("Error: --mode: ")
        assert "hybrid" in line
        assert "Traceback" not in done.stderr


class TestAsk:
    def test_prints_answer_and_citations_as_json(
        self, command: Command, served: Platform, agent: str
    ) -> None:
        question = "How much does the company pay per kilometre by car?"
        done = command(["ask", question, "--json"], served.data_dir)
        assert done.returncode == 0, done.stderr
        body = json.loads(done.stdout)
        assert "0.42" in body["answer"]
        assert body["citations"][0]["index"] == 1
        with served.client() as client:
            assert client.get(f"/runs/{body['run_id']}").json()["status"] == "succeeded"

    def test_shows_sources_and_times(self, command: Command, served: Platform, agent: str) -> None:
        question = "How much does the company pay per kilometre by car?"
        done = command(["ask", question], served.data_dir, COLUMNS="200")
        assert "[1] Travel: “" in done.stdout
        assert "Where the time went" in done.stdout

    def test_an_unknown_agent_fails_in_one_sentence(self, command: Command, served: Platform) -> None:
        done = command(["ask", "x", "--agent", "nobody"], served.data_dir)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "Error: There is no agent 'nobody' here.\n"

    def test_an_agent_without_a_message_says_what_it_takes(self, command: Command, served: Platform) -> None:
        properties = {"q": {"type": "string"}, "top": {"type": "integer"}}
        inputs = {"type": "object", "properties": properties, "required": ["q"]}
        nodes = [{"id": "start", "type": "start"}, {"id": "done", "type": "end", "config": {"output": {}}}]
        edges = [{"source": "start", "target": "done"}]
        graph = {"schema_version": "1", "inputs": inputs, "nodes": nodes, "edges": edges}
        with served.client() as client:
            client.post("/agents", json={"name": "Mute", "graph": graph}).raise_for_status()
            client.post("/agents/mute/publish").raise_for_status()
        done = command(["ask", "hi", "--agent", "mute"], served.data_dir)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("Error: The agent 'mute' names no `interface.message`")
        assert "Its inputs: q (string), top (integer, optional)." in done.stderr
        assert 'POST /api/v1/agents/mute/runs with {"input": {"q": "…"}}' in done.stderr

    def test_an_agent_that_is_not_published_says_so(self, command: Command, served: Platform) -> None:
        with served.client() as client:
            client.post("/agents", json={"name": "Shy", "graph": HELLO_GRAPH}).raise_for_status()
        done = command(["ask", "hi", "--agent", "shy"], served.data_dir)
        assert (done.returncode, done.stdout) == (1, "")
        assert "has no published version" in done.stderr


class TestKeysCreate:
    def test_prints_a_key_that_works(self, command: Command, served: Platform) -> None:
        done = command(["keys", "create", "--permission", "search", "--json"], served.data_dir)
        made = json.loads(done.stdout)
        assert set(made) == {"id", "key"}
        refused = command(["ask", "x"], served.data_dir, ORRERY_API_KEY=made["key"])
        assert refused.returncode == 1
        assert "agents:read" in refused.stderr

    def test_refuses_permissions_that_do_not_exist(self, command: Command, served: Platform) -> None:
        done = command(["keys", "create", "--permission", "everything"], served.data_dir)
        assert (done.returncode, done.stdout) == (1, "")
        assert "'everything'" in done.stderr

    def test_keeps_it_for_its_owner_only(self, command: Command, served: Platform) -> None:
        done = command(["keys", "create", "--save"], served.data_dir)
        kept = served.data_dir / "credentials.json"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert json.loads(kept.read_text()) == {"api_key": done.stdout.strip()}

    def test_of_an_unknown_key_is_refused_in_one_sentence(self, command: Command, served: Platform) -> None:
        done = command(["search", "x"], served.data_dir, ORRERY_API_KEY="x" * 40)
        assert done.stderr == "Error: The API key or access token is unknown, revoked or expired.\n"
        assert done.returncode == 1


class TestUsersSetPassword:
    def test_lets_the_owner_log_in(
        self, command: Command, served: Platform, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("a lantern in the harbour\n"))
        done = command(["users", "set-password", "--password-stdin", "--json"], served.data_dir)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["email"] == "owner@orrery.local"
        body = {"email": told["email"], "password": "a lantern in the harbour"}
        with served.client() as client:
            assert client.post("/auth/login", json=body).status_code == 200

    def test_asks_for_it_twice(
        self, command: Command, served: Platform, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        typed = iter(["a lantern at home", "another one", "a lantern at home", "a lantern at home"])
        monkeypatch.setattr("getpass.getpass", lambda _: next(typed))
        done = command(["users", "set-password", "owner@orrery.local"], served.data_dir)
        assert done.returncode == 0, done.stderr
        assert "owner@orrery.local logs in with the new password" in done.stdout
        assert "a lantern" not in done.stdout + done.stderr

    def test_refuses_a_short_one_in_one_sentence(
        self, command: Command, served: Platform, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("short\n"))
        done = command(["users", "set-password", "--password-stdin"], served.data_dir)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == ("Error: The password is refused: a password needs at least 8 characters.\n")


class TestWithoutAServer:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["ask", "x"],
            ["search", "x"],
            ["ingest", "."],
            ["keys", "create"],
            ["users", "set-password"],
            ["worker"],
        ],
    )
    def test_fails_in_one_sentence_that_says_what_to_do(self, command: Command, arguments: list[str]) -> None:
        with open_folder() as folder:
            done = command(arguments, folder / "data")
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("Error: ")
        assert "orrery serve" in line

    def test_that_answers_fails_in_one_sentence(self, command: Command) -> None:
        with open_folder() as folder:
            done = command(["search", "x"], folder / "data", ORRERY_URL="http://127.0.0.1:9")
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "http://127.0.0.1:9" in line
        assert "does not answer" in line

    def test_credentials_that_are_damaged_are_named(self, command: Command) -> None:
        with open_folder() as folder:
            (folder / "data").mkdir()
            (folder / "data" / "credentials.json").write_text("{")
            done = command(["search", "x"], folder / "data", ORRERY_URL="http://127.0.0.1:9")
        assert done.returncode == 1
        assert "credentials.json" in done.stderr
        assert "orrery keys create --save" in done.stderr


class TestServe:
    def test_on_a_folder_in_use_says_who_uses_it(self, served: Platform) -> None:
        done = orrery(["serve", "--port", "0"], served.data_dir)
        assert done.returncode == 1
        assert served.process
        assert f"process {served.process.pid}" in done.stderr
        assert served.running

    def test_on_a_port_in_use_says_so(self, served: Platform) -> None:
        port = served.url.rsplit(":", 1)[1]
        with open_folder() as folder:
            done = orrery(["serve", "--port", port], folder / "data")
            left = list(folder.iterdir())
        assert done.returncode == 1
        assert f"127.0.0.1:{port}" in done.stderr
        assert left == []

    def test_hides_what_it_announced_from_others(self, served: Platform) -> None:
        announced = served.data_dir / "run" / "services.json"
        assert stat.S_IMODE(announced.stat().st_mode) == 0o600

    def test_says_when_it_is_ready_and_where(self, served: Platform) -> None:
        assert [line["url"] for line in logged(served, "ready")] == [served.url]

    def test_version_needs_nothing(self) -> None:
        with open_folder() as folder:
            done = orrery(["--version"], folder / "data")
            assert (done.returncode, list(folder.iterdir())) == (0, [])

    def test_help_says_where_json_is_asked_for(self, command: Command) -> None:
        with open_folder() as folder:
            done = command(["--help"], folder / "data", COLUMNS="200")
        assert "--json after a command prints one JSON document" in done.stdout.replace("`", "")


class TestUnknownSettings:
    """A start goes on, and warns of them in one line."""

    def warned(self, done: subprocess.CompletedProcess[str]) -> list[str]:
        lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
        return [line["names"] for line in lines if line["event"] == "unknown_settings_ignored"]

    @pytest.mark.parametrize("arguments", [["worker"], ["serve", "--port", "0", "--no-worker"]])
    def test_are_named_with_the_nearest_one(self, command: Command, arguments: list[str]) -> None:
        wrong = {"ORRERY_LEASES": "5", "ORRERY_PROT": "1", "ORRERY_JWT_KEY": "short"}  # so that serve ends
        with open_folder() as folder:
            done = command(arguments, folder / "data", ORRERY_DATABASE_URL="postgresql://x", **wrong)
        assert done.returncode == 1
        assert self.warned(done) == [
            "ORRERY_LEASES (did you mean ORRERY_LEASE_S?), ORRERY_PROT (did you mean ORRERY_PORT?)"
        ]

    def test_are_not_looked_for_among_known_ones(self, command: Command) -> None:
        with open_folder() as folder:
            done = command(["worker"], folder / "data")
        assert self.warned(done) == []


class TestAnnouncement:
    """What a start tells about the API key, by what it made and what is there."""

    def said(self, capsys: pytest.CaptureFixture[str], made: str | None) -> str:
        announce("http://x", Bootstrapped(Tenant(new_id()), made), Inventory())
        return capsys.readouterr().out

    def test_says_where_the_saved_key_is(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        settings = Settings(data_dir=tmp_path, _env_file=None)
        monkeypatch.setattr("app.cli.commands.platform.get_settings", lambda: settings)
        assert "API key" not in self.said(capsys, None)
        path = save_credentials(settings, "k" * 40)
        said = self.said(capsys, None)
        assert f"The command line's API key is kept in {path}" in said
        assert "k" * 40 not in said
        assert "shown this once" in self.said(capsys, "n" * 40)
        announce("http://x", Bootstrapped(Tenant(new_id()), "n" * 40), Inventory(), show_key=False)
        assert "n" * 40 not in capsys.readouterr().out

    def test_says_how_to_get_a_key_where_none_is_shown(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        settings = Settings(data_dir=tmp_path, _env_file=None)
        monkeypatch.setattr("app.cli.commands.platform.get_settings", lambda: settings)
        assert "orrery keys create" in self.said(capsys, None)
        assert "orrery keys create" not in self.said(capsys, "n" * 40)

    @pytest.mark.parametrize(
        ("there", "sentence", "step"),
        [
            (Inventory(), "is empty: 'orrery demo' brings documents", "orrery demo"),
            (Inventory(agents=1, collections=2), "has 1 agent and 2 collections.", "orrery demo"),
            (
                Inventory(agents=2, collections=1, has_demo=True),
                "has 2 agents and 1 collection.",
                "orrery ask",
            ),
        ],
    )
    def test_says_what_is_there_and_what_to_do_next(
        self, capsys: pytest.CaptureFixture[str], there: Inventory, sentence: str, step: str
    ) -> None:
        announce("http://x", Bootstrapped(Tenant(new_id()), None), there)
        said = capsys.readouterr().out
        assert sentence in said
        assert f"Next, in a second terminal: {step}" in said
        assert "http://x/docs" in said

    def test_names_what_is_ignored_and_the_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        announce("http://x", Bootstrapped(Tenant(new_id()), None, ("ORRERY_BOOTSTRAP_EMAIL",)), Inventory())
        said = capsys.readouterr().out
        assert "ORRERY_BOOTSTRAP_EMAIL: ignored" in said
        assert "'orrery users set-password'" in said
