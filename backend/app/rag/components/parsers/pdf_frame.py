"""How a PDF page lies in its own coordinates and how it is shown: pages may be rotated by quarter turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pypdfium2_raw as pdfium  # type: ignore[import-untyped]

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Frame:
    """Points throughout; `width` and `height` are those of the page before it is rotated."""

    rotation: int
    width: float
    height: float
    shown_height: float

    def shown(self, left: float, bottom: float, right: float, top: float) -> Box:
        """Left, bottom, right and top of a box on the page as shown."""
        if self.rotation == 0:
            return left, bottom, right, top
        match self.rotation:
            case 1:
                return bottom, self.width - right, top, self.width - left
            case 2:
                return self.width - right, self.height - top, self.width - left, self.height - bottom
        return self.height - top, left, self.height - bottom, right


def frame_of(page: Any) -> Frame:
    rotation = pdfium.FPDFPage_GetRotation(page)
    width, height = pdfium.FPDF_GetPageWidthF(page), pdfium.FPDF_GetPageHeightF(page)
    shown_height = height or 1.0
    # The size is given as shown, boxes are given unrotated.
    if rotation % 2 == 1:
        width, height = height, width
    return Frame(rotation, width, height, shown_height)
