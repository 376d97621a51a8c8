"""Extraction: the cache holds what a model sees of a video, whole or not at all, and of this video only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_hal.errors import EdgeHalError
from edge_hal.learning.data import extraction
from edge_hal.learning.data.augmentation import Augmentation
from edge_hal.learning.data.extraction import Sampling, extract
from edge_hal.learning.data.media_files import read_times
from edge_hal.learning.data.video_cache import SUFFIX, VideoCache, cache_of, content_hash
from edge_hal.learning.data.video_set import Video
from edge_hal.pictures.encoding import encode_pictures
from edge_hal.pictures.moving import MovingParts
from tests.helpers.bundles import known_bundle
from tests.helpers.processes import REPOSITORY
from tests.helpers.videos import number_of, write_video

SEEN = Sampling(10.0, 48, 64)


def video(path: Path) -> Video:
    times = read_times(path, None)
    return Video(path.stem, path, "video", (), times.length, times.rate_hz)


@pytest.fixture
def films(tmp_path: Path) -> list[Video]:
    (tmp_path / "videos").mkdir()
    return [
        video(write_video(tmp_path / "videos" / f"{name}.mkv", [100 * i for i in range(count)]))
        for name, count in (("a", 40), ("b", 60), ("c", 25))
    ]


def files(cache: VideoCache) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.folder.iterdir() if path.is_file()}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(20, 300), min_size=5, max_size=40), st.sampled_from([4.0, 7.5, 10.0, 30.0]))
def test_each_tick_shows_the_newest_frame_that_is_not_later(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], model_hz: float
) -> None:
    stamps = [0, *np.cumsum(steps).tolist()]
    film = video(write_video(tmp_path_factory.mktemp("film") / "v.mkv", stamps, rate=10))
    (found,) = extract([film], Sampling(model_hz, 48, 64), None)
    shown = [number_of(picture) for picture in found.values]
    for tick, index in enumerate(shown):
        assert stamps[index] <= 1000 * tick / model_hz + 1
        assert index + 1 == len(stamps) or stamps[index + 1] >= 1000 * tick / model_hz - 1
    assert 1000 * (len(shown) - 1) / model_hz <= stamps[-1] + 1 < 1000 * len(shown) / model_hz + 2


def test_what_is_in_the_cache_is_not_read_again(
    films: list[Video], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = VideoCache(tmp_path)
    first = extract(films, SEEN, cache, workers=2)
    monkeypatch.setattr(extraction, "each_picture", None)  # a call would fail
    again = extract(films, SEEN, cache)
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one.values, two.values) and one.missing == two.missing
        assert isinstance(two.values.base, np.memmap)


def test_vectors_are_those_of_the_pictures(films: list[Video], tmp_path: Path, picture_bundle: Path) -> None:
    graph = picture_bundle / "encoder.fp32.onnx"
    seen = Sampling(10.0, 16, 16, graph)
    direct = extract(films, seen, None)
    cache = VideoCache(tmp_path)
    pictures = extract(films, Sampling(10.0, 16, 16), cache)
    of_kept_pictures = extract(films, seen, cache)
    for one, two, shown in zip(direct, of_kept_pictures, pictures, strict=True):
        assert np.array_equal(one.values, encode_pictures(graph, shown.values))
        assert np.array_equal(one.values, two.values) and one.values.dtype == np.float32


def test_a_copy_is_another_view_of_the_same_ticks(films: list[Video], tmp_path: Path, picture_bundle: Path) -> None:
    """One view for a whole video, another one for each video and each copy, the same from a cache of pictures."""
    graph = picture_bundle / "encoder.fp32.onnx"
    seen = [Sampling(10.0, 16, 16, graph, copy) for copy in (0, 1, 2)]
    found = [extract(films, each, None) for each in seen]
    assert len({one.values.tobytes() for each in found for one in each}) == 9
    assert all(len(a.values) == len(b.values) for each in found[1:] for a, b in zip(found[0], each, strict=True))
    cache = VideoCache(tmp_path)
    pictures = extract(films, Sampling(10.0, 16, 16), cache)
    again = extract(films, seen[1], cache)
    for film, shown, one, two in zip(films, pictures, found[1], again, strict=True):
        view = Augmentation.sample(np.random.default_rng([1, int(content_hash(film.path)[:16], 16)]), 16, 16)
        expected = encode_pictures(graph, np.stack([view.of(picture) for picture in shown.values]))
        assert np.array_equal(one.values, expected) and np.array_equal(two.values, expected)


def test_what_a_training_reads() -> None:
    given, graph = Sampling(10.0, 16, 16, Path("graph")), Path("graph")
    assert given.looks(2) == [Sampling(10.0, 16, 16, graph, copy) for copy in (0, 1, 2)]
    greyed = [Sampling(10.0, 16, 16, graph, copy, moving) for copy, moving in ((0, 16), (0, 0), (1, 16))]
    assert greyed[0].looks(1) == greyed
    assert SEEN.looks(1) == [SEEN]  # our own encoder is trained on the pictures
    mine = Sampling(10.0, 48, 64, moving=80)
    assert mine.looks(1) == [mine, SEEN]  # the first alignments see the bench


@pytest.mark.parametrize("copy", [0, 1])
def test_a_copy_is_greyed_after_it_was_made(
    films: list[Video], tmp_path: Path, picture_bundle: Path, copy: int
) -> None:
    """As a run greys what it sees of another place: also with a cache that holds the pictures, greyed or not."""
    graph, window = picture_bundle / "encoder.fp32.onnx", 16
    shown = extract(films, Sampling(10.0, 16, 16), None)
    made = [extract(films, Sampling(10.0, 16, 16, graph, copy, window), None)]
    for moving in (0, window):
        cache = VideoCache(tmp_path / str(moving))
        cache.folder.mkdir()
        extract(films, Sampling(10.0, 16, 16, moving=moving), cache)
        made.append(extract(films, Sampling(10.0, 16, 16, graph, copy, window), cache))
    for number, (film, pictures) in enumerate(zip(films, shown, strict=True)):
        rng, parts = np.random.default_rng([1, int(content_hash(film.path)[:16], 16)]), MovingParts(16, 16, window)
        view = Augmentation.sample(rng, 16, 16)
        greyed = [parts(view.of(picture) if copy else picture) for picture in pictures.values]
        for each in made:
            assert np.array_equal(each[number].values, encode_pictures(graph, np.stack(greyed)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([(48, 64), (160, 160), (16, 24)]))
def test_a_view_keeps_shape_and_most_of_the_picture(seed: int, size: tuple[int, int]) -> None:
    height, width = size
    view = Augmentation.sample(np.random.default_rng(seed), height, width)
    marks = np.zeros((height, width, 3), np.uint8)
    y, x = height // 4, width // 4
    marks[y:-y, x:-x] = 255
    seen = view.of(marks)
    assert seen.shape == marks.shape and seen.dtype == np.uint8
    lit = float((seen.max(2) > seen.max() / 2).mean())
    assert 0.12 < lit < 0.45  # a quarter of the picture, zoomed by at most an eighth and seen from the side
    centre = seen[height // 2 - 1 : height // 2 + 1, width // 2 - 1 : width // 2 + 1]
    assert centre.max() == seen.max()


def test_another_video_rate_size_or_encoder_is_another_file(films: list[Video], tmp_path: Path) -> None:
    film, path = films[0], films[0].path
    known_bundle(tmp_path / "p", pictures=True)
    graph = tmp_path / "p" / "encoder.fp32.onnx"
    keys = {SEEN.key(film), Sampling(5.0, 48, 64).key(film), Sampling(10.0, 24, 64).key(film)}
    keys |= {Sampling(10.0, 48, 32).key(film), Sampling(10.0, 48, 64, graph).key(film)}
    keys |= {Sampling(10.0, 48, 64, graph, copy).key(film) for copy in (1, 2)}
    keys |= {Sampling(10.0, 48, 64, graph, copy, moving).key(film) for copy in (0, 1) for moving in (8, 16)}
    graph.write_bytes(graph.read_bytes() + b"\x92\x03\x00")
    keys.add(Sampling(10.0, 48, 64, graph).key(film))
    before = path.stat()
    write_video(path, [100 * i for i in range(40)], options={"qscale": "9"})
    keys.add(SEEN.key(film))
    assert len(keys) == 13
    assert before.st_ino == path.stat().st_ino  # the file was written to, not replaced


def test_a_changed_video_is_read_again(films: list[Video], tmp_path: Path) -> None:
    cache = VideoCache(tmp_path)
    extract(films[:1], SEEN, cache)
    shutil.copy(films[1].path, films[0].path)
    (found,) = extract([video(films[0].path)], SEEN, cache)
    assert [number_of(picture) for picture in found.values] == list(range(60))


@pytest.mark.parametrize("damage", ["cut", "header", "longer", "empty"])
def test_a_damaged_file_of_the_cache_is_made_again(films: list[Video], tmp_path: Path, damage: str) -> None:
    cache = VideoCache(tmp_path)
    extract(films[:1], SEEN, cache)
    ((name, whole),) = [(n, b) for n, b in files(cache).items() if n.endswith(SUFFIX)]
    broken = {"cut": whole[:-1], "header": b"{" + whole, "longer": whole + b"0", "empty": b""}[damage]
    (tmp_path / name).write_bytes(broken)
    extract(films[:1], SEEN, cache)
    assert (tmp_path / name).read_bytes() == whole


def test_two_names_of_one_content_are_read_once(films: list[Video], tmp_path: Path) -> None:
    copy = films[0].path.with_name("copy.mkv")
    shutil.copy(films[0].path, copy)
    cache = VideoCache(tmp_path)
    one, two = extract([films[0], video(copy)], SEEN, cache, workers=2)
    assert np.array_equal(one.values, two.values)
    assert len(cache._files()) == 1


def test_an_unreadable_video_leaves_nothing_half_written(films: list[Video], tmp_path: Path) -> None:
    films[2].path.write_bytes(b"no video")
    cache = VideoCache(tmp_path / "cache")
    cache.folder.mkdir()
    with pytest.raises(EdgeHalError, match=r"c\.mkv"):
        extract(films, SEEN, cache, workers=1)
    assert all(name.endswith(SUFFIX) and not name.startswith(".") for name in files(cache))
    films[2].path.unlink()
    with pytest.raises(EdgeHalError, match="cannot read"):
        extract(films, SEEN, cache)


def test_a_full_disk_is_one_error(films: list[Video], tmp_path: Path) -> None:
    """In a process of its own, whose files may not grow beyond a limit."""
    code = (
        "import resource, signal, sys; from pathlib import Path; import tests.learning.data.test_extraction as t\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: t.extract([t.video(Path(sys.argv[1]))], t.SEEN, t.VideoCache(Path(sys.argv[2])))\n"
        "except t.EdgeHalError as error: print(error)\n"
    )
    (tmp_path / "cache").mkdir()
    command = [sys.executable, "-c", code, str(films[0].path), str(tmp_path / "cache")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert "cannot write the cache" in done.stdout and "--clear" in done.stdout, done.stderr
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_interrupted_extraction_continues(films: list[Video], tmp_path: Path) -> None:
    """The command is killed while it reads the second of two videos. The first is not read again."""
    task = tmp_path / "task"
    (task / "videos").mkdir(parents=True)
    (task / "task.yaml").write_text("")
    for film in films[:2]:
        shutil.copy(film.path, task / "videos")
    code = (
        "import os, signal, sys; from edge_hal.learning.data import extraction; from edge_hal import cli\n"
        "real = extraction.each_picture\n"
        "def reads(path, *rest):\n"
        "    if path.stem == 'b' and KILL: os.kill(os.getpid(), KILL)\n"
        "    print('reads', path.stem, flush=True); return real(path, *rest)\n"
        "extraction.each_picture = reads\n"
        "KILL = int(sys.argv.pop(1)); sys.argv[0] = 'edge-hal'; cli.main()\n"
    )

    def run(kill: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, f"{kill:d}", "extract", str(task), "--config", "tiny", "--workers", "1"]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)

    killed = run(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL and killed.stdout == "reads a\n"
    whole = [path for path in (task / ".cache").iterdir() if not path.name.startswith(".")]
    assert len(whole) == 1
    done = run(0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("reads b\n2 videos, 100 ticks")


def test_what_another_version_made_is_not_served(
    films: list[Video], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors also depend on ONNX Runtime, pictures do not."""
    known_bundle(tmp_path / "p", pictures=True)
    graph = Sampling(10.0, 48, 64, tmp_path / "p" / "encoder.fp32.onnx")
    pictures, vectors = SEEN.key(films[0]), graph.key(films[0])
    with monkeypatch.context() as patch:
        patch.setattr("onnxruntime.__version__", "0.1")
        assert SEEN.key(films[0]) == pictures and graph.key(films[0]) != vectors
    monkeypatch.setattr("edge_hal.learning.data.video_cache.__version__", "0.1")
    assert SEEN.key(films[0]) != pictures and graph.key(films[0]) != vectors


