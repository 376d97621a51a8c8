"""Confidences that are calibrated on corrected videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_hal.learning.data.labels.segments import SegmentedVideo, segments_of_labels
from edge_hal.learning.data.video_set import Video, VideoSet
from edge_hal.learning.suggestions import calibrated, least_certain_first

STEPS = ("reach", "grasp", "turn")
RATE_HZ = 10.0


def segmented(name: str, labels: NDArray[np.int64], confidence: float = 0.6) -> SegmentedVideo:
    segments = segments_of_labels(labels, STEPS)
    confidences = (confidence,) * (len(segments) - 1)
    return SegmentedVideo(name, Path(name), "features", len(labels), RATE_HZ, segments, confidences)


def corrected(*pairs: tuple[str, NDArray[np.int64]]) -> VideoSet:
    videos = [Video(name, Path(name), "features", (0, 1, 2), len(y), RATE_HZ, labels=y) for name, y in pairs]
    return VideoSet(STEPS, tuple(videos), RATE_HZ)


def cut(first: int, second: int, length: int = 90) -> NDArray[np.int64]:
    return np.repeat([0, 1, 2], [first, second - first, length - second])


def test_a_boundary_that_is_wrong_in_corrected_videos_is_uncertain_in_the_others() -> None:
    found = [segmented(f"v{n}", cut(30, 60)) for n in range(8)]
    # The first boundary is right to 0.5 s, the second one is not.
    known = corrected(*((f"v{n}", cut(34, 66)) for n in range(4)))
    anew, calibration = calibrated(found, known, within_s=0.5)
    assert (calibration.videos, calibration.boundaries, calibration.right) == (4, 8, 4)
    first, second = anew[7].confidences
    assert first > 0.8 > 0.25 > second
    assert [each.step_from for each in least_certain_first(anew, 0.5)] == ["grasp"] * 8 + ["reach"] * 8
    assert calibrated(found, known, within_s=0.6)[1].right == 8


def test_without_evidence_confidences_stay() -> None:
    found = [segmented(f"v{n}", cut(30, 60)) for n in range(3)]
    assert calibrated(found, corrected())[0] == found
    trained_with = [replace(found[0], labelled=True), *found[1:]]
    anew, calibration = calibrated(trained_with, corrected(("v0", cut(30, 60))))
    assert (anew, calibration.boundaries) == (trained_with, 0), "the alignment took these labels over"
    other_list = corrected(("v0", np.repeat([1, 0, 2], 30)))
    assert calibrated(found, other_list)[1].boundaries == 0


def test_labels_of_a_part_tell_the_boundaries_within_it() -> None:
    found = [segmented("v0", cut(30, 60)), segmented("v1", cut(30, 60))]
    part = cut(52, 61)
    part[:55] = -1
    part[70:] = -1
    anew, calibration = calibrated(found, corrected(("v0", part)))
    assert (calibration.boundaries, calibration.right) == (1, 1)
    assert anew[1].confidences[1] == pytest.approx((1 + 2 * 2 / 3) / 3)
