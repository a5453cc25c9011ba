"""`orrery doctor` as its users run it: on a healthy platform, on nothing, and with wrong settings."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.embedded.mounts import inside, needs_mounts, small_disk
from tests.trust.serving import Platform, environment, eventually, open_folder

pytestmark = pytest.mark.timeout(300)
AREAS = {
    "configuration",
    "machine",
    "data folder",
    "platform",
    "database",
    "broker",
    "work",
    "blobs",
    "model",
}


def findings(done: subprocess.CompletedProcess[str], level: str) -> dict[str, str]:
    """What is to be done about each finding of that level."""
    found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    return {each["what"]: each["what_to_do"] for each in found if each["level"] == level}


@pytest.fixture(scope="module")
def said(served: Platform) -> dict[str, Any]:
    eventually(served.worker)
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "doctor", "--json"],
        cwd=served.data_dir.parent,
        env=environment(served.data_dir),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


class TestHealthyPlatform:
    def test_has_nothing_to_repair(self, said: dict[str, Any]) -> None:
        assert said["level"] in ("ok", "warn")  # the disk of a test machine may be small
        assert [each for each in said["findings"] if each["level"] == "fail"] == []

    def test_is_looked_at_in_every_area(self, said: dict[str, Any]) -> None:
        assert {each["area"] for each in said["findings"]} == AREAS

    @pytest.mark.parametrize(
        "what",
        [
            "is ready",
            "PostgreSQL 18",
            "pgvector 0.",
            "is bound by row-level security",
            "row-level security is enabled and forced on all",
            "the schema is the newest",
            "LISTEN and NOTIFY work",
            "Redis ",
            "workers that answer: 1",
            "keeps what it gets",
            "has the right weights",
            "no model server is set",
        ],
    )
    def test_is_said_to_be_right_in(self, said: dict[str, Any], what: str) -> None:
        fine = [each["what"] for each in said["findings"] if each["level"] == "ok"]
        assert any(what in each for each in fine), fine

    def test_tells_no_secret(self, said: dict[str, Any], served: Platform) -> None:
        secrets = [path.read_text() for path in (served.data_dir / "secrets").iterdir()]
        assert secrets
        assert not any(secret in json.dumps(said) for secret in secrets)


class TestNothingRuns:
    def test_starts_and_makes_nothing(self, command: Command) -> None:
        with open_folder() as folder:
            done = command(["doctor"], folder / "data", ORRERY_PORT="0")
            assert (done.returncode, list(folder.iterdir())) == (0, [])
        assert "nothing runs on this data folder, and the doctor starts nothing" in done.stdout
        assert "0 to repair" in done.stdout

    def test_looks_at_services_that_the_settings_name(self, command: Command, served: Platform) -> None:
        found = served.services()
        with open_folder() as folder:
            done = command(
                ["doctor", "--json"],
                folder / "data",
                ORRERY_PORT="0",
                ORRERY_DATABASE_URL=found["database_url"],
                ORRERY_DATABASE_MIGRATION_URL=found["migration_url"],
                ORRERY_REDIS_URL=found["redis_url"],
                ORRERY_MASTER_KEY=(served.data_dir / "secrets" / "master.key").read_text(),
                ORRERY_JWT_KEY="of-tests-only-" + "x" * 32,
            )
        assert findings(done, "fail") == {}
        assert any("the schema is the newest" in what for what in findings(done, "ok"))
        assert done.returncode == 0


class TestWrongSettings:
    def test_an_unknown_variable_is_named_with_its_neighbour(self, command: Command) -> None:
        with open_folder() as folder:
            done = command(["doctor", "--json"], folder / "data", ORRERY_PORT="0", ORRERY_DATABSE_URL="x")
        wrong = findings(done, "fail")
        assert done.returncode == 1
        assert wrong == {
            "ORRERY_DATABSE_URL is set, but there is no such setting": "did you mean ORRERY_DATABASE_URL?"
        }

    def test_a_variable_of_the_env_file_counts_as_well(self, command: Command) -> None:
        with open_folder() as folder:
            (folder / ".env").write_text("ORRERY_PROT=9000\n")
            done = command(["doctor", "--json"], folder / "data", ORRERY_PORT="0")
        assert list(findings(done, "fail").values()) == ["did you mean ORRERY_PORT?"]

    def test_values_that_make_no_sense_are_named_all_together(self, command: Command) -> None:
        with open_folder() as folder:
            done = command(["doctor", "--json"], folder / "data", ORRERY_PORT="70000", ORRERY_LEASE_S="soon")
        wrong = " ".join(findings(done, "fail"))
        assert done.returncode == 1
        assert "ORRERY_PORT is '70000'" in wrong
        assert "ORRERY_LEASE_S is 'soon'" in wrong

    def test_an_empty_variable_is_worth_a_thought(self, command: Command) -> None:
        with open_folder() as folder:
            done = command(["doctor", "--json"], folder / "data", ORRERY_PORT="0", ORRERY_BLOB_URL="")
        assert "ORRERY_BLOB_URL is set, but empty" in findings(done, "warn")

    @pytest.mark.parametrize(
        ("settings", "what"),
        [
            ({"ORRERY_DATABASE_URL": "mysql://x@127.0.0.1:9/x"}, "ORRERY_DATABASE_URL begins with 'mysql'"),
            ({"ORRERY_REDIS_URL": "http://127.0.0.1:9"}, "ORRERY_REDIS_URL begins with 'http'"),
            (
                {"ORRERY_DATABASE_MIGRATION_URL": "postgresql://127.0.0.1:9/x"},
                "ORRERY_DATABASE_MIGRATION_URL is set without ORRERY_DATABASE_URL",
            ),
            ({"ORRERY_MASTER_KEY": "short"}, "ORRERY_MASTER_KEY has 5 characters"),
            (
                {
                    "ORRERY_DATABASE_URL": "postgresql://127.0.0.1:9/x",
                    "ORRERY_REDIS_URL": "redis://127.0.0.1:9",
                },
                "ORRERY_MASTER_KEY is not set",
            ),
        ],
        ids=["database", "broker", "owner alone", "key too short", "no key"],
    )
    def test_are_found(self, command: Command, settings: dict[str, str], what: str) -> None:
        with open_folder() as folder:
            done = command(["doctor", "--json"], folder / "data", ORRERY_PORT="0", **settings)
        assert done.returncode == 1
        assert any(what in each for each in findings(done, "fail")), findings(done, "fail")


class TestDatabaseAway:
    def test_is_one_finding_in_words(self, command: Command) -> None:
        key = "of-tests-only-" + "x" * 32
        given = {
            "ORRERY_DATABASE_URL": "postgresql://x@127.0.0.1:9/x",
            "ORRERY_REDIS_URL": "redis://127.0.0.1:9",
            "ORRERY_MASTER_KEY": key,
            "ORRERY_JWT_KEY": key,
        }
        with open_folder() as folder:
            (folder / "data").mkdir()
            (folder / "data" / "credentials.json").write_text('{"api_key": "' + "k" * 40 + '"}')
            done = command(["doctor", "--json"], folder / "data", ORRERY_PORT="0", **given)
        wrong = findings(done, "fail")
        assert len([what for what in wrong if "127.0.0.1:9/x" in what]) == 1, wrong
        plain = [what.replace(str(folder), "").replace("ORRERY_DATABASE_URL", "") for what in wrong]
        assert not any("_" in what for what in plain), wrong

    def test_that_does_not_know_the_master_key_is_one_finding(
        self, command: Command, served: Platform
    ) -> None:
        wrong_key = "wrong-master-key-of-more-than-32-characters"
        done = command(["doctor", "--json"], served.data_dir, ORRERY_MASTER_KEY=wrong_key)
        (what,) = [what for what in findings(done, "fail") if "key" in what]
        assert "is in force, and ORRERY_MASTER_KEY" in what


class TestDisk:
    @needs_mounts
    def test_without_room_and_read_only_is_found(self) -> None:
        with open_folder() as folder:
            (folder / "data").mkdir()
            mounts = [small_disk(folder / "data", megabytes=50), f"mount -o remount,ro '{folder / 'data'}'"]
            done = subprocess.run(
                inside(mounts, [sys.executable, "-m", "app.cli", "doctor", "--json"]),
                cwd=folder,
                env=environment(folder / "data", ORRERY_PORT="0"),
                capture_output=True,
                text=True,
                timeout=100,
            )
        wrong = " ".join(findings(done, "fail"))
        assert done.returncode == 1
        assert "MB free at" in wrong
        assert "on a read-only file system (tmpfs)" in wrong


class TestKeys:
    def test_without_a_command_shows_them(self, command: Command) -> None:
        with open_folder() as folder:
            done = command(["keys"], folder / "data")
        assert done.returncode == 2
        assert "create" in done.stdout + done.stderr
