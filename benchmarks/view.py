"""What the page of `edge-hal view` costs: how soon it is usable, how late it is, how smoothly it scrolls, and what a
run notices of it.

    python benchmarks/view.py [--part open,late,scroll,cost] [--bundle demo/bundle --camera demo/videos/bench_065.mp4]

A Chromium without a window (Debian's `chromium` and `chromium-driver`, and selenium) opens the page.

    open    milliseconds from the start of the navigation until the current step and the timeline are drawn, with 3,000
            transitions in the journal of the run; and the bytes that were loaded
    late    milliseconds from the publication of a transition until the frame of the browser after it was put on the
            page, for transitions a tenth of a second apart
    scroll  frames a second, and milliseconds of drawing in each, while all 8 hours of history are scrolled, at three
            zooms; the browser draws at most 60
    cost    processor time and latency of two runs over the same video at the same time, one watched by three pages, the
            other by nobody; both without and with `--preview`. Latency is the sum of the stages' quantiles
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # started as a file, Python looks only in its folder

from tests.helpers.browser import Browser, opened
from tests.helpers.made_up_shift import STEPS, Bench, store
from tests.helpers.processes import REPOSITORY
from tests.helpers.viewer import Viewer

TRANSITIONS = 3000
SPANS = {"8 hours": "", "30 minutes": "++++", "2 minutes": "++++++++"}
USABLE = """
    const usable = () => {
        const canvas = document.querySelector("canvas");
        const step = document.querySelector(".step")?.textContent;
        const row = canvas?.width ? canvas.getContext("2d").getImageData(0, 40, canvas.width, 1).data : [];
        const drawn = row.filter((value, place) => place % 4 === 3 && value).length > 300;
        if (step && step !== "nothing recognised yet" && drawn) window.usable_ms = performance.now();
        else requestAnimationFrame(usable);
    };
    requestAnimationFrame(usable);
"""
WATCH = """
    window.shown = {};
    const section = document.querySelector("section");
    new MutationObserver(() => {
        const seq = section.dataset.seq;
        requestAnimationFrame(() => { window.shown[seq] ??= performance.timeOrigin + performance.now(); });
    }).observe(section, {attributes: true, attributeFilter: ["data-seq"]});
"""
SCROLL = """
    const done = arguments[arguments.length - 1], canvas = document.querySelector("canvas"), gaps = [];
    let before = performance.now(), left = 300, worked = [];
    const turn = (now) => {
        gaps.push(now - before);
        before = now;
        if (!left--) return done([gaps.slice(1), worked]);
        const key = left % 100 < 50 ? "ArrowLeft" : "ArrowRight";
        canvas.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
        const began = performance.now();
        requestAnimationFrame(turn);
        queueMicrotask(() => worked.push(performance.now() - began));
    };
    requestAnimationFrame(turn);
"""
"""The page asked for its frame before this does, so a long drawing makes the next gap long."""


def open_times(folder: Path, times: int) -> dict[str, Any]:
    found, weight = [], 0
    with (
        Bench(folder / "open", transitions=TRANSITIONS) as bench,
        Viewer(folder, "--connect", bench.endpoint) as viewer,
    ):
        viewer.heard_of("bench-1")
        bench.tell("transition place_base")
        for number in range(times):
            with opened(folder / f"profile{number}", "about:blank") as browser:
                browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": USABLE})
                browser.driver.get(viewer.address)
                found.append(float(browser.until("window.usable_ms")))
                weight = browser.run(
                    "return performance.getEntriesByType('resource').concat("
                    "performance.getEntriesByType('navigation')).reduce((sum, each) => sum + each.transferSize, 0)"
                )
    return {"usable_ms": quantiles(found), "times": times, "bytes": weight}


def lateness(folder: Path, count: int) -> dict[str, Any]:
    published: dict[int, float] = {}
    with (
        Bench(folder / "late", transitions=TRANSITIONS) as bench,
        Viewer(folder, "--connect", bench.endpoint) as viewer,
    ):
        viewer.heard_of("bench-1")
        with opened(folder / "profile-late", viewer.address) as browser:
            browser.until("text('.state') === 'live'")
            browser.run(WATCH)
            listener = viewer.open()
            rng = np.random.default_rng(0)
            for number in range(count):
                bench.tell(f"transition {STEPS[1 + number % 5]}")  # the first step would close a cycle too
                event = listener.until(type="transition")
                published[event["seq"]] = event["run"]["utc_ns"] / 1e6
                time.sleep(0.05 + 0.1 * rng.random())
            browser.until(f"window.shown[{max(published)}]")
            shown = browser.run("return window.shown")
    late = [shown[str(seq)] - at for seq, at in published.items() if str(seq) in shown]
    return {"late_ms": quantiles(late), "transitions": len(late)}


def scrolling(folder: Path) -> dict[str, Any]:
    store(folder / "scroll", "bench-1", TRANSITIONS)
    rows: dict[str, Any] = {}
    with (
        Viewer(folder, "--journal", folder / "scroll") as viewer,
        opened(folder / "profile-scroll", viewer.address) as browser,
    ):
        browser.until("document.querySelector('section')?.dataset.events > 0")
        for name, zoom in SPANS.items():
            browser.press("1", "a")
            browser.until(f"document.querySelector('section').dataset.events >= {TRANSITIONS}")
            if zoom:
                browser.press(*zoom)
            browser.driver.set_script_timeout(120)
            gaps, _ = browser.driver.execute_async_script(SCROLL)
            frames = {"frames_per_s": round(1000 * len(gaps) / sum(gaps), 1), "gap_ms": quantiles(gaps)}
            rows[name] = {**frames, "shown": browser.text(".range").replace("\u00a0", " "), "draw_ms": drawing(browser)}
    return rows


def drawing(browser: Browser) -> dict[str, float]:
    """Milliseconds of script in a frame in which the timeline is scrolled, by the browser's own account."""
    cdp = browser.driver.execute_cdp_cmd
    cdp("Performance.enable", {})
    before = {each["name"]: each["value"] for each in cdp("Performance.getMetrics", {})["metrics"]}
    browser.driver.execute_async_script(SCROLL)
    after = {each["name"]: each["value"] for each in cdp("Performance.getMetrics", {})["metrics"]}
    return {name: round(1000 * (after[name] - before[name]) / 300, 2) for name in ("ScriptDuration", "TaskDuration")}


