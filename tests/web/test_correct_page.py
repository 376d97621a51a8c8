"""The page of `edge-hal correct` in a real Chromium, over a task that was really trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("uvicorn", reason="needs the extra web")
pytest.importorskip("wsproto", reason="needs the extra web")
pytest.importorskip("torch", reason="needs torch")

from edge_hal.learning.data.dataset import load_dataset
from edge_hal.learning.data.labels.folder import read_own_labels
from edge_hal.workbench import render_dataset
from tests.helpers.browser import Browser, opened
from tests.helpers.processes import call
from tests.helpers.viewer import Corrector

pytestmark = pytest.mark.slow

LIGHTEST = 300_000
CONTROL, SHIFT, LEFT, UP, RIGHT, DOWN, ENTER, DELETE = (
    *("\ue009", "\ue008", "\ue012", "\ue013", "\ue014", "\ue015", "\ue007", "\ue017"),
)
BRIEF = """
encoder: own
settings:
  learning.restarts: 2
  learning.encoder.epochs: 1
  learning.student.epochs: 2
  learning.student.least_steps: 0
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = render_dataset(tmp_path_factory.mktemp("rendered") / "bench", 5, 3, 1)
    for folder in ("groundTruth", "splits"):
        shutil.rmtree(root / folder)
    (root / "mapping.txt").unlink()
    (root / "task.yaml").write_text(BRIEF)
    code, _, err = call("train", str(root))
    assert code == 0, err
    return root


@pytest.fixture
def task(tmp_path: Path, trained: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "bench"))


@pytest.fixture
def server(tmp_path: Path, task: Path) -> Iterator[Corrector]:
    with Corrector(tmp_path, task) as server:
        yield server


@pytest.fixture
def page(tmp_path: Path, server: Corrector) -> Iterator[Browser]:
    with opened(tmp_path / "profile", server.address, (1280, 1060)) as browser:
        browser.until(
            "document.querySelectorAll('#videos li').length === 4 && document.querySelector('#picture').naturalWidth"
        )
        yield browser


def shown(page: Browser) -> str:
    return str(page.run("return document.querySelector('#editor').dataset.video"))


def saved(page: Browser, state: str = "draft") -> None:
    page.until(f"document.querySelector('#editor[data-saved=true][data-state={state}]')")


def begins(server: Corrector, name: str) -> list[tuple[str, int]]:
    return [(step, first) for step, first, _ in server.video(name)["segments"]]


def drag(page: Browser, server: Corrector, boundary: int, frames: int) -> None:
    """Drag a boundary with the mouse, while the whole video is in sight."""
    from selenium.webdriver.common.action_chains import ActionChains

    canvas = page.driver.find_element("css selector", "#track")
    width, video = canvas.size["width"], server.video(shown(page))
    place, end = (
        round((frame / video["length"] - 0.5) * width)
        for frame in (video["segments"][boundary][1], video["segments"][boundary][1] + frames)
    )
    actions = ActionChains(page.driver).move_to_element_with_offset(canvas, place, 0).click_and_hold()
    actions.move_by_offset((end - place) // 2, 0).move_by_offset(
        end - place - (end - place) // 2, 0
    ).release().perform()


