"""What correcting costs: how soon the page of `edge-hal correct` is usable, how long a frame and a save take, and how
long a new user needs for ten boundaries.

    python benchmarks/correct.py [--data demo/data --run demo/run] [--part open,frames,ten,marks]

A Chromium without a window (Debian's `chromium` and `chromium-driver`, and selenium) opens the page over a copy of the
data as a task folder.

    open    milliseconds from the start of the navigation until list, picture and segments are there, with an empty
            cache; and the bytes that were loaded, without frames
    frames  milliseconds from a key until the picture of the frame is shown: the next frame, the one before, and a frame
            anywhere; and from a change until it is on the disk
    ten     seconds until ten boundaries, the least certain first, were moved to within a quarter of a second of the
            truth, with those that are looked at and were right. The mouse and the keys are real. Between them the
            script waits as long as people do: by the keystroke-level model (Card, Moran and Newell 1980) 1.35 s to
            decide, 1.1 s to point, 0.2 s to click, 0.28 s to press a key. It knows where the truth is; a person has to
            see it
    marks   the same for a picture of each step of five videos, the least certain first: seconds for each picture, and
            how many of those that the page proposed showed the step. For the others the script clicks where the step
            is
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # started as a file, Python looks only in its folder

from tests.helpers.browser import Browser, opened
from tests.helpers.viewer import Corrector

DECIDE_S, POINT_S, CLICK_S, KEY_S = 1.35, 1.1, 0.2, 0.28
NEAR_S = 0.25
LEFT, RIGHT, ENTER = "\ue012", "\ue014", "\ue007"
USABLE = """
    const usable = () => {
        const canvas = document.querySelector("#track"), picture = document.querySelector("#picture");
        const row = canvas?.width ? canvas.getContext("2d").getImageData(0, 40, canvas.width, 1).data : [];
        const drawn = row.filter((value, place) => place % 4 === 3 && value).length > 300;
        if (drawn && picture.naturalWidth && document.querySelector("#videos li")) window.usable_ms = performance.now();
        else requestAnimationFrame(usable);
    };
    requestAnimationFrame(usable);
"""
WEIGHT = """
    return performance.getEntriesByType("resource").concat(performance.getEntriesByType("navigation"))
        .filter((each) => !each.name.includes("/data/frame")).reduce((sum, each) => sum + each.transferSize, 0)
"""
SHOWN = """
    const done = arguments[arguments.length - 1], begin = performance.now();
    const before = document.querySelector("#picture").dataset.frame;
    document.querySelector("#track").dispatchEvent(new KeyboardEvent("keydown", {key: arguments[0], bubbles: true}));
    const look = () => {
        if (document.querySelector("#picture").dataset.frame !== before) done(performance.now() - begin);
        else requestAnimationFrame(look);
    };
    look();
"""
"""A picture that is shown at once is measured as 0."""
ANYWHERE = """
    const done = arguments[arguments.length - 1];
    const canvas = document.querySelector("#track"), box = canvas.getBoundingClientRect();
    const begin = performance.now(), picture = document.querySelector("#picture"), before = picture.dataset.frame;
    for (const type of ["pointerdown", "pointerup"]) canvas.dispatchEvent(new PointerEvent(type, {
        pointerId: 1, clientX: box.left + arguments[0] * box.width, clientY: box.top + 2, bubbles: true}));
    const look = () => {
        if (picture.dataset.frame !== before) done(performance.now() - begin);
        else requestAnimationFrame(look);
    };
    look();
