"""Commands that see file systems of their own: a small disk, a read-only or noexec folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest


def _can_mount() -> bool:
    if os.geteuid() != 0:
        return False
    probe = ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    try:
        return subprocess.run(probe, capture_output=True, timeout=10).returncode == 0
    except OSError:
        return False


needs_mounts = pytest.mark.skipif(not _can_mount(), reason="only root may mount, and not in every container")


def small_disk(folder: Path, *, megabytes: int) -> str:
    """A file system of that size at `folder`."""
    return f"mount -t tmpfs -o mode=755,size={megabytes}m tmpfs '{folder}'"


def bound(folder: Path, target: Path, options: str = "") -> str:
    """`folder` again at `target`, perhaps with other options (`ro`, `noexec`)."""
    command = f"mount --bind '{folder}' '{target}'"
    return f"{command} && mount -o remount,bind,{options} '{target}'" if options else command


def inside(mounts: Sequence[str], command: Sequence[str | Path]) -> list[str]:
    """`command`, in a mount namespace of its own where `mounts` were done; gone when it ends."""
    script = " && ".join([*mounts, 'exec "$@"'])
    return ["unshare", "-m", "sh", "-c", script, "-", *map(str, command)]