def test_the_graph_that_a_killed_extraction_left_for_its_workers_is_deleted(films: list[Video], tmp_path: Path) -> None:
    known_bundle(tmp_path / "p", pictures=True)
    graph = tmp_path / "p" / "encoder.fp32.onnx"
    code = (
        "import os, signal; from pathlib import Path; from edge_hal.learning.data.extraction import *\n"
        f"with remote_extraction(Sampling(10.0, 48, 64, Path({str(graph)!r})), VideoCache(Path({str(tmp_path)!r}))):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    cache = VideoCache(tmp_path)
    for month_old in (False, True):
        done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, timeout=60)
        (left,) = tmp_path.glob(".encoder.*")
        assert done.returncode == -signal.SIGKILL and [path.name for path in left.iterdir()] == [graph.name]
        if month_old:
            os.utime(left, (1, 1))
            cache.sweep()
        else:
            cache.sweep()
            assert left.is_dir()  # workers may still read it
            assert cache.clear() == graph.stat().st_size
        assert not left.exists()


def test_unused_and_abandoned_files_are_swept(films: list[Video], tmp_path: Path) -> None:
    cache = VideoCache(tmp_path)
    extract(films, SEEN, cache)
    kept = [cache._path(SEEN.key(film)) for film in films]
    month_ago = kept[0].stat().st_mtime - 31 * 86_400
    left = tmp_path / f".x.1.partial{SUFFIX}"
    left.write_bytes(b"half")
    for path in (kept[0], kept[1], left):
        os.utime(path, (month_ago, month_ago))
    assert cache.get(SEEN.key(films[1])) is not None  # it is read, so it stays
    cache.sweep()
    assert [path.exists() for path in (*kept, left)] == [False, True, True, False]
    size = sum(path.stat().st_size for path in kept[1:])
    assert cache.bytes == size and cache.clear() == size and cache.bytes == 0


