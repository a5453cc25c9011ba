"""A user id without a name, as `docker run --user` gives one: the sentence says what helps."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.trust.serving import BACKEND, open_folder

_UID = 64123
# The modules are loaded before root is left, because that user may not read them here.
_PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from app.cli.doctor.machine import postgres_runs
from app.cli.doctor.subject import find_subject
from app.core.config import Settings
from app.core.errors import Misconfigured
from app.embedded import installed_postgres, open_services
installed_postgres()

os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
settings = Settings(data_dir=Path(sys.argv[1]), redis_url="redis://127.0.0.1:9", _env_file=None)

async def start():
    try:
        async with open_services(settings):
            print("started")
    except Misconfigured as error:
        print(error.detail)

asyncio.run(start())
print(next(iter(postgres_runs(find_subject(settings, {})))))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_without_a_name_says_what_helps() -> None:
    with open_folder() as folder:
        data = folder / "data"
        data.mkdir()
        os.chown(data, _UID, _UID)
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, data, str(_UID)],
            cwd=folder,
            env={"PATH": os.defpath, "PYTHONPATH": str(BACKEND)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    said, found = [line for line in done.stdout.splitlines() if not line.startswith("20")]
    for text in (said, found):
        assert f"user id {_UID} is not in /etc/passwd" in text
        assert "run as a user that exists in /etc/passwd, or set ORRERY_DATABASE_URL" in text
    assert "start again" not in said
    assert "fail" in found