def test_a_boundary_is_dragged_and_saved_and_is_there_after_a_reload_and_can_be_undone(
    page: Browser, server: Corrector, task: Path
) -> None:
    name = shown(page)
    found = begins(server, name)
    further = (found[3][1] - found[2][1]) // 2
    drag(page, server, 2, further)
    saved(page)
    moved = begins(server, name)
    assert moved[:2] == found[:2] and moved[3:] == found[3:] and abs(moved[2][1] - found[2][1] - further) <= 2
    assert (task / "drafts" / f"{name}.csv").is_file() and not list(
        (task / "labels").glob("*") if (task / "labels").is_dir() else []
    )
    page.until(f"document.querySelector('#picture').dataset.frame === '{moved[2][1]}'")
    page.driver.refresh()
    page.until(
        f"document.querySelector('#editor')?.dataset.video === '{name}' && text('#state').startsWith('corrected')"
    )
    assert page.text("#segments tbody tr:nth-child(3) button") == f"{moved[2][1] / 10:.2f} s"
    drag(page, server, 1, -found[1][1] // 2)
    page.until("!document.querySelector('#undo').disabled")
    saved(page)
    assert begins(server, name) != moved
    page.press_with(CONTROL, "z")
    page.until("document.querySelector('#undo').disabled")
    saved(page)
    assert begins(server, name) == moved
    page.press_with(CONTROL, "y")
    page.until("document.querySelector('#redo').disabled")
    saved(page)
    assert begins(server, name) != moved
    page.click("#discard")
    page.until("text('#state') === 'as training found it'")
    assert begins(server, name) == found
    assert page.errors() == []
    assert {urlsplit(address).netloc for address in page.requests()} == {f"127.0.0.1:{server.port}"}
    weight = page.run(
        "return performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))"
        ".filter((each) => !each.name.includes('/data/frame')).reduce((sum, each) => sum + each.transferSize, 0)"
    )
    assert 10_000 < weight < LIGHTEST
    assert server.token not in page.driver.current_url


def test_doubtful_boundaries_are_visited_set_at_the_playhead_and_accepted(
    page: Browser, server: Corrector, task: Path
) -> None:
    page.until("text('#summary').includes('expected to be off')")
    page.press("n")
    page.until("text('#detail').includes('% certain') || text('#detail').includes('\\u00a0% certain')")
    first = page.text("#detail")
    name = shown(page)
    found = begins(server, name)
    boundary = next(m for m, (_, frame) in enumerate(found) if m and page.text("#place").endswith(f"frame {frame}"))
    page.press(*[RIGHT] * 4, ENTER)
    saved(page)
    assert begins(server, name)[boundary] == (found[boundary][0], found[boundary][1] + 4)
    page.press("n")
    page.until(f"text('#detail') !== {json.dumps(first)} && text('#detail').includes('certain')")
    page.run("document.querySelector('#track').scrollIntoView()")
    page.press("[", "]")
    choose = "[...document.querySelectorAll('#videos button')].find((each) => each.textContent.includes(arguments[0]))"
    page.run(f"{choose}.click()", name)
    page.until(f"document.querySelector('#editor').dataset.video === '{name}'")
    page.press("a")
    page.until(
        "document.querySelector('#editor').dataset.state === 'accepted' && text('#summary').startsWith('1 of 4')"
    )
    own = read_own_labels(task)
    videos = load_dataset(task, split=None, part="train", with_labels=set(own), own_labels=own).videos
    assert [video.name for video in videos if video.labels is not None] == [name]
    code, out, _ = call("check", str(task), "--json")
    assert code == 0 and json.loads(out)["rows"]["with labels"].startswith("1")
    page.click("#withdraw")
    page.until("document.querySelector('#editor').dataset.state === 'draft'")
    assert not list((task / "labels").iterdir()) and page.errors() == []


def test_steps_are_reassigned_split_and_removed_and_the_step_list_objects(page: Browser, server: Corrector) -> None:
    name = shown(page)
    found = begins(server, name)
    page.press(DOWN, RIGHT, RIGHT, "s")
    page.until("document.querySelector('#choose').open")
    page.run("document.querySelector('#begins').value = 'wipe'")
    page.click("#choose button[value=split]")
    saved(page)
    split = begins(server, name)
    assert ("wipe", found[1][1] + 2) in split and len(split) >= len(found)
    assert "its step list has" in page.text("#note") and not page.run("return document.querySelector('#note').hidden")
    page.run(
        "const step = document.querySelector('#step'); step.value = 'inspect'; step.dispatchEvent(new Event('change'))"
    )
    page.until("text('#segments').includes('inspect')")
    saved(page)
    assert ("inspect", found[1][1] + 2) in begins(server, name)
    page.press(DELETE)
    page.until("text('#state') === 'as training found it'")  # the draft is what was found
    saved(page, "found")
    assert begins(server, name) == found
    page.press_with(CONTROL, "z")
    page.press_with(CONTROL, "z")
    page.press_with(CONTROL, "z")
    page.until("document.querySelector('#undo').disabled")
    saved(page, "found")
    assert begins(server, name) == found and page.run("return document.querySelector('#note').hidden")
    assert page.errors() == []


def test_of_two_tabs_the_slower_one_is_told_and_shows_what_is_there(page: Browser, server: Corrector) -> None:
    name = shown(page)
    found = begins(server, name)
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    page.size(1280, 1060)
    page.driver.get(server.site)
    page.until(f"document.querySelector('#editor')?.dataset.video === '{name}'")
    page.driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    page.press(DOWN, RIGHT, ENTER)
    page.until("text('#saved').startsWith('not saved')")
    second = page.driver.current_window_handle
    page.driver.switch_to.window(first)
    page.press(DOWN, RIGHT, RIGHT, RIGHT, ENTER)
    saved(page)
    newer = begins(server, name)
    assert newer[1] == (found[1][0], found[1][1] + 3)
    page.driver.switch_to.window(second)
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {**offline, "offline": False})
    page.press(RIGHT, ENTER)
    page.until("text('#told').includes('was changed on another page') && text('#saved') === 'saved'")
    assert page.text("#segments tbody tr:nth-child(2) button") == f"{newer[1][1] / 10:.2f} s"
    assert begins(server, name) == newer
    page.press(RIGHT, RIGHT, ENTER)  # from there it goes on
    page.until("!document.querySelector('#undo').disabled")
    saved(page)
    page.driver.switch_to.window(first)  # and the other one shows it at once
    page.until(f"text('#segments tbody tr:nth-child(2) button') === '{begins(server, name)[1][1] / 10:.2f} s'")


