"""The README's commands are run as they stand there."""

import asyncio
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.factories import Member
from tests.fixtures import Running

TOP = Path(__file__).resolve().parents[3]
README = (TOP / "README.md").read_text()


def block_after(heading: str) -> str:
    section = README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found, f"no shell block under {heading!r}"
    return found.group(1)


async def _work(server: Running) -> None:
    while True:
        await server.drain().run("ingest")
        await asyncio.sleep(0.1)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README speaks curl, which is not installed")
async def test_the_main_job_by_curl(server: Running, member: Member) -> None:
    worker = asyncio.create_task(_work(server))
    environment = os.environ | {"ORRERY_URL": server.url, "ORRERY_API_KEY": member.key}
    script = "set -eu\n" + block_after("The main job by curl")
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        script,
        cwd=TOP,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    worker.cancel()
    assert process.returncode == 0, output
    assert "0.42" in output.split("RUN_FINISHED")[-1]


def test_names_only_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (TOP / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE)) <= targets


def test_names_only_files_that_exist() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (TOP / link).exists(), link