def test_where_the_cache_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "task.yaml").write_text("")
    (tmp_path / "data").mkdir()
    caches = [cache_of(tmp_path / name) for name in ("task", "data")]
    assert [cache and cache.folder for cache in caches] == [
        tmp_path / "task" / ".cache",
        tmp_path / "home" / "edge-hal" / "videos",
    ]
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache_of(tmp_path / "data") is None
    assert "decoded videos are not kept" in caplog.text


def test_a_hash_is_that_of_the_content_as_it_is_now(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    one = content_hash(path)
    assert content_hash(path) == one
    path.write_bytes(b"two")
    assert content_hash(path) != one


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path: Path) -> None:
    """The pictures of the longer video are 276 MB, and peak memory differs by less than a fifth of that."""
    code = (
        "import resource, sys; from pathlib import Path; import tests.learning.data.test_extraction as t\n"
        "t.extract([t.video(Path(sys.argv[1]))], t.Sampling(20.0, 240, 320), t.VideoCache(Path(sys.argv[2])))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peaks_kb = []
    for frames in (20, 600):
        path = write_video(tmp_path / f"{frames}.mkv", [100 * i for i in range(frames)])
        command = [sys.executable, "-c", code, str(path), str(tmp_path)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        peaks_kb.append(int(done.stdout))
    assert sum(path.stat().st_size for path in tmp_path.glob(f"*{SUFFIX}")) > 276e6
    assert peaks_kb[1] - peaks_kb[0] < 50_000, peaks_kb
