"""Points of the platform's code at which a test stops its processes, one file per point.

Every failpoint is set to `pause` at a file here; a process stops there only once that file exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.core.failpoints import POINTS
from tests.trust.serving import eventually


@dataclass(frozen=True, slots=True)
class Gates:
    folder: Path

    def setting(self, *more: str) -> str:
        """`ORRERY_FAILPOINTS` with a gate at every point, and `more`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return ";".join([*(f"{point}=pause:{self.folder / point}" for point in POINTS), *more])

    def shut(self, *points: str) -> None:
        """The next process that comes to each of these points stops there."""
        for point in points:
            (self.folder / point).touch()

    def held(self) -> Iterator[tuple[str, int]]:
        """Points at which a process stands now, with its id."""
        for file in self.folder.glob("*.held"):
            try:
                yield file.stem, int(file.read_text())
            except (FileNotFoundError, ValueError):  # gone meanwhile, or not written yet
                continue

    def caught(self, point: str, *, within_s: float = 60) -> int:
        """Waits until a process stands at `point`; its id."""
        return int(eventually(lambda: dict(self.held()).get(point), within_s=within_s, every_s=0.01))

    def open(self, *points: str) -> None:
        """Lets go whoever stands there, and stops nobody any more."""
        for point in points:
            (self.folder / point).unlink(missing_ok=True)
            (self.folder / f"{point}.held").unlink(missing_ok=True)

    def open_all(self) -> None:
        for file in self.folder.iterdir():
            file.unlink(missing_ok=True)
