"""The server of `edge-hal correct`: what it answers, and what it withstands. No browser is needed."""

from __future__ import annotations

import csv
import http.client
import itertools
import json
import shutil
import socket as net
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="needs the extra web")
pytest.importorskip("wsproto", reason="needs the extra web")
pytest.importorskip("av", reason="needs PyAV")

from edge_hal.commands.progress import Stages
from edge_hal.errors import EdgeHalError
from edge_hal.web.correct.app import refused as refused_answer
from tests.helpers.correction_task import LENGTH, STEPS, write_task
from tests.helpers.films import RED, write_film
from tests.helpers.processes import call, called_here, contents
from tests.helpers.viewer import Corrector

NEW = [["open", 0], ["fill", 41], ["close", 77]]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("task") / "my-task", ("one", "two", "three"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, task: Path) -> Iterator[Corrector]:
    with Corrector(tmp_path_factory.mktemp("state"), task) as server:
        yield server


def test_the_task_and_its_frames_are_shown_with_the_token_alone(server: Corrector) -> None:
    status, headers, body = server.get("/")
    assert status == 200 and b"<title>edge-hal correct</title>" in body
    assert "unsafe" not in headers["content-security-policy"]
    for path in ("/data/task", "/data/video?name=one", "/data/frame?name=one&at=0"):
        assert server.get(path)[0] == server.get(path, "0" * 64)[0] == 401
    assert server.post("/data/video", {}, "0" * 64)[0] == server.post("/data/training", {}, "0" * 64)[0] == 401
    assert server.get("/data/task", server.token, host="evil.example")[0] == 421
    found = json.loads(server.get("/data/task", server.token)[2])
    assert found["task"] == "my-task" and found["steps"] == list(STEPS) and found["order"] == ["open", "fill", "close"]
    assert [row["name"] for row in found["videos"]] == ["one", "three", "two"]
    for at, channel in ((0, 0), (34, 0), (35, 1), (69, 1), (70, 2), (LENGTH - 1, 2), (3, 0)):
        status, headers, data = server.get(f"/data/frame?name=one&at={at}", server.token)
        assert status == 200 and headers["content-type"] == "image/jpeg"
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None and int(picture.mean(axis=(0, 1)).argmax()) == channel, at
    for query in ("name=one&at=100", "name=one&at=-1", "name=one&at=x", "name=one", "name=four&at=0", "at=0"):
        assert server.get(f"/data/frame?{query}", server.token)[0] == 404


@pytest.mark.parametrize("name", ["../task.yaml", "..%2f..%2fetc%2fpasswd", "/etc/passwd", "one/../two", ""])
def test_a_name_that_leads_outside_is_no_video(server: Corrector, task: Path, name: str) -> None:
    before = sorted(task.rglob("*"))
    assert server.get(f"/data/video?name={name}", server.token)[0] == 404
    assert server.get(f"/data/frame?name={name}&at=0", server.token)[0] == 404
    assert server.change(name, "", "save", segments=NEW)[0] == 404
    assert sorted(task.rglob("*")) == before
    assert server.get(f"/{name or '..'}", server.token)[0] in (404, 200)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 1000,
        {"name": "one"},
        {"name": "one", "revision": "x", "do": "explode"},
        {"name": "one", "revision": "x", "do": "save"},
        {"name": "one", "revision": "x", "do": "save", "segments": [["open", 0.0]]},
        {"name": "one", "revision": "x", "do": "save", "segments": [["open", True]]},
        {"name": "one", "revision": "x", "do": "save", "segments": "open"},
        {"name": "one", "revision": "x", "do": "stamp", "step": "open"},
        {"name": "one", "revision": "x", "do": "stamp", "frame": True, "step": "open"},
        {"name": "one", "revision": "x", "do": "remove_stamp", "frame": "1"},
        b'{"name": "one", "revision": "x", "do": "save", "segments": [' + b" " * 1_100_000 + b"]}",
    ],
)
def test_what_is_no_change_is_refused(server: Corrector, task: Path, body: bytes) -> None:
    before = contents(task / "drafts")  # tests that ran before on this server may have left some
    status, answer = server.post("/data/video", body)
    assert status == 400 and "this is no change of a video" in answer["error"]
    assert contents(task / "drafts") == before