def asked(page: Browser) -> tuple[str, int]:
    """The step that the page asks for, and the number of its segment from 0."""
    words = page.text("#asked")
    return words.removeprefix("Does this picture show ").partition(" (")[0], int(
        words.partition("segment ")[2].split()[0]
    ) - 1


def test_a_picture_of_each_step_is_marked_and_counts_for_training(page: Browser, server: Corrector, task: Path) -> None:
    name = shown(page)
    found = begins(server, name)
    page.press("m")
    page.until("text('#asked').startsWith('Does this picture show')")
    seen = list[tuple[int, str]]()
    while shown(page) == name:
        step, index = asked(page)
        assert step == found[index][0].replace("_", " ") and index == len(seen)
        frame = int(page.text("#place").rpartition(" ")[2])
        stop = found[index + 1][1] if index + 1 < len(found) else server.video(name)["length"]
        assert found[index][1] <= frame < stop
        if index == 2:  # the picture shows another step: it is found later
            frame = stop + 3
            page.press(*[RIGHT] * (frame - int(page.text("#place").rpartition(" ")[2])))
        seen.append((frame, step))
        if index == 3:
            page.until(f"document.querySelector('#picture').dataset.frame === '{frame}'")
            page.screenshot("correct-marking")
        page.press("m")
        page.until(f"text('#asked') && !text('#asked').includes('segment {index + 1} of')")
    other = shown(page)
    assert [(begin, step.replace("_", " ")) for begin, _, step in server.video(name)["parts"]] == seen
    now = begins(server, name)
    assert now[3][1] == seen[2][0] + 1 and now[:3] == found[:3]  # its segment reaches to the picture now
    own = read_own_labels(task)
    videos = load_dataset(task, split=None, part="train", with_labels=set(own), own_labels=own)
    (video,) = [video for video in videos.videos if video.name == name]
    assert video.labels is not None
    assert [
        (int(frame), videos.labels[video.labels[frame]].replace("_", " ")) for frame in (video.labels >= 0).nonzero()[0]
    ] == seen
    _, index = asked(page)
    page.press("m")
    page.until(f"text('#asked').includes('segment {index + 2} of')")
    page.press("x")
    page.until(f"text('#asked').includes('segment {index + 3} of')")
    page.press("\ue00c")
    page.until("text('#asked') === '' && text('#mark').startsWith('Mark a picture')")
    assert len(server.video(other)["parts"]) == 1
    page.press_with(CONTROL, "z")
    page.until("document.querySelector('#undo').disabled")
    assert server.video(other)["parts"] == [] and not (task / "labels" / f"{other}.csv").exists()
    page.press_with(CONTROL, "y")
    page.until("document.querySelector('#redo').disabled")
    assert len(server.video(other)["parts"]) == 1 and page.errors() == []


def until_training(server: Corrector, *states: str) -> None:
    """It takes longer than a script in the browser may wait."""
    socket = server.open()
    for event in socket.events():
        if event["type"] == "work" and event["training"] is not None and event["training"]["state"] in states:
            return socket.close()
    raise AssertionError(f"closed with {socket.closed}")


