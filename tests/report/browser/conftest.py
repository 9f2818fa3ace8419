"""Chromium, driven without a screen, and the pages that it opens."""

import base64
import io
import json
import time

import numpy as np
import pytest
from matplotlib.image import imread
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.service import Service
from tests.report.pairs import Pair

ARGUMENTS = (
    *("--headless=new", "--no-sandbox", "--window-size=1400,1000", "--force-device-scale-factor=1"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # WebGL 2 without a GPU
)
READY = "return document.body ? document.body.dataset.ready : null"
PATIENCE_S = 60
# the picture as it is drawn, without crosshair and letters
BARE = """
for (const viewer of [left, right]) {
    viewer.opts.isOrientationTextVisible = false;
    viewer.setCrosshairWidth(0);
}
"""
# canvas positions on a lattice over each plane, and the fraction of the volume that is drawn there
PLANES = """
const viewer = {left, right}[arguments[0]];
const tiles = viewer.screenSlices.map((tile, index) => ({tile, index}));
return tiles.filter(({tile}) => tile.axCorSag <= 2).map(({tile, index}) => {
    const [l, t, w, h] = tile.leftTopWidthHeight;
    const points = [];
    for (let y = Math.ceil(t) + 3; y < t + h - 3; y += 7) {
        for (let x = Math.ceil(l) + 3; x < l + w - 3; x += 7) {
            points.push([x, y, ...viewer.screenXY2TextureFrac(x + 0.5, y + 0.5, index, false)]);
        }
    }
    return {plane: tile.axCorSag, points};
});
"""
# drawn, and as large as its place on the page
SETTLED = """
const end = arguments[0];
const fits = (canvas) => canvas.width === canvas.clientWidth && canvas.height === canvas.clientHeight;
const wait = () => fits(left.canvas) && fits(right.canvas) ? requestAnimationFrame(end) : requestAnimationFrame(wait);
requestAnimationFrame(() => requestAnimationFrame(wait));
"""
PIXELS = """
const viewer = {left, right}[arguments[0]];
viewer.drawScene();
return (arguments[1] ? document.getElementById(arguments[0] + "-lines") : viewer.canvas).toDataURL();
"""


class Page:
    """A report in the browser.

    Args:
        driver: of the browser.
        path: of the page.
    """

    def __init__(self, driver, path):
        self.driver = driver
        for kind in ("browser", "performance"):  # of the page before
            driver.get_log(kind)
        driver.get(path.as_uri())
        end = time.monotonic() + PATIENCE_S
        while driver.execute_script(READY) is None and time.monotonic() < end:
            time.sleep(0.02)
        self.ready = driver.execute_script(READY)
        if self.ready not in (None, "failed"):
            driver.execute_script(BARE)
            driver.execute_async_script(SETTLED)

    def press(self, *keys):
        """Press keys one after the other, with nothing but the page focused."""
        self.driver.execute_script("document.activeElement.blur()")
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()
        self.driver.execute_async_script(SETTLED)

    def text(self, name):
        return self.driver.execute_script("return document.getElementById(arguments[0]).textContent", name)

    def planes(self, side="right"):
        """Of each plane: 0 axial, 1 coronal, 2 sagittal; canvas positions (n, 2); fractions of the volume (n, 3)."""
        found = {}
        for plane in self.driver.execute_script(PLANES, side):
            points = np.array(plane["points"])
            found[plane["plane"]] = points[:, :2].astype(int), points[:, 2:]
        return found

    def pixels(self, side="right", lines=False):
        """What a canvas shows: (height, width, 4), 0 to 255."""
        url = self.driver.execute_script(PIXELS, side, lines)
        return picture(base64.b64decode(url.split(",")[1]))

    def shot(self):
        """What the window shows, and where the first image's stage is in it: left, top, width, height."""
        box = self.driver.execute_script(
            "const r = document.querySelector('#left-pane .stage').getBoundingClientRect();"
            "return [r.left, r.top, r.width, r.height];"
        )
        return picture(self.driver.get_screenshot_as_png()), [round(v) for v in box]

    def errors(self):
        return [entry for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def requests(self):
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def picture(png):
    image = np.rint(imread(io.BytesIO(png)) * 255).astype(int)
    return image if image.shape[2] == 4 else np.dstack([image, np.full(image.shape[:2], 255)])


@pytest.fixture(scope="session")
def driver():
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    driver.set_script_timeout(PATIENCE_S)
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def pair():
    return Pair()


@pytest.fixture(scope="session")
def content(pair):
    return pair.content()


@pytest.fixture(scope="session")
def path(pair, tmp_path_factory):
    return pair.write(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def page(driver, path):
    return Page(driver, path)
