"""`orrery secrets rotate` beside a running server, also when it is killed in the middle."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from app.cli.rotating import left_out
from app.core.config import Settings
from app.core.security import master_keys
from app.db.connection import open_engine
from app.db.session import Tenant, make_database
from app.services.secret_service import SecretService
from tests.cli.conftest import Command
from tests.trust.serving import Platform, started

COUNT = 12


@pytest.fixture(scope="module")
def stored(served: Platform) -> dict[str, str]:
    """Secrets by name."""
    values = {f"rotated-{number}": f"value number {number} of a secret" for number in range(COUNT)}
    with served.client() as client:
        for name, value in values.items():
            client.post("/secrets", json={"name": name, "value": value}).raise_for_status()
    return values


def revealed(served: Platform) -> dict[str, str]:
    """What services would see; the API shows no values."""
    settings = Settings(data_dir=served.data_dir, _env_file=None)
    with served.client() as client:
        me = client.get("/auth/me").raise_for_status().json()
        names = [row["name"] for row in client.get("/secrets").raise_for_status().json()["items"]]

    async def ask() -> dict[str, str]:
        async with open_engine(served.services()["database_url"], pool_size=1) as engine:
            tenant = Tenant(UUID(me["org_id"]), UUID(me["project_id"]))
            secrets = SecretService(make_database(engine, _nobody), tenant, master_keys(settings), 1)
            return {name: (await secrets.reveal(name)).get_secret_value() for name in names}

    return asyncio.run(ask())


async def killed_before_the_last(served: Platform) -> None:
    """A rotation that waits for the newest secret, which we hold, until it is killed."""
    hold = text("SELECT id FROM secrets ORDER BY id DESC LIMIT 1 FOR UPDATE")
    async with open_engine(served.services()["migration_url"]) as engine, engine.begin() as connection:
        await connection.execute(hold)
        await asyncio.to_thread(kill_rotation, served)


def kill_rotation(served: Platform) -> None:
    with started(
        ["secrets", "rotate"],
        served.data_dir,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        ORRERY_SECRETS_ROTATION_BATCH="1",
    ) as process:
        assert process.stderr
        while "secrets sealed again" not in (line := process.stderr.readline()):
            assert line, "it ended too early"
        process.kill()
        process.wait()


async def damage(served: Platform, name: str) -> None:
    statement = text(
        "UPDATE secrets SET sealed = overlay(sealed placing '\\x0000' from 30) WHERE slug = :name"
    )
    async with open_engine(served.services()["migration_url"]) as engine, engine.begin() as connection:
        await connection.execute(statement, {"name": name})


async def _nobody(queue: str) -> None:
    raise AssertionError(queue)


class TestRotate:
    def test_tells_programs_what_it_did(
        self, command: Command, served: Platform, stored: dict[str, str]
    ) -> None:
        done = command(["secrets", "rotate", "--json"], served.data_dir)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["keys_left"], told["unreadable"], told["resumed"]) == (0, [], False)
        assert told["secrets_sealed"] >= COUNT
        assert "is in force" in done.stderr
        assert revealed(served).items() >= stored.items()

    def test_of_the_master_key_alone_seals_nothing_again(
        self, command: Command, served: Platform, stored: dict[str, str]
    ) -> None:
        done = command(["secrets", "rotate", "--no-data-keys"], served.data_dir)
        assert done.returncode == 0, done.stderr
        assert "0 secrets sealed again, 0 keys left" in done.stdout

    def test_with_a_wrong_master_key_is_one_sentence(
        self, command: Command, served: Platform, stored: dict[str, str]
    ) -> None:
        wrong = {"ORRERY_MASTER_KEY": "wrong-master-key-of-more-than-32-characters"}
        done = command(["secrets", "rotate"], served.data_dir, **wrong)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("Error: The master key with the fingerprint")
        assert wrong["ORRERY_MASTER_KEY"] not in line

    @pytest.mark.parametrize("given", [(), ("ORRERY_MASTER_KEY",)], ids=["file", "both the same"])
    def test_to_the_same_master_key_says_what_to_set(
        self, command: Command, served: Platform, given: tuple[str, ...]
    ) -> None:
        key = (served.data_dir / "secrets" / "master.key").read_text()
        same = dict.fromkeys((*given, "ORRERY_MASTER_KEY_PREVIOUS"), key)
        done = command(["secrets", "rotate"], served.data_dir, **same)
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert "ORRERY_MASTER_KEY_PREVIOUS is the same as" in line
        assert "set ORRERY_MASTER_KEY to a new key (`openssl rand -hex 32`)" in line
        assert key not in line

    def test_without_a_new_master_key_says_what_to_set(
        self, command: Command, served: Platform, stored: dict[str, str]
    ) -> None:
        assert command(["secrets", "rotate"], served.data_dir).returncode == 0
        new = "another-master-key-of-more-than-32-characters"
        done = command(["secrets", "rotate"], served.data_dir, ORRERY_MASTER_KEY_PREVIOUS=new)
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert "ORRERY_MASTER_KEY is not set, and the key in" in line
        assert new not in line

    def test_of_a_master_key_that_was_in_force_says_that_it_did_not_change(
        self, command: Command, served: Platform, stored: dict[str, str]
    ) -> None:
        given = {
            "ORRERY_MASTER_KEY": (served.data_dir / "secrets" / "master.key").read_text(),
            "ORRERY_MASTER_KEY_PREVIOUS": "another-master-key-of-more-than-32-characters",
        }
        done = command(["secrets", "rotate", "--json"], served.data_dir, **given)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["master_changed"] is False
        assert "the master key is unchanged" in done.stderr

    def test_names_the_running_platform_that_lacks_the_new_key(
        self, served: Platform, tmp_path: Path
    ) -> None:
        told = served.services()
        in_use = master_keys(Settings(data_dir=served.data_dir, _env_file=None)).current.id
        assert told["master_keys"] == [str(in_use)]
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "services.json").write_text(json.dumps(told))
        new = SecretStr("another-master-key-of-more-than-32-characters")
        lacking = left_out(Settings(data_dir=tmp_path, master_key=new, _env_file=None))
        assert f"'orrery serve' (process {told['pid']}) was started without this master key" in str(lacking)
        assert left_out(Settings(data_dir=served.data_dir, _env_file=None)) is None

    def test_killed_in_the_middle_is_finished_by_the_next(
        self, command: Command, served: Platform, stored: dict[str, str]
    ) -> None:
        asyncio.run(killed_before_the_last(served))
        assert revealed(served).items() >= stored.items()
        done = command(["secrets", "rotate", "--json"], served.data_dir)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["resumed"], told["keys_left"]) == (True, 0)
        assert 0 < told["secrets_sealed"] < COUNT
        assert revealed(served).items() >= stored.items()

    def test_names_what_does_not_open_each_time_and_fails_until_it_is_mended(
        self, command: Command, served: Platform, stored: dict[str, str]
    ) -> None:
        name = "rotated-0"
        asyncio.run(damage(served, name))
        for _ in range(2):
            done = command(["secrets", "rotate"], served.data_dir)
            assert done.returncode == 1
            assert "Done: " in done.stdout
            assert " 0 secrets sealed again" not in done.stdout
            assert "1 keys left" in done.stdout
            assert "left: secret" in done.stderr
            assert "set its value again, or delete it" in " ".join(done.stderr.split())
        with served.client() as client:
            client.put(f"/secrets/{name}/value", json={"value": stored[name]}).raise_for_status()
        done = command(["secrets", "rotate"], served.data_dir)
        assert done.returncode == 0, done.stderr
        assert revealed(served).items() >= stored.items()
