"""A headless Chromium, as Debian packages it, driven through its own driver."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)
WAIT_S = 60.0
SCREENSHOTS = os.environ.get("EDGE_HAL_SCREENSHOTS")
"""A folder for the pictures of the documents: EDGE_HAL_SCREENSHOTS=docs/images pytest -m slow tests/web/test_page.py"""


@contextmanager
def opened(profile: Path, address: str, size: tuple[int, int] = (1280, 900)) -> Iterator[Browser]:
    """Skips the test where Chromium, its driver or selenium is not installed."""
    for program in (CHROMIUM, DRIVER):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        browser = Browser(driver)
        browser.size(*size)
        driver.get(address)
        yield browser
    finally:
        driver.quit()


class Browser:
    """One tab."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def size(self, width: int, height: int, mobile: bool = False) -> None:
        """Of the page, in pixels of the style sheet."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, condition: str) -> Any:
        """Wait until a JavaScript expression is true; its value. `text(SELECTOR)` is the text of an element."""
        text = "const text = (selector) => document.querySelector(selector)?.textContent ?? '';"
        script = f"""
            {text}
            const done = arguments[arguments.length - 1];
            const look = () => {{
                const found = {condition};
                if (found) done(found); else requestAnimationFrame(look);
            }};
            look();
        """
        self.driver.set_script_timeout(WAIT_S)
        return self.driver.execute_async_script(script)

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def press_with(self, modifier: str, key: str) -> None:
        """A key while a modifier is held."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).key_down(modifier).send_keys(key).key_up(modifier).perform()

    def click(self, selector: str) -> None:
        self.driver.find_element("css selector", selector).click()

    def errors(self) -> list[str]:
        """What the console has shown since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that were asked for since the last call, WebSockets included."""
        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
            elif message["method"] == "Network.webSocketCreated":
                found.append(message["params"]["url"])
        return [address for address in found if address.startswith(("http", "ws", "ftp"))]  # not chrome:, blob:

    def screenshot(self, name: str) -> None:
        if SCREENSHOTS is not None:
            how = {"format": "webp", "quality": 88}
            data = self.driver.execute_cdp_cmd("Page.captureScreenshot", how)["data"]
            Path(SCREENSHOTS, f"{name}.webp").write_bytes(base64.b64decode(data))
