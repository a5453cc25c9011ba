"""How programs that work for strangers are started here: in bubblewrap, or with limits alone.

Either way they get an empty environment, no network where the kernel allows that, no open files, bounded
memory, and no way to new rights (`confinement`). In bubblewrap (https://github.com/containers/bubblewrap)
they see no other process, and of the file system only themselves and their libraries, for reading.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from app.core.errors import Unavailable
from app.core.sandbox import confinement

_TRY_S: Final = 20
_INSIDE: Final = "/program"
_LIBRARY: Final = re.compile(r"(?:=> )?(/\S+) \(0x")
_SPACES: Final = ("--unshare-user", "--uid", "65534", "--gid", "65534", "--unshare-ipc", "--unshare-pid")
_AWAY: Final = ("--unshare-net", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "sandbox")
_BARE: Final = ("--cap-drop", "ALL", "--clearenv", "--new-session", "--die-with-parent")


class Sandbox(StrEnum):
    """`auto`: bubblewrap where it works, else limits."""

    AUTO = "auto"
    BUBBLEWRAP = "bubblewrap"
    LIMITS = "limits"


@dataclass(frozen=True, slots=True)
class Jail:
    """One way of starting a program; `lacking` says why it is not bubblewrap."""

    bubblewrap: str | None
    lacking: str = ""

    def command(self, program: Path, *, memory_bytes: int) -> list[str]:
        """What starts `program`; its arguments follow."""
        online = "online" if self.bubblewrap else "offline"
        confined = [sys.executable, "-I", "-S", confinement.__file__, str(memory_bytes), online]
        if self.bubblewrap is None:
            return [*confined, str(program)]
        return [*confined, self.bubblewrap, *_SPACES, *_AWAY, *_BARE, *_seen(program), "--", _INSIDE]


def find_jail(program: Path, wanted: Sandbox, *, memory_bytes: int) -> Jail:
    """The jail in which `program` starts here; it is tried. Raises `Unavailable` where bubblewrap must be."""
    limits = Jail(None, "ORRERY_SANDBOX is 'limits'")
    if wanted is Sandbox.LIMITS:
        return limits
    path = shutil.which("bwrap") if sys.platform == "linux" else None
    lacking = _fault_of(path, program, memory_bytes) if path else "the program 'bwrap' is not installed"
    if path and not lacking:
        return Jail(path)
    if wanted is Sandbox.BUBBLEWRAP:
        raise Unavailable(f"ORRERY_SANDBOX is 'bubblewrap', but {lacking}.")
    return Jail(None, lacking)


@contextmanager
def launcher(command: list[str]) -> Iterator[Path]:
    """A file that can be executed instead of `command`; it passes on its arguments."""
    script = f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n'.encode()
    if hasattr(os, "memfd_create"):  # temporary folders are often mounted without the right to execute
        descriptor = os.memfd_create("launcher")
        try:
            os.write(descriptor, script)
            os.fchmod(descriptor, 0o500)
            yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "launcher")
        path.write_bytes(script)
        path.chmod(0o500)
        yield path


def _fault_of(bubblewrap: str, program: Path, memory_bytes: int) -> str:
    """Why `program` does not start in bubblewrap; "" where it does."""
    command = [*Jail(bubblewrap).command(program, memory_bytes=memory_bytes), "--version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TRY_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not work here ({error})"
    said = " ".join(done.stderr.split())[:200]
    return f"bubblewrap does not work here ({said})" if done.returncode else ""


def _seen(program: Path) -> list[str]:
    """The file system of the jail: the program and what the dynamic linker loads for it."""
    seen = ["--ro-bind", str(program), _INSIDE]
    for path in _libraries(program):
        seen += ["--ro-bind", path, path]
    return [*seen, "--remount-ro", "/", "--chdir", "/"]


def _libraries(program: Path) -> list[str]:
    """As the linker lists them (`ldd`); where it cannot be asked, the folders in which they usually lie."""
    with suppress(OSError, subprocess.SubprocessError):
        asked = subprocess.run(
            ["ldd", str(program)],
            capture_output=True, text=True, timeout=_TRY_S, check=True,
        )  # fmt: skip
        return sorted(set(_LIBRARY.findall(asked.stdout)))
    return [path for path in ("/lib", "/lib64", "/usr/lib") if Path(path).exists()]