def test_the_slower_of_two_pages_is_told_and_gets_what_is_there(server: Corrector, task: Path) -> None:
    page = server.open()
    assert page.until(type="hello") and page.until(type="work")["training"] is None
    seen = server.video("two")
    status, first = server.change("two", seen["revision"], "save", segments=NEW)
    assert status == 200 and first["state"] == "draft"
    assert page.until(type="video", name="two")["revision"] == first["revision"]
    status, refused = server.change("two", seen["revision"], "save", segments=[["fill", 0]])
    assert status == 409 and refused["video"] == first
    status, accepted = server.change("two", first["revision"], "accept")
    assert status == 200 and accepted["state"] == "accepted"
    assert page.until(type="video", name="two", state="accepted")
    assert [path.name for path in (task / "labels").iterdir()] == ["two.csv"]
    status, back = server.change("two", accepted["revision"], "withdraw")
    assert status == 200 and back["state"] == "draft"
    guess = server.change("two", back["revision"], "discard")[1]
    assert guess["state"] == "guess"  # no run is complete
    status, stamped = server.change("two", guess["revision"], "stamp", frame=12, step="open")
    assert status == 200 and stamped["parts"] == [[12, 13, "open"]]
    row = page.until(type="video", name="two", revision=stamped["revision"])
    assert (row["labelled"], row["segments"]) == (1, 3)
    status, back = server.change("two", stamped["revision"], "remove_stamp", frame=12)
    assert status == 200 and back["parts"] == [] and list((task / "labels").iterdir()) == []
    page.close()


def test_a_page_that_sends_is_dropped_and_many_frames_at_a_time_are_bounded(server: Corrector) -> None:
    flood = server.open()
    try:
        for _ in range(200):
            flood.send(b"x" * 4000)
    except OSError:
        pass  # the connection has ended
    while flood.receive() is not None:
        pass
    codes = list[int]()

    def ask(number: int) -> None:
        codes.append(server.get(f"/data/frame?name=three&at={number}", server.token)[0])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(90)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(codes) == 90 and set(codes) <= {200, 503} and codes.count(200) >= 32
    assert server.get("/data/frame?name=three&at=1", server.token)[0] == 200


def test_what_the_page_sends_is_cut_in_the_answer_and_one_that_leaves_meanwhile_is_no_fault(task: Path) -> None:
    with Corrector(task.parent, task) as server:
        answer = server.post("/data/video", {"name": "one", "revision": "x", "do": "a" * 100_000})
        assert answer[0] == 400 and len(answer[1]["error"]) == 400
        with net.create_connection(("127.0.0.1", server.port)) as page:
            head = f"POST /data/video HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token}\r\n"
            page.sendall(f"{head}Expect: 100-continue\r\nContent-Length: 9\r\n\r\n".encode())
            assert page.recv(4096).startswith(b"HTTP/1.1 100")  # it waits for the rest
        assert server.get("/data/task", server.token)[0] == 200
        assert server.stop() == 0
        assert server.process.stderr is not None and server.process.stderr.read() == ""


