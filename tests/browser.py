"""A real Chromium without a window, and what tests look at in it."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from selenium import webdriver
from selenium.common.exceptions import ElementClickInterceptedException, TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from npm import package

PATIENCE = 30.0
AXE_VERSION = "4.14.1"
# It loads nothing but the page: no update, no account, no first run.
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


class Browser:
    """One tab."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def look(self, *, is_dark: bool = False, width: int = 1280, height: int = 900, is_still: bool = False) -> None:
        """Choose the theme, the size of the window, and whether its reader wants no motion."""
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if is_still else "no-preference"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def open(self, url: str) -> None:
        """Go to an address, with nothing said on the console yet."""
        self.driver.get("about:blank")
        self.console()
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page."""
        return self.driver.execute_script(script, *arguments)

    def console(self) -> List[str]:
        """What the console was told since it was last asked: errors, refusals of the content policy, everything."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]

    def text(self, selector: str = "body") -> str:
        """What a reader sees of an element."""
        return self.driver.find_element(By.CSS_SELECTOR, selector).text

    def until(self, selector: str, *words: str) -> str:
        """Wait until an element shows some words; return its text."""
        seen = ""

        def shows(driver: Any) -> bool:
            nonlocal seen
            seen = " ".join(self.text(selector).split())
            return all(word in seen for word in words)

        try:
            WebDriverWait(self.driver, PATIENCE, 0.05, [Exception]).until(shows)
        except TimeoutException:
            raise AssertionError(f"{selector} never shows {words}, but {seen!r}; console: {self.console()}") from None
        return seen

    def click(self, selector: str) -> None:
        """Click an element; again, when the page grew above it and it moved away meanwhile."""

        def clicks(driver: Any) -> bool:
            found = driver.find_element(By.CSS_SELECTOR, selector)
            self.run("arguments[0].scrollIntoView({ behavior: 'instant', block: 'center' })", found)
            found.click()
            return True

        WebDriverWait(self.driver, PATIENCE, 0.05, [ElementClickInterceptedException]).until(clicks)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def tab(self) -> Dict[str, Any]:
        """Press Tab; return what has the focus then, and how it is seen."""
        self.press(Keys.TAB)
        found: Dict[str, Any] = self.run(FOCUS)
        return found

    def shot(self, path: Path) -> None:
        """Keep a picture."""
        self.driver.save_screenshot(str(path))

    def violations(self) -> List[str]:
        """What the accessibility checker axe has against the page."""
        _program("npm")
        axe = package("axe-core", AXE_VERSION) / "node_modules" / "axe-core" / "axe.min.js"
        self.run(axe.read_text(encoding="utf-8"))
        found = self.driver.execute_async_script("axe.run(document).then(arguments[0])")
        assert len(found["passes"]) > 15
        return [f"{item['id']}: {node['html'][:200]}" for item in found["violations"] for node in item["nodes"]]


FOCUS = """
const node = document.activeElement, shown = node.matches(".choice input") ? node.nextElementSibling : node;
const style = getComputedStyle(shown), box = shown.getBoundingClientRect();
return {
  name: node === document.body ? "" : node.id || node.textContent.trim(),
  isMarked: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
  isSeen: box.width > 0 && box.height > 0 && box.top >= 0 && box.bottom <= innerHeight,
};
"""


def _program(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        words = f"no {names[0]} is installed (Debian: apt-get install chromium chromium-driver npm)"
        assert not os.environ.get("CI"), words
        pytest.skip(words)
    return found


@contextmanager
def running_browser(folder: Path) -> Iterator[Browser]:
    """Start a browser with a fresh profile."""
    options = webdriver.ChromeOptions()
    options.binary_location = _program("chromium", "chromium-browser", "google-chrome")
    for option in (*OPTIONS, f"--user-data-dir={folder}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_program("chromedriver")))
    driver.set_page_load_timeout(PATIENCE)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