"""


def make_task(data: Path, run: Path, folder: Path) -> Path:
    """A task folder with the training videos of the run."""
    root = folder / "task"
    for name in ("videos", "transcripts", "runs"):
        (root / name).mkdir(parents=True)
    shutil.copytree(run, root / "runs" / "1")
    for name in json.loads((run / "alignment.json").read_text()):
        shutil.copy(data / "videos" / f"{name}.mp4", root / "videos")
        shutil.copy(data / "transcripts" / f"{name}.txt", root / "transcripts")
    shutil.copy(data / "mapping.txt", root)
    (root / "task.yaml").write_text("encoder: own\n")
    return root


def open_times(folder: Path, task: Path, times: int) -> dict[str, Any]:
    found, weight = [], 0
    with Corrector(folder, task) as server:
        for number in range(times):
            with opened(folder / f"profile{number}", "about:blank", (1280, 1060)) as browser:
                browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": USABLE})
                browser.driver.get(server.address)
                found.append(float(browser.until("window.usable_ms")))
                weight = browser.run(WEIGHT)
    return {
        "usable_ms": quantiles(found),
        "times": times,
        "bytes": weight,
        "videos": len(list((task / "videos").iterdir())),
    }


def frame_times(folder: Path, task: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    rows: dict[str, Any] = {}
    with Corrector(folder, task) as server, opened(folder / "profile-frames", server.address, (1280, 1060)) as browser:
        certain(browser)
        browser.driver.set_script_timeout(60)
        measure = browser.driver.execute_async_script
        rows["next_ms"] = quantiles([measure(SHOWN, "ArrowRight") for _ in range(60)])
        rows["anywhere_ms"] = quantiles([measure(ANYWHERE, place) for place in rng.uniform(0.02, 0.98, 40)])
        rows["before_ms"] = quantiles([measure(SHOWN, "ArrowLeft") for _ in range(60)])
        name = browser.run("return document.querySelector('#editor').dataset.video")
        video, saves = server.video(name), []
        for turn in range(40):
            segments = [[step, first] for step, first, _ in video["segments"]]
            segments[1][1] += 1 if turn % 2 == 0 else -1
            began = time.monotonic()
            video = server.change(name, video["revision"], "save", segments=segments)[1]
            saves.append(1000 * (time.monotonic() - began))
        rows["save_ms"] = quantiles(saves)
    return rows


def ten_boundaries(folder: Path, data: Path, task: Path, count: int, by_key: bool) -> dict[str, Any]:
    off, done, tried = list[float](), 0, 0
    shutil.rmtree(task / "drafts", ignore_errors=True)
    with (
        Corrector(folder, task) as server,
        opened(folder / f"profile-{by_key}", server.address, (1280, 1060)) as browser,
    ):
        certain(browser)
        began = time.monotonic()
        while done < count:
            tried += 1
            before = browser.text("#detail")
            if by_key:
                wait(DECIDE_S, KEY_S)
                browser.press("n")
            else:
                wait(DECIDE_S, POINT_S, CLICK_S)
                browser.click("#next")
            browser.until(f"text('#detail') !== {json.dumps(before)} && text('#detail').includes('certain')")
            name = browser.run("return document.querySelector('#editor').dataset.video")
            video = server.video(name)
            frame = int(browser.text("#place").rpartition(" ")[2])
            boundary = next(m for m, (_, first, _) in enumerate(video["segments"]) if m and first == frame)
            truth = begins_of(data / "groundTruth" / f"{name}.txt")[boundary]
            off.append(abs(truth - frame) / video["rate_hz"])
            browser.until(f"document.querySelector('#picture').dataset.frame === '{frame}'")
            if off[-1] > NEAR_S:
                correct(browser, video, frame, truth)
                found = server.video(name)["segments"][boundary][1]
                if abs(found - truth) / video["rate_hz"] > NEAR_S:
                    continue  # a neighbour is in its way: a person corrects that first
                done += 1
            else:
                wait(DECIDE_S)
        took = time.monotonic() - began
    counts = {"corrected": done, "looked_at": tried, "were_right": sum(each <= NEAR_S for each in off)}
    return {"seconds": round(took, 1), **counts, "off_s": quantiles(off)}


def mark_steps(folder: Path, data: Path, task: Path, count: int) -> dict[str, Any]:
    right, done, found = 0, 0, list[str]()
    for name in ("drafts", "labels"):
        shutil.rmtree(task / name, ignore_errors=True)
    with Corrector(folder, task) as server, opened(folder / "profile-marks", server.address, (1280, 1060)) as browser:
        certain(browser)
        began = time.monotonic()
        wait(DECIDE_S, KEY_S)
        browser.press("m")
        while True:
            browser.until("text('#asked') !== ''")
            name = browser.run("return document.querySelector('#editor').dataset.video")
            if name not in found:
                if len(found) == count:
                    break
                found.append(name)
            question = browser.text("#asked")
            segment = int(question.partition("segment ")[2].split()[0]) - 1
            frame, length = int(browser.text("#place").rpartition(" ")[2]), server.video(name)["length"]
            browser.until(f"document.querySelector('#picture').dataset.frame === '{frame}'")
            begin, end = [*begins_of(data / "groundTruth" / f"{name}.txt"), length][segment : segment + 2]
            wait(DECIDE_S)
            if begin <= frame < end:
                right += 1
            else:
                go_to((begin + end) // 2, length, browser)
            wait(KEY_S)
            browser.press("m")
            browser.until(f"text('#asked') !== {json.dumps(question)}")
            done += 1
        took = time.monotonic() - began
    return {"videos": count, "marks": done, "proposed_right": right, "seconds_each": round(took / done, 2)}


def go_to(frame: int, length: int, browser: Browser) -> None:
    """Click on the track, of which the whole video is in sight."""
    from selenium.webdriver.common.action_chains import ActionChains

    canvas = browser.driver.find_element("css selector", "#track")
    wait(POINT_S, CLICK_S)
    place = round((frame / length - 0.5) * canvas.size["width"])
    above = -canvas.size["height"] // 2 + 8  # where no boundary is taken hold of
    ActionChains(browser.driver).move_to_element_with_offset(canvas, place, above).click().perform()
    browser.until(f"Math.abs(document.querySelector('#picture').dataset.frame - {frame}) < 4")
    wait(DECIDE_S)


def correct(browser: Browser, video: dict[str, Any], frame: int, truth: int) -> None:
    """Drag the boundary to the truth, and move it by keys where the mouse was not exact."""
    from selenium.webdriver.common.action_chains import ActionChains

    rate_hz, length = video["rate_hz"], video["length"]
    span, begin = 15 * rate_hz, min(max(0.0, frame - 7.5 * rate_hz), length - 15 * rate_hz)
    if not begin + 3 < truth < begin + span - 3:
        wait(DECIDE_S, POINT_S, CLICK_S)
        browser.click("[data-do=all]")
        span, begin = length, 0.0
    canvas = browser.driver.find_element("css selector", "#track")
    width = canvas.size["width"]
    place, end = (round(((each - begin) / span - 0.5) * width) for each in (frame, truth))
    wait(DECIDE_S, POINT_S)
    ActionChains(browser.driver).move_to_element_with_offset(canvas, place, 0).click_and_hold().perform()
    ActionChains(browser.driver).move_by_offset((end - place) // 2, 0).perform()
    wait(POINT_S)
    ActionChains(browser.driver).move_by_offset(end - place - (end - place) // 2, 0).perform()
    wait(DECIDE_S, CLICK_S)
    ActionChains(browser.driver).release().perform()
    saved(browser)
    at = int(browser.text("#place").rpartition(" ")[2])
    if at != truth and abs(at - truth) < 10:
        wait(DECIDE_S)
        for _ in range(abs(truth - at)):
            wait(KEY_S)
            browser.press(RIGHT if truth > at else LEFT)
        wait(KEY_S)
        browser.press(ENTER)
        saved(browser)


def certain(browser: Browser, minutes: int = 5) -> None:
    """Wait until the confidences are known, which takes half a minute for 64 videos."""
    from selenium.common.exceptions import TimeoutException

    known = "text('#scoring') === '' && text('#summary').includes('expected to be off')"
    for _ in range(minutes):
        with suppress(TimeoutException):
            browser.until(known)
            return
    raise TimeoutException(f"the confidences are not known after {minutes} minutes")


def saved(browser: Browser) -> None:
    browser.until("document.querySelector('#editor').dataset.saved === 'true'")


def wait(*seconds: float) -> None:
    time.sleep(sum(seconds))


def begins_of(path: Path) -> list[int]:
    labels = path.read_text().split()
    return [frame for frame, label in enumerate(labels) if frame == 0 or labels[frame - 1] != label]


def quantiles(values: list[float]) -> dict[str, float]:
    return {name: round(float(np.quantile(values, q)), 2) for name, q in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="open,frames,ten,marks")
    parser.add_argument("--data", type=Path, default=Path("demo/data"))
    parser.add_argument("--run", type=Path, default=Path("demo/run"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="correct") as place:
        folder = Path(place)
        task = make_task(given.data.absolute(), given.run.absolute(), folder)
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "open": lambda: open_times(folder, task, 10),
            "frames": lambda: frame_times(folder, task),
            "ten": lambda: {
                name: ten_boundaries(folder, given.data, task, 10, by_key)
                for name, by_key in (("next by mouse", False), ("next by key", True))
            },
            "marks": lambda: mark_steps(folder, given.data, task, 5),
        }
        for part in given.part.split(","):
            print(json.dumps({part: parts[part]()}, indent=1), flush=True)


if __name__ == "__main__":
    main()