def test_pictures_of_a_video_that_was_replaced_are_not_those_of_the_old_one(tmp_path: Path) -> None:
    root = write_task(tmp_path / "task", ("one",))
    with Corrector(tmp_path, root) as server:
        assert server.get("/data/frame?name=one&at=3", server.token)[0] == 200
        (root / "videos" / "one.avi").unlink()
        write_film(root / "videos" / "one.avi", [(RED, LENGTH)])
        for at in (3, 4):
            status, _, body = server.get(f"/data/frame?name=one&at={at}", server.token)
            assert status == 409 and "start edge-hal correct again" in json.loads(body)["error"]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["nothing"], "is no task folder"),
        (["task", "--format", "xml"], "--format"),
        (["task", "--host", "0.0.0.0"], "--tls-cert"),
        (["vectors"], "the frame rate of the features"),
        (["broken"], "overlaps another segment"),
    ],
)
def test_what_cannot_be_used_is_said(
    tmp_path: Path,
    task: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    wanted: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task").symlink_to(task)
    shutil.copytree(task, "broken", ignore=shutil.ignore_patterns("drafts", "labels"))
    (tmp_path / "broken" / "labels").mkdir()
    (tmp_path / "broken" / "labels" / "one.csv").write_text("begin_s,end_s,step\n0,2,open\n1,3,fill\n")
    for folder in ("features", "transcripts"):
        (tmp_path / "vectors" / folder).mkdir(parents=True)
    for name, length in (("a", 40), ("b", 50)):
        np.save(tmp_path / "vectors" / "features" / f"{name}.npy", np.zeros((6, length), np.float32))
        (tmp_path / "vectors" / "transcripts" / f"{name}.txt").write_text("open\nfill\n")
    (tmp_path / "vectors" / "task.yaml").write_text("settings:\n  data.rate_hz: null\n")
    code, out, err = called_here(
        monkeypatch, capsys, "correct", "--no-browser", "--port", "0", "--token-file", "token", *arguments
    )
    assert code in (1, 2) and out == "" and "error: " in err and wanted in err and "Traceback" not in err


def test_the_server_imports_no_torch() -> None:
    """What needs it runs in child processes, so the server stays small beside a training."""
    code = "import sys, edge_hal.web.correct.server; sys.exit('torch' in sys.modules)"
    assert call(code=code)[0] == 0


def test_progress_is_json_for_a_program_that_starts_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_HAL_PROGRESS", "json")
    with Stages() as report:
        for done in range(1, 1001):
            report("search", done, 1000, "" if done < 1000 else "found")
    rows = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert rows[0] == {"stage": "search", "done": 1, "total": 1000, "remark": ""}
    assert rows[-1] == {"stage": "search", "done": 1000, "total": 1000, "remark": "found"}
    assert len(rows) < 100  # some a second


def test_a_video_that_has_suggestions_alone_is_shown_and_can_be_accepted(tmp_path: Path, task: Path) -> None:
    root = Path(shutil.copytree(task, tmp_path / "task", ignore=shutil.ignore_patterns("drafts", "labels")))
    (root / "suggestions").mkdir()
    for name, end_s in (("two", 10), ("three", 5)):
        (root / "transcripts" / f"{name}.txt").unlink()
        rows = f"video,begin_s,end_s,step\n{name},0,2.5,open\n{name},2.5,{end_s},fill\n"
        (root / "suggestions" / f"{name}.csv").write_text(rows)
    rows = "video,begin_s,end_s,step\none,0,10,open\n"  # `edge-hal label` wrote two formats
    (root / "suggestions" / "segments.csv").write_text(rows)
    (root / "suggestions" / "one.txt").write_text("open\n" * LENGTH)
    (root / "task.yaml").write_text("encoder: own\nsteps: [close, fill, open]\n")
    with Corrector(tmp_path, root) as server:
        seen = server.video("two")
        assert seen["state"] == "suggested" and [each[:2] for each in seen["segments"]] == [["open", 0], ["fill", 25]]
        assert server.get("/data/video?name=three", server.token)[0] == 404  # its second half has no suggestion
        status, refused = server.change("two", seen["revision"], "stamp", frame=3, step="open")
        assert status == 409 and "takes no time stamps" in refused["error"] and not (root / "labels").exists()
        assert server.change("two", seen["revision"], "accept")[1]["state"] == "accepted"
        assert (root / "labels" / "two.csv").is_file()


@pytest.mark.slow
def test_a_server_that_is_killed_while_it_saves_leaves_whole_files(tmp_path: Path) -> None:
    root = write_task(tmp_path / "task", ("one",))
    for turn in range(5):
        with Corrector(tmp_path, root) as server:
            saved = threading.Event()
            thread = threading.Thread(target=save_again_and_again, args=(server, 5 + 3 * turn, saved))
            thread.start()
            assert saved.wait(60)
            server.process.kill()
            thread.join()
        for folder in ("labels", "drafts"):
            for path in (root / folder).glob("[!.]*.csv"):
                rows = list(csv.DictReader(path.read_text().splitlines()))
                assert [row["step"] for row in rows] == ["open", "fill", "close"], path
                assert rows[-1]["end_s"] == "10.000000"
    with Corrector(tmp_path, root) as server:
        assert server.video("one")["state"] in ("accepted", "draft")
        assert server.stop() == 0


def save_again_and_again(server: Corrector, enough: int, saved: threading.Event) -> None:
    """Until the server is killed. `saved` is set after `enough` times."""
    revision = server.video("one")["revision"]
    try:
        for turn in itertools.count(1):
            segments = [["open", 0], ["fill", 1 + turn % 60], ["close", 80]]
            revision = server.change("one", revision, "save", segments=segments)[1]["revision"]
            revision = server.change("one", revision, "accept")[1]["revision"]
            if turn == enough:
                saved.set()
    except (OSError, http.client.HTTPException):
        return


def test_only_a_fault_of_the_disk_is_one_of_the_server() -> None:
    for cause, status in ((None, 409), (ValueError("cut off"), 409), (OSError(28, "No space left on device"), 500)):
        error = EdgeHalError("cannot write the labels", "why", "what to do")
        error.__cause__ = cause
        answer = refused_answer(error)
        assert answer.status_code == status
        assert json.loads(bytes(answer.body))["error"] == "cannot write the labels; why; what to do"