def test_a_training_is_started_stopped_and_goes_on_and_its_run_is_shown(
    page: Browser, server: Corrector, task: Path
) -> None:
    page.until("text('#summary').includes('expected to be off')")
    name = shown(page)
    found = begins(server, name)
    drag(page, server, 1, (found[2][1] - found[1][1]) // 2)
    saved(page)
    page.press("a")
    page.until("document.querySelector('#editor').dataset.state === 'accepted'")
    page.click("#train")
    page.until("document.querySelector('#progress').max > 1 && /\\d+\\/\\d+/.test(text('#stage'))")
    page.run("scrollTo(0, 0)")
    page.screenshot("correct-training")
    page.click("#stop")
    until_training(server, "stopped")
    page.until("document.querySelector('#work').dataset.state === 'stopped'")
    assert not (task / "runs" / "2" / "model.safetensors").exists()
    page.click("#train")
    until_training(server, "running", "stopping")
    until_training(server, "done")
    page.until("document.querySelector('#work').dataset.state === 'done' && text('#stage') === 'trained: run 2'")
    assert json.loads((task / "runs" / "2" / "alignment.json").read_text())[name]["labelled"]
    page.until("text('#scoring') === '' && text('#summary').includes('expected to be off')")
    assert "trained on 4 videos" in page.text("#printed pre")
    assert server.video(name)["state"] == "accepted" and page.errors() == []


def test_it_is_seen_on_a_phone_and_in_the_dark(page: Browser, server: Corrector) -> None:
    page.until("text('#summary').includes('expected to be off')")
    page.press("n")
    page.until("text('#detail').includes('certain')")
    page.until("document.querySelector('#picture').dataset.frame !== '0'")
    page.run("scrollTo(0, 0)")
    page.screenshot("correct")
    page.size(390, 844, mobile=True)
    page.until("innerWidth === 390")
    assert page.run("return document.documentElement.scrollWidth") <= 390
    page.press("t")
    page.click("#next")
    page.until("Math.abs(document.querySelector('#editor').getBoundingClientRect().top) < 50")
    page.until("document.querySelector('#picture').naturalWidth && document.querySelector('#picture').complete")
    page.screenshot("correct-phone")
    for selector in ("button", "select", "canvas", "img", "progress"):
        named = "each.textContent.trim() || each.ariaLabel || each.alt || each.labels?.length"
        named += " || each.ariaLabelledByElements"
        seen = "[...document.querySelectorAll(arguments[0])].filter((each) => each.offsetParent)"
        unnamed = f"{seen}.filter((each) => !({named}))"
        assert page.run(f"return {unnamed}.length", selector) == 0, selector
    assert page.errors() == []


def test_a_wrong_token_shows_nothing(tmp_path: Path, server: Corrector) -> None:
    with opened(tmp_path / "profile", f"{server.site}#{'0' * 64}") as page:
        page.until("document.body.dataset.connection === 'denied'")
        assert "not allowed" in page.text("#connection")
        assert page.run("return document.querySelectorAll('#videos li').length") == 0
        page.driver.get(server.address)
        page.until("document.querySelectorAll('#videos li').length === 4")


def test_an_answer_that_is_older_than_the_last_save_is_not_shown(page: Browser) -> None:
    """The message of an earlier save lets the page ask anew, and a change is saved before that answer comes."""
    found = page.driver.execute_async_script("""
        const done = arguments[0];
        (async () => {
            const {Video} = await import("./video.js");
            const segments = (begin) => [["wipe", 0, 1], ["inspect", begin, 1]];
            const body = (revision, begin) => ({name: "a", revision, segments: segments(begin)});
            const answer = (content) => ({ok: true, status: 200, json: async () => content});
            let late;
            const ask = (path, options) => options ? Promise.resolve(answer(body("3", 9)))
                : new Promise((resolve) => { late = () => resolve(answer(body("2", 5))); });
            const video = new Video(body("2", 5), ask, {changed: () => {}, told: () => {}});
            const reloaded = (video.heard = "1", video.reload());
            video.change([["wipe", 0], ["inspect", 9]]);
            await video.idle();
            late();
            await reloaded;
            done([video.revision, video.segments[1][1], video.unsaved]);
        })();
    """)
    assert found == ["3", 9, False]