def cost(folder: Path, bundle: Path, camera: str, seconds: float, times: int) -> dict[str, Any]:
    rows: dict[str, Any] = {"runs": times, "seconds": seconds}
    for kind in ("three pages", "three pages with pictures"):
        watched, alone = [], []
        for number in range(times):
            place = folder / f"{kind[-4:]}{number}"
            place.mkdir()
            pair = two_runs(place, "pictures" in kind, number % 2, bundle, camera, seconds)
            watched.append(pair[0])
            alone.append(pair[1])
        rows[kind] = {
            name: {
                "watched": round(float(np.median([run[name] for run in watched])), 3),
                "alone": round(float(np.median([run[name] for run in alone])), 3),
                "ratios": [round(one[name] / other[name], 2) for one, other in zip(watched, alone, strict=True)],
            }
            for name in watched[0]
        }
    return rows


def two_runs(
    folder: Path, pictures: bool, first: int, bundle: Path, camera: str, seconds: float
) -> list[dict[str, float]]:
    """Two runs over the same video at the same time, the first watched by three pages, the other by nobody.

    Args:
        first: which of them is started first.
    """
    endpoints = [f"ipc://{folder}/{name}" for name in ("watched", "alone")]
    with ExitStack() as closing:
        viewer = closing.enter_context(Viewer(folder, "--connect", endpoints[0], "--bundle", bundle))
        browser = closing.enter_context(opened(folder / "profile", viewer.address))
        for _ in range(2):
            browser.driver.switch_to.new_window("window")
            browser.driver.get(viewer.site)
        found: dict[int, dict[str, float]] = {}
        started = {
            which: closing.enter_context(start_run(folder, which, pictures, endpoints[which], bundle, camera, seconds))
            for which in (first, 1 - first)
        }
        for which, process in started.items():
            assert process.stdout is not None
            summary = json.loads(process.stdout.read())
            _, _, used = os.wait4(process.pid, 0)
            process.returncode = 0
            latency = summary["latency_ms"]
            stages = ("capture_to_tick", "encode", "step", "decide", "publish")
            found[which] = {
                "cpu_s": used.ru_utime + used.ru_stime,
                "p50_ms": sum(latency[stage]["p50"] for stage in stages),
                "p99_ms": sum(latency[stage]["p99"] for stage in stages),
            }
    return [found[0], found[1]]


def start_run(
    folder: Path, which: int, pictures: bool, endpoint: str, bundle: Path, camera: str, seconds: float
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "edge_hal", "run", "--bundle", str(bundle), "--camera", camera, "--json"]
    command += ["--pub", endpoint, "--seconds", str(seconds), "--journal", str(folder / f"journal{which}")]
    if pictures:
        command += ["--preview", f"{endpoint}.pictures"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)


def quantiles(values: Sequence[float]) -> dict[str, float]:
    return {name: round(float(np.quantile(values, q)), 1) for name, q in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="open,late,scroll,cost")
    parser.add_argument("--bundle", type=Path, default=Path("demo/bundle"))
    parser.add_argument("--camera", default="demo/videos/bench_065.mp4")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each run of `cost`")
    parser.add_argument("--times", type=int, default=4, help="pairs of runs of each kind of `cost`")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="view") as place:
        folder = Path(place)
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "open": lambda: open_times(folder, 10),
            "late": lambda: lateness(folder, 200),
            "scroll": lambda: scrolling(folder),
            "cost": lambda: cost(folder, given.bundle.absolute(), given.camera, given.seconds, given.times),
        }
        for part in given.part.split(","):
            print(json.dumps({part: parts[part]()}, indent=1), flush=True)


if __name__ == "__main__":
    main()
