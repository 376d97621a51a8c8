"""Faces are blurred where OpenCV brings a detector along, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_hal.media.blur_faces import CASCADE, FaceBlur

if not hasattr(cv2, "CascadeClassifier") or not (Path(cv2.data.haarcascades) / CASCADE).is_file():
    pytest.skip(f"OpenCV {cv2.__version__} has no detector of faces", allow_module_level=True)


@pytest.mark.parametrize("height", [600, 1080])
def test_a_face_is_blurred_and_the_rest_stays(height: int) -> None:
    data = pytest.importorskip("skimage.data", reason="scikit-image has the picture of a face")
    picture = np.full((height, 1200, 3), 200, np.uint8)
    picture[40:552, 300:812] = data.astronaut()[:, :, ::-1]
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    blur = FaceBlur()
    blurred = cv2.imdecode(np.frombuffer(blur.jpeg(jpeg), np.uint8), cv2.IMREAD_COLOR)
    assert blur.found >= 1
    changed = np.abs(blurred.astype(int) - picture).max(axis=2) > 60
    face = slice(40 + 80, 40 + 190), slice(300 + 160, 300 + 290)
    assert changed[face].mean() > 0.1
    assert changed[:, :300].mean() == 0 and changed[40 + 300 :, :].mean() < 0.01


def test_a_picture_without_a_face_keeps_its_bytes_and_a_damaged_one_is_an_error() -> None:
    jpeg = cv2.imencode(".jpg", np.full((90, 120, 3), 80, np.uint8))[1].tobytes()
    blur = FaceBlur()
    assert blur.jpeg(jpeg) == jpeg and blur.found == 0
    with pytest.raises(ValueError, match="damaged"):
        blur.jpeg(b"\xff\xd8 nothing")
