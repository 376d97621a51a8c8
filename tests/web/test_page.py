"""The page of `edge-hal view` in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="needs the extra web")
pytest.importorskip("wsproto", reason="needs the extra web")

from edge_hal.workbench.dataset import video_session
from edge_hal.workbench.render import iter_frames
from tests.helpers.browser import Browser, opened
from tests.helpers.made_up_shift import STEPS, Bench, store
from tests.helpers.viewer import Viewer

pytestmark = pytest.mark.slow

TRANSITIONS = 3000
LIGHTEST = 300_000


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path / "j1", transitions=60) as bench:
        yield bench


@pytest.fixture
def viewer(tmp_path: Path, bench: Bench) -> Iterator[Viewer]:
    with Viewer(tmp_path, "--connect", bench.endpoint) as viewer:
        viewer.heard_of("bench-1")
        yield viewer


@pytest.fixture
def page(tmp_path: Path, viewer: Viewer) -> Iterator[Browser]:
    with opened(tmp_path / "profile", viewer.address) as browser:
        browser.until("text('.state') === 'live'")
        yield browser


def begin_pass(bench: Bench) -> None:
    """A pass whose third step was left out."""
    for command in ("transition place_base", "transition insert_gear", "transition fit_cover", "skipped grease_gear"):
        bench.tell(command)
    bench.tell("now fit_cover 0.88")


def test_what_happens_is_shown_at_once(page: Browser, bench: Bench, viewer: Viewer) -> None:
    bench.tell("transition place_base")
    bench.tell("now place_base 0.91")
    page.until("text('.step') === 'place base' && text('.probability') === '91\\u00a0%'")
    assert (
        page.text(".next")
        .replace("\u00a0", " ")
        .startswith("next: insert gear (90 %) or grease gear (10 %), in about ")
    )
    assert page.text(".procedure .now") == "▶place base: now"
    bench.tell("transition insert_gear")
    bench.tell("now insert_gear 0.8")
    page.until("text('.procedure .done') === '✓place base: done'")
    bench.tell("transition fit_cover")
    bench.tell("now fit_cover 0.6")
    bench.tell("skipped grease_gear")
    page.until("text('.alert strong') === 'skipped: grease gear'")  # that of the pass before may be shown until then
    assert "97 % of the passes" in page.text(".alert .why")
    assert page.text(".procedure .missing") == "!grease gear: missing"
    assert page.text("#told").startswith("bench-1: skipped: grease gear")
    for step in STEPS[4:]:
        bench.tell(f"transition {step}")
    before = page.text(".cycles .count")
    bench.tell("transition place_base")
    page.until(f"text('.cycles .count') !== '{before}'")
    assert "missing: grease gear; skipped" in page.text(".cycles tbody tr")
    assert page.text(".alert strong") == "last pass: skipped: grease gear"
    page.until("text('.health dl').includes('863994 captured')")
    assert page.text(".health .count") == "(good)"
    assert page.errors() == []
    hosts = {urlsplit(address).netloc for address in page.requests()}
    assert hosts == {f"127.0.0.1:{viewer.port}"}
    weight = page.run(
        "return performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))"
        ".reduce((sum, each) => sum + each.transferSize, 0)"
    )
    assert 10_000 < weight < LIGHTEST
    assert viewer.token not in page.driver.current_url


def test_a_pass_that_goes_on_over_a_pause_shows_what_was_done_before_it(page: Browser, bench: Bench) -> None:
    begin_pass(bench)
    page.until("document.querySelectorAll('.procedure .done').length === 2")
    bench.tell("gap place_base insert_gear fit_cover")
    page.until("document.querySelectorAll('.procedure .done').length === 3")
    bench.tell("transition inspect")
    bench.tell("now inspect 0.9")
    page.until("text('.procedure .now').includes('inspect')")
    assert page.run("return document.querySelectorAll('.procedure .done').length") == 3
    bench.tell("transition place_base")
    bench.tell("now place_base 0.9")
    page.until("document.querySelectorAll('.procedure .done').length === 0")


def test_the_page_connects_again_after_the_run_and_after_the_server(
    page: Browser, bench: Bench, viewer: Viewer, tmp_path: Path
) -> None:
    bench.tell("transition inspect")
    page.until("text('.step') === 'inspect'")
    bench.kill()
    page.until("document.querySelector('.stale') && text('.state').startsWith('no news for')")
    page.screenshot("view-stale")
    with Bench(tmp_path / "j1", transitions=0) as again:
        page.until("!document.querySelector('.stale') && text('.state') === 'live'")
        again.tell("transition place_base")
        page.until("text('.step') === 'place base'")
        assert page.errors() == []
        viewer.process.kill()
        viewer.process.wait()
        page.until("document.body.dataset.connection === 'lost' && document.querySelector('.stale')")
        assert page.text(".state") == "not connected: what is shown is old"
        again.tell("transition insert_gear")
        with Viewer(tmp_path, "--connect", again.endpoint, "--port", str(viewer.port)):
            page.until("document.body.dataset.connection === 'connected' && text('.step') === 'insert gear'")
            again.tell("transition grease_gear")
            page.until("text('.step') === 'grease gear'")
            # The server has told the past again, from its begin: once each, and in order.
            page.press("1", "a")
            page.until("Number(document.querySelector('section').dataset.events) > 60")
            seq, events = page.run(
                "const {seq, events} = document.querySelector('section').dataset; return [+seq, +events]"
            )
            assert events == seq + 1
            begins = page.run(
                "return [...document.querySelectorAll('.cycles tbody td:first-child')].map((each) => each.title)"
            )
            assert len(begins) > 5 and begins == sorted(set(begins), reverse=True)


def test_eight_hours_are_scrolled_and_zoomed(tmp_path: Path) -> None:
    store(tmp_path / "j1", "bench-1", TRANSITIONS)
    with (
        Viewer(tmp_path, "--journal", tmp_path / "j1") as viewer,
        opened(tmp_path / "profile", viewer.address, (1280, 620)) as page,
    ):
        page.until(
            "text('.state') === 'from the journal, no run' && document.querySelector('section').dataset.events > 0"
        )
        loaded = page.run("return Number(document.querySelector('section').dataset.events)")
        assert loaded < TRANSITIONS  # a part, until more is looked at
        page.press("1")  # the timeline of the first stream
        page.press("a")
        page.until(f"document.querySelector('section').dataset.events >= {TRANSITIONS}")
        page.until("/[78] h/.test(text('.range'))")
        assert colours(page) > 6
        page.run("document.querySelector('.timeline').scrollIntoView()")
        whole = page.text(".range")
        page.press(*"+++++++")
        page.until(f"text('.range') !== '{whole}'")
        zoomed = page.text(".range")
        page.press("\ue012")  # left
        page.until(f"text('.range') !== '{zoomed}'")
        page.press("\ue011")  # Home
        page.until("text('.range').length > 0")
        first = page.text(".range")
        page.press("\ue013")  # up: the newest step
        page.until("text('.detail').includes('confidence')")
        assert any(page.text(".detail").startswith(step.replace("_", " ")) for step in STEPS)
        page.until(f"text('.range') !== '{first}'")  # it has come into sight
        newest = page.text(".detail")
        page.press("\ue013")
        page.until(f"text('.detail') !== {newest!r}")
        page.press("\ue010")  # End
        page.until("text('.range').includes('to now')")
        assert page.errors() == []


def colours(page: Browser) -> int:
    """How many colours the timeline shows."""
    script = """
        const canvas = document.querySelector("canvas"), pen = canvas.getContext("2d");
        return new Set(new Uint32Array(pen.getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size;
    """
    return int(page.run(script))


def test_two_streams_are_shown_beside_each_other(tmp_path: Path) -> None:
    with (
        Bench(tmp_path / "j2", "bench-2", 40) as second,
        Bench(tmp_path / "j1", "bench-1", 40) as first,
        Viewer(tmp_path, "--connect", second.endpoint, "--connect", first.endpoint) as viewer,
    ):
        viewer.heard_of("bench-1", "bench-2")
        with opened(tmp_path / "profile", viewer.address, (1400, 1000)) as page:
            page.until("document.querySelectorAll('section').length === 2")
            begin_pass(first)
            for command in ("transition place_base", "transition insert_gear", "now insert_gear 0.97"):
                second.tell(command)
            page.until("text('section:nth-of-type(1) .step') === 'fit cover'")
            page.until("text('section:nth-of-type(2) .step') === 'insert gear'")
            assert page.text("section:nth-of-type(1) .name") == "bench-1"
            assert page.run("return document.documentElement.scrollWidth - innerWidth") <= 0
            assert page.run("return document.querySelector('section:nth-of-type(2) .alert').hidden")
            page.press("2")
            focused = "document.activeElement.closest('section').dataset.stream"
            assert page.run(f"return {focused}") == "bench-2"
            page.run("document.activeElement.blur(); scrollTo(0, 0)")
            page.screenshot("view-two")
            second.kill()
            page.until("document.querySelector('section:nth-of-type(2)').classList.contains('stale')")
            assert not page.run("return document.querySelector('section:nth-of-type(1)').classList.contains('stale')")
            assert page.errors() == []


def test_a_phone_shows_everything_within_its_width(page: Browser, bench: Bench) -> None:
    begin_pass(bench)
    page.size(390, 844, mobile=True)
    page.until("text('.step') === 'fit cover' && innerWidth === 390")
    assert page.run("return document.documentElement.scrollWidth") <= 390
    page.screenshot("view-phone")
    page.press("o")
    page.until("document.body.classList.contains('operator')")
    assert page.run("return document.documentElement.scrollWidth") <= 390


def test_the_operators_mode_shows_step_next_step_and_deviation(page: Browser, bench: Bench) -> None:
    begin_pass(bench)
    page.size(1280, 720)
    page.until("!document.querySelector('.alert').hidden && text('.step') === 'fit cover'")
    page.press("o", "t")
    shown = "Boolean(document.querySelector(arguments[0]).offsetParent)"
    hidden = (".procedure", ".timeline", ".lists", ".belief", ".final", "#theme")
    for selector, wanted in {".step": True, ".first": True, ".alert": True, **dict.fromkeys(hidden, False)}.items():
        assert page.run(f"return {shown}", selector) == wanted, selector
    assert page.run("return document.documentElement.scrollHeight <= innerHeight")
    assert page.run("return parseFloat(getComputedStyle(document.querySelector('.step')).fontSize)") > 100
    page.screenshot("view-operator")
    page.driver.refresh()  # the token and the mode are kept
    page.until("document.body.classList.contains('operator') && text('.state') === 'live'")


def test_the_picture_of_a_stream_is_shown(tmp_path: Path) -> None:
    picture = next(iter_frames(*video_session(0, 3), width=640, height=480))
    np.save(tmp_path / "picture.npy", picture)
    with (
        Bench(tmp_path / "j1", transitions=60, preview=f"ipc://{tmp_path}/p") as bench,
        Viewer(tmp_path, "--connect", bench.endpoint) as viewer,
        opened(tmp_path / "profile", viewer.address, (1280, 1060)) as page,
    ):
        begin_pass(bench)
        bench.tell(f"picture {tmp_path}/picture.npy")
        page.until("document.querySelector('.picture')?.naturalWidth === 640")
        page.until("text('.step') === 'fit cover' && !document.querySelector('.alert').hidden")
        assert page.run("return document.querySelector('.picture').alt") == "picture of bench-1"
        page.until("document.querySelector('section').dataset.events > 60 && text('.health .count') === '(good)'")
        page.screenshot("view")
        page.press("o")
        page.until("!document.querySelector('.picture').offsetParent")
        assert page.errors() == []


def test_a_wrong_token_shows_nothing(tmp_path: Path, viewer: Viewer) -> None:
    with opened(tmp_path / "profile", f"{viewer.site}#{'0' * 64}") as page:
        page.until("document.body.dataset.connection === 'denied'")
        assert "not allowed" in page.text("#connection")
        assert page.run("return document.querySelectorAll('section').length") == 0
        page.driver.get(viewer.address)  # the same page with another fragment: nothing is loaded anew
        page.until("text('.state') === 'live'")


def test_after_another_token_pictures_are_asked_for_with_it(tmp_path: Path) -> None:
    np.save(tmp_path / "picture.npy", np.full((48, 64, 3), 99, np.uint8))
    with (
        Bench(tmp_path / "j1", preview=f"ipc://{tmp_path}/p") as bench,
        Viewer(tmp_path, "--connect", bench.endpoint) as viewer,
        opened(tmp_path / "profile", f"{viewer.site}#{'0' * 64}") as page,
    ):
        page.until("document.body.dataset.connection === 'denied'")
        page.driver.get(viewer.address)
        page.until("text('.state') === 'live'")
        bench.tell(f"picture {tmp_path}/picture.npy")
        page.until("document.querySelector('.picture')?.naturalWidth === 64")


def test_a_trouble_is_shown_in_the_header_until_it_is_over(tmp_path: Path) -> None:
    with (
        Bench(tmp_path / "j1") as one,
        Bench(tmp_path / "j2") as other,
        Viewer(tmp_path, "--connect", one.endpoint, "--connect", other.endpoint) as viewer,
        opened(tmp_path / "profile", viewer.address) as page,
    ):
        page.until("document.body.dataset.connection === 'trouble'")
        why = page.text("#connection")
        assert "'bench-1' is published at" in why
        refused = other if f"and {other.endpoint}:" in why else one
        refused.kill()
        page.until("document.body.dataset.connection === 'connected'")
        assert page.text("#connection") == "connected" and page.errors() == []


def test_names_from_events_are_text_and_nothing_else(page: Browser, bench: Bench) -> None:
    bench.tell("transition <img/src=x/onerror=document.title='broken'>")
    page.until("text('.step').startsWith('<img/src')")
    assert page.run("return document.querySelectorAll('main img:not(.picture, .playback img)').length") == 0
    assert page.driver.title == "edge-hal" and page.errors() == []


def test_a_stream_that_cannot_be_shown_holds_up_no_other(page: Browser, bench: Bench) -> None:
    spoil = "const section = document.querySelector('section'); section.querySelector('.step').remove();"
    page.run(spoil)  # whatever it is that fails
    page.until("text('.state').startsWith('cannot be shown') && document.querySelector('.stale')")
    bench.tell("transition inspect")
    page.press("?")
    page.until("document.getElementById('help').open")
    assert page.errors() != []


def test_a_burst_of_events_is_shown_to_its_end(page: Browser, bench: Bench) -> None:
    bench.tell("burst 6000")
    bench.tell("transition inspect")
    page.until("text('.step') === 'inspect'")
    bench.tell("now inspect 0.99")
    page.until("text('.probability') === '99\\u00a0%'")
    page.press("?")
    page.until("document.getElementById('help').open")


def test_what_is_not_text_has_a_name_for_screen_readers(page: Browser, bench: Bench) -> None:
    begin_pass(bench)
    page.until("text('.probability') === '88\\u00a0%'")
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    found = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]]
    nameless = [
        role
        for role, name in found
        if role in {"button", "img", "image", "meter", "application", "region"} and not name
    ]
    assert nameless == []
    assert ("application", "timeline: arrow keys scroll and select, plus and minus zoom") in found
    assert {"meter", "status"} <= {role for role, _ in found}


def test_times_begin_with_the_first_frame_and_not_with_the_start_of_the_run(page: Browser) -> None:
    found = page.run(
        """
        return (async () => {
            const {Stream} = await import("./store.js");
            const at = (t_s) => ({tick: 10 * t_s, frame: 10 * t_s, t_ns: t_s * 1e9});
            const run = (session, utc_s) => ({session, journal: "j", utc_ns: utc_s * 1e9});
            const step = (seq, from, to, t_s, told) => ({type: "transition", seq, epoch: 0, from, to, boundary: at(t_s),
                decision: at(t_s + 1), confidence: 0.9, warm: true, run: told});
            const start = (seq, told) => ({type: "start", seq, epoch: 0, labels: ["A", "B"], resumed: null, run: told});
            const stream = new Stream("x");
            for (const event of [
                start(0, run("camera", 1000)),  // it opens after 15 s
                step(1, null, "A", 0, run("camera", 1016)), step(2, "A", "B", 5, run("camera", 1021)),
                start(3, run("file", 2000)),  // it is read at full pace
                step(4, null, "A", 0, run("file", 2000)), step(5, "A", "B", 500, run("file", 2001)),
            ]) stream.add(event);
            stream.derive();
            return [stream.starts.map((each) => each.at / 1000), stream.segments.map((each) => each.begin / 1000)];
        })();
        """
    )
    assert found == [[1000, 2000], [1015, 1020, 2000, 2500]]
