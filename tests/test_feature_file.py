"""Feature files: one rule for training, export and the runtime, and what an offset leaves of a deviation."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_hal.errors import EdgeHalError
from edge_hal.export.bundle import read_reference
from edge_hal.files.feature_file import as_float32, coarse_note, coarse_note_of, open_features, spread_of
from edge_hal.learning.data.media_files import open_array
from edge_hal.learning.data.video_set import Video
from edge_hal.runtime.sources.file_readers import FeatureReader
from tests.helpers.small_models import small_spec

SIZE = 3
TYPES = ["f2", "f4", "f8", ">f4", ">i2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]

Reader = Callable[[Path], object]
READERS: dict[str, Reader] = {
    "open_features": open_features,
    "training": open_array,
    "export --reference": lambda path: read_reference(path, small_spec(size=SIZE)),
    "run": lambda path: FeatureReader(path, Fraction(10), SIZE),
}


def write_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, x=np.zeros((5, SIZE)))


def cut_off(path: Path) -> None:
    np.save(path, np.zeros((50, SIZE)))
    path.write_bytes(path.read_bytes()[:-9])


def unreadable_header(path: Path) -> None:
    np.save(path, np.zeros((50, SIZE)))
    path.write_bytes(path.read_bytes().replace(b"'shape'", b"{[(\x00\xff'"))


BAD: dict[str, Callable[[Path], object]] = {
    "pickle": lambda path: path.write_bytes(pickle.dumps(np.zeros((5, SIZE)))),
    "an archive": write_npz,
    "objects": lambda path: np.save(path, np.array([[1, "a", None]] * 5, object), allow_pickle=True),
    "structured": lambda path: np.save(path, np.zeros((5, SIZE), [("x", "f4"), ("y", "f4")])),
    "one axis": lambda path: np.save(path, np.zeros(SIZE)),
    "three axes": lambda path: np.save(path, np.zeros((5, SIZE, 1))),
    "no axis": lambda path: np.save(path, np.float32(1)),
    "no rows": lambda path: np.save(path, np.zeros((0, SIZE))),
    "truth values": lambda path: np.save(path, np.zeros((5, SIZE), bool)),
    "complex": lambda path: np.save(path, np.zeros((5, SIZE), complex)),
    "text values": lambda path: np.save(path, np.full((5, SIZE), "a")),
    "dates": lambda path: np.save(path, np.zeros((5, SIZE), "M8[ns]")),
    "long double": lambda path: np.save(path, np.zeros((5, SIZE), np.longdouble)),
    "text": lambda path: path.write_text("1 2 3\n" * 5),
    "empty": lambda path: path.write_bytes(b""),
    "cut off": cut_off,
    "a damaged header": unreadable_header,
    "a folder": lambda path: path.mkdir(),
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("write", BAD.values(), ids=BAD)
def test_what_is_no_array_of_numbers_is_one_error_that_names_the_file(
    write: Callable[[Path], object], read: Reader, tmp_path: Path
) -> None:
    path = tmp_path / "f.npy"
    write(path)
    with pytest.raises(EdgeHalError, match=r"f\.npy") as caught:
        read(path)
    assert caught.value.why


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_every_type_gives_the_same_vectors_in_training_and_at_run_time(
    dtype: str, transposed: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(TYPES.index(dtype))
    rows = rng.integers(0, 100, (40, SIZE)).astype(dtype)
    path = tmp_path / "f.npy"
    np.save(path, rows.T if transposed else rows)
    video = Video("f", path, "features", (0,), len(rows), layout="DT" if transposed else "TD")
    reader = FeatureReader(path, Fraction(10), SIZE)
    read: list[Any] = [reader.read() for _ in rows]
    at_run_time = np.stack([vector for _, vector in read])
    expected = rows.astype(np.float64)
    for found in (video.read(), at_run_time, read_reference(path, small_spec(size=SIZE))):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def test_a_number_beyond_float32_is_refused_and_not_made_infinite(tmp_path: Path) -> None:
    path, rows = tmp_path / "f.npy", np.ones((5, SIZE))
    rows[3, 1] = 1e300
    np.save(path, rows)
    with pytest.raises(EdgeHalError, match="feature 1 of frame 3"):
        Video("f", path, "features", (0,), 5).read()
    with pytest.raises(EdgeHalError, match="not finite"):
        read_reference(path, small_spec(size=SIZE))
    assert np.isposinf(as_float32(rows)[3, 1])


@given(exponent=st.floats(-30, 28), offset=st.floats(-3, 3), seed=st.integers(0, 2**32 - 1))
def test_mean_and_deviation_at_any_scale(exponent: float, offset: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [((offset + rng.normal(size=(n, 4))) * 10.0**exponent).astype(np.float32) for n in (7, 90, 31)]
    whole = np.concatenate(parts).astype(np.longdouble)
    found = spread_of(parts)
    np.testing.assert_allclose(found.mean, whole.mean(0).astype(np.float64), rtol=1e-9, atol=1e-12 * 10.0**exponent)
    np.testing.assert_allclose(found.deviation, whole.std(0).astype(np.float64), rtol=1e-9)


@given(
    bits=st.floats(2, 20).filter(lambda bits: abs(bits - 10) > 0.6),
    offset=st.floats(1, 1e12),
    seed=st.integers(0, 2**32 - 1),
)
def test_an_offset_that_costs_digits_is_told(bits: float, offset: float, seed: int) -> None:
    """A deviation of 2**bits steps of float32 at the offset, from numbers that float64 holds."""
    step = float(np.spacing(np.float32(offset)))
    x = np.random.default_rng(seed).normal(size=(4000, 2)) * [2**bits * step, offset]
    x[:, 0] += offset - x[:, 0].mean()
    note = coarse_note(spread_of([x]), x.dtype)
    assert (note is not None and "1 of 2 features (column 0)" in note) == (bits < 10)


def test_the_offset_is_judged_by_the_stored_type() -> None:
    small = np.random.default_rng(0).normal(size=(3000, 1))

    def told(x: np.ndarray) -> bool:
        return coarse_note_of(x) is not None

    assert told((1e6 + 0.01 * small).astype(np.float32))
    assert told(1e6 + 1e-3 * small), "float32 holds none of it"
    assert told((100 + small).astype(np.float16)) and not told((100 + small).astype(np.float32))
    assert not told((0.5 * small).astype(np.float16))
    assert not told((30 * small).astype(np.int8)), "whole numbers are exact"
    assert not told((10**6 + 5 * small).astype(np.int32)), "float32 holds these"
    assert told((10**9 + 5 * small).astype(np.int32)), "float32 does not hold these"
    assert not told(np.full((100, 1), 1e6, np.float32)), "a constant has no deviation to lose"
    damaged = (1e6 + 0.01 * small).astype(np.float32)
    damaged[::7] = np.nan
    assert told(damaged)


def test_a_run_tells_of_an_offset_before_its_first_frame(tmp_path: Path) -> None:
    x = 1e6 + 0.01 * np.random.default_rng(0).normal(size=(200, SIZE))
    for scale, expected in ((1, 1), (1e-6, 1), (0, 0)):
        np.save(tmp_path / "f.npy", ((x - 1e6) if scale == 0 else scale * x).astype(np.float32))
        assert len(FeatureReader(tmp_path / "f.npy", Fraction(10), SIZE).notes) == expected
