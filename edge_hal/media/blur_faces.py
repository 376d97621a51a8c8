"""Blur the faces of pictures, with the detector that OpenCV brings along, if it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge_hal.errors import EdgeHalError

CASCADE = "haarcascade_frontalface_default.xml"
MARGIN = 0.15
"""Share of the size of a face that is blurred around it."""
SMALLEST = 0.03
"""Faces smaller than this share of the picture's height are not looked for."""
FACE_PX = 24
"""Size of the faces that the detector was trained on."""
CELLS = 6
"""Cells of a blurred face in each direction."""
QUALITY = 90


class FaceBlur:
    """Blurs faces that are seen from the front. It misses faces that are turned, small, covered or dark, so its result
    is not anonymous. `found` counts the faces.

    Raises:
        EdgeHalError: this OpenCV has no detector. Version 5 has none.
    """

    def __init__(self) -> None:
        import cv2

        self.found = 0
        self._cv2: Any = cv2
        file = Path(getattr(getattr(cv2, "data", None), "haarcascades", "")) / CASCADE
        if not hasattr(cv2, "CascadeClassifier") or not file.is_file():
            raise EdgeHalError(
                "--blur-faces has no detector of faces",
                f"OpenCV {cv2.__version__} brings none along",
                "pip install 'opencv-python-headless<5', or blur the videos with another tool and leave it out",
                exit_code=2,
            )
        self._detector: Any = cv2.CascadeClassifier(str(file))

    def jpeg(self, data: bytes) -> bytes:
        """A JPEG with its faces blurred; the same bytes if it shows none. Raises ValueError if it is damaged."""
        cv2 = self._cv2
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise ValueError("a picture is damaged")
        scale = min(1.0, FACE_PX / (SMALLEST * picture.shape[0]))  # the smallest face has as many pixels as it needs
        grey = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), None, fx=scale, fy=scale)
        faces = self._detector.detectMultiScale(grey, 1.1, 4, minSize=(FACE_PX, FACE_PX))
        if not len(faces):
            return data
        self.found += len(faces)
        for x, y, width, height in (np.asarray(faces) / scale).round().astype(int).tolist():
            dx, dy = round(MARGIN * width), round(MARGIN * height)
            area = picture[max(0, y - dy) : y + height + dy, max(0, x - dx) : x + width + dx]
            cells = cv2.resize(area, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
            area[:] = cv2.resize(cells, area.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        _, blurred = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
        return np.asarray(blurred).tobytes()
