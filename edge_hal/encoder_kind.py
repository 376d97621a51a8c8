"""Names of frame encoders: `own`, `efficientnet-lite0@160`, `torchvision:resnet18@224`, `timm:NAME`, `onnx:FILE`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_hal.errors import EdgeHalError

OWN, AUTO = "own", "auto"
"""`auto` is chosen by the commands, and is no encoder."""
LITE = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
LIBRARIES = ("torchvision", "timm")
KNOWN = f"one of own, {', '.join(LITE)}, torchvision:NAME, timm:NAME, onnx:FILE"
DEFAULT_PIXELS = 160
SMALLEST_PIXELS, LARGEST_PIXELS = 32, 1024
LARGEST_GRID = 8


@dataclass(frozen=True)
class EncoderKind:
    """Attributes:
    family: `own`, `efficientnet-lite0` .. `2`, `torchvision`, `timm` or `onnx`.
    name: of the model in its library, or the path of the ONNX file; otherwise empty.
    height, width: of the pictures that it reads. 0 for `own` and `onnx`, which take them from elsewhere.
    grid: the last feature map is averaged in grid x grid cells.
    """

    family: str
    name: str = ""
    height: int = 0
    width: int = 0
    grid: int = 1


def parse_kind(text: str) -> EncoderKind:
    """`FAMILY[:NAME][@PIXELS or @HEIGHTxWIDTH][/GRIDxGRID]`, for example `efficientnet-lite0@120x160/2x2`.

    Raises:
        EdgeHalError: it does not read so, or the family is not known. Exit code 2.
    """

    def refused(why: str) -> EdgeHalError:
        return EdgeHalError(f"the encoder '{text}'", why, f"give {KNOWN}", exit_code=2)

    family, _, rest = text.partition(":")
    if family == "onnx":
        if not rest:
            raise refused("the name of the file is missing")
        return EncoderKind("onnx", rest)
    if text == OWN:
        return EncoderKind(OWN)
    match = re.fullmatch(r"([^@/:]+)(?::([^@/]+))?(?:@(\d+)(?:x(\d+))?)?(?:/(\d+)x(\d+))?", text)
    if match is None:
        raise refused(
            "it must read NAME, NAME@PIXELS or NAME@HEIGHTxWIDTH, and may end in /2x2 (cells of the last map)"
        )
    family, name, height, width, rows, columns = match.groups()
    if family not in (*LITE, *LIBRARIES):
        raise refused("there is no such kind")
    if (family in LIBRARIES) != bool(name):
        raise refused("the name of the model is missing" if family in LIBRARIES else f"'{name}' means nothing here")
    tall = int(height or DEFAULT_PIXELS)
    wide = int(width or tall)
    if not all(SMALLEST_PIXELS <= side <= LARGEST_PIXELS for side in (tall, wide)):
        raise refused(f"pictures have {SMALLEST_PIXELS} to {LARGEST_PIXELS} pixels a side")
    grid = int(rows or 1)
    if rows != columns or not 1 <= grid <= LARGEST_GRID:
        raise refused(f"the cells of the last map are 1x1 to {LARGEST_GRID}x{LARGEST_GRID}")
    return EncoderKind(family, name or "", tall, wide, grid)
