"""Names of frame encoders."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_hal.config import load_config
from edge_hal.encoder_kind import LITE, EncoderKind, parse_kind
from edge_hal.errors import EdgeHalError


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("own", EncoderKind("own")),
        ("efficientnet-lite0", EncoderKind("efficientnet-lite0", "", 160, 160)),
        ("efficientnet-lite1@224", EncoderKind("efficientnet-lite1", "", 224, 224)),
        ("efficientnet-lite2@120x160/2x2", EncoderKind("efficientnet-lite2", "", 120, 160, 2)),
        ("timm:mobilenetv3_small_100.lamb_in1k@96", EncoderKind("timm", "mobilenetv3_small_100.lamb_in1k", 96, 96)),
        ("torchvision:resnet18/3x3", EncoderKind("torchvision", "resnet18", 160, 160, 3)),
        ("onnx:folder@2/my:net.onnx", EncoderKind("onnx", "folder@2/my:net.onnx")),
    ],
)
def test_a_name_is_read(text: str, kind: EncoderKind) -> None:
    assert parse_kind(text) == kind


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "NAME@PIXELS"),
        ("owl", "no such kind"),
        ("own@160", "no such kind"),
        ("onnx:", "name of the file is missing"),
        ("timm", "name of the model is missing"),
        ("efficientnet-lite0:x", "means nothing"),
        ("efficientnet-lite3", "no such kind"),
        ("efficientnet-lite0@8", "32 to 1024 pixels"),
        ("efficientnet-lite0@160x9999", "32 to 1024 pixels"),
        ("efficientnet-lite0/2x3", "1x1 to 8x8"),
        ("efficientnet-lite0/0x0", "1x1 to 8x8"),
        ("efficientnet-lite0@160/2", "NAME@PIXELS"),
    ],
)
def test_another_name_is_refused_with_the_reason(text: str, told: str) -> None:
    with pytest.raises(EdgeHalError, match=told) as refused:
        load_config("tiny", [f"model.encoder.kind='{text}'"])
    assert refused.value.exit_code == 2 and "efficientnet-lite0" in refused.value.todo


@given(st.sampled_from(LITE), st.integers(32, 1024), st.integers(32, 1024), st.integers(1, 8))
def test_a_name_is_its_numbers(family: str, height: int, width: int, grid: int) -> None:
    found = parse_kind(f"{family}@{height}x{width}/{grid}x{grid}")
    assert found == EncoderKind(family, "", height, width, grid)


@given(st.text(max_size=40))
def test_any_text_is_a_kind_or_one_error(text: str) -> None:
    try:
        assert parse_kind(text).family in ("own", *LITE, "torchvision", "timm", "onnx")
    except EdgeHalError as error:
        assert error.exit_code == 2
