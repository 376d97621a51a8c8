"""The workers of a real dask scheduler: the result of one process, also where a worker is killed, and clear errors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from edge_hal.errors import EdgeHalError
from edge_hal.learning.data.extraction import Sampling, extract
from edge_hal.learning.data.media_files import read_times
from edge_hal.learning.data.video_cache import VideoCache
from edge_hal.learning.data.video_set import Video
from edge_hal.learning.hmm.align import HmmAlignment, align_with_hmm
from edge_hal.learning.hmm.em import HmmConfig
from edge_hal.learning.hmm.transcript_chain import Counts
from edge_hal.parallel import Workers, mapped
from edge_hal.parallel.cluster import Cluster
from tests.helpers.dask_cluster import Killing, scheduler, workers
from tests.helpers.hmm_videos import make_videos
from tests.helpers.processes import REPOSITORY, call, finish, start
from tests.helpers.short_training import BRIEF, assert_same_run
from tests.helpers.small_data import CONFIG, write_small_data
from tests.helpers.videos import write_video

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with scheduler(tmp_path_factory.mktemp("scheduler")) as (found, _):
        yield found


def aligned(given: Workers) -> HmmAlignment:
    features, transcripts, _ = make_videos(7, videos=6)
    config = HmmConfig(iterations=5, population=4, generations=2, agreement=1.1)
    return align_with_hmm(features, transcripts, 5, seed=3, restarts=12, config=config, workers=given)


def assert_same(one: HmmAlignment, two: HmmAlignment) -> None:
    assert one.evidence == two.evidence
    for a, b in zip(one.best, two.best, strict=True):
        for field in fields(Counts):
            np.testing.assert_array_equal(getattr(a.counts, field.name), getattr(b.counts, field.name))
    for labels, others in zip(one.labels, two.labels, strict=True):
        np.testing.assert_array_equal(labels, others)


def test_the_alignment_is_that_of_one_process_also_where_a_worker_is_killed(address: str) -> None:
    with workers(address, 2) as (victim, survivor), Cluster(address) as cluster:
        assert_same(aligned(Killing(cluster, victim, at=9)), aligned(1))
        victim.wait()
        assert survivor.poll() is None


def test_the_extraction_is_that_of_one_process_also_where_a_worker_is_killed(
    address: str, tmp_path: Path, picture_bundle: Path
) -> None:
    videos = []
    for number in range(6):
        path = write_video(tmp_path / f"{number}.mkv", [100 * i for i in range(30 + number)])
        times = read_times(path, None)
        videos.append(Video(path.stem, path, "video", (), times.length, times.rate_hz))
    graph = picture_bundle / "encoder.fp32.onnx"
    for sampling in (Sampling(10.0, 16, 16), Sampling(10.0, 16, 16, graph), Sampling(10.0, 16, 16, graph, copy=1)):
        here, there = (VideoCache(tmp_path / name) for name in ("here", "there"))
        here.folder.mkdir(exist_ok=True)
        there.folder.mkdir(exist_ok=True)
        told: list[tuple[int, ...]] = []
        expected = extract(videos, sampling, here, workers=1)
        with workers(address, 2) as (victim, _), Cluster(address) as cluster:
            killing = Killing(cluster, victim, at=4)
            found = extract(videos, sampling, there, lambda *n, told=told: told.append(n), workers=killing)
        for one, two in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one.values, two.values)
            assert one.missing == two.missing
        assert {p.name for p in here.folder.iterdir()} == {p.name for p in there.folder.iterdir()}
        assert told[-1][0] == told[-1][1] and told == sorted(told)


def test_a_training_with_a_scheduler_is_the_same_training(address: str, tmp_path: Path) -> None:
    data = write_small_data(tmp_path / "data")
    settings = [word for each in BRIEF for word in ("--set", each)]
    command = ["train", str(data), "--config", str(CONFIG), *settings]
    with workers(address, 2):
        others = start(*command, "--out", str(tmp_path / "there"), "--workers", address)
        here = call(*command, "--out", str(tmp_path / "here"), "--workers", "1")
        there = finish(others)
    assert (here[0], there[0]) == (0, 0), there
    assert_same_run(tmp_path / "here", tmp_path / "there")


def square(x: int) -> int:
    return x * x


def test_a_worker_that_cannot_do_the_work_is_one_error(address: str, tmp_path: Path) -> None:
    other = shutil.copytree(REPOSITORY / "edge_hal", tmp_path / "other" / "edge_hal")
    init = other / "__init__.py"
    init.write_text(init.read_text() + "\n__version__ = '0.0.1'\n")
    with workers(address, 1, code=other.parent), pytest.raises(EdgeHalError, match=r"edge-hal 0\.0\.1 instead of"):
        Cluster(address)
    empty = tmp_path / "older" / "edge_hal"
    empty.mkdir(parents=True)
    (empty / "__init__.py").write_text("__version__ = '0.1.0'\n")
    with workers(address, 1, code=empty.parent), pytest.raises(EdgeHalError, match="a worker cannot do this work"):
        Cluster(address)


def test_a_scheduler_that_cannot_be_used_is_one_error(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EdgeHalError, match="cannot reach the scheduler"):
        Cluster("tcp://127.0.0.1:1")
    monkeypatch.setattr("edge_hal.parallel.cluster.START_S", 0.5)
    with pytest.raises(EdgeHalError, match="has no workers"):
        Cluster(address)


def test_work_whose_workers_all_went_ends_with_one_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_hal.parallel.cluster.ABSENT_S", 3.0)
    with (
        workers(address, 1) as (victim,),
        Cluster(address) as cluster,
        pytest.raises(EdgeHalError, match=r"the workers were lost: .*were away"),
    ):
        list(mapped(os.path.exists, [str(n) for n in range(100)], Killing(cluster, victim, at=50)))


def test_work_whose_scheduler_went_ends_with_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_hal.parallel.cluster.ABSENT_S", 3.0)
    with (
        scheduler(tmp_path) as (own, process),
        workers(own, 1),
        Cluster(own) as cluster,
        pytest.raises(EdgeHalError, match="the workers were lost"),
    ):
        list(mapped(square, range(200), Killing(cluster, process, at=100)))
