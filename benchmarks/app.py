"""Time the app in real Chromium, from a click, a slider or a text to the new overlay, against re-running everything.

The other side is a Streamlit page as public FastSAM demos are written (benchmarks/_rerun_page.py), in the same browser,
with the same models already loaded. Exits 1 unless the medians are under 200, 150 and 250 ms and 10 times faster.
Run: python -m benchmarks.app
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TypeVar

from playwright.sync_api import Locator, Page, sync_playwright

from tests.app.browsing import CHROMIUM, FLAGS, ROOT, Person, serving

T = TypeVar("T")
CLAIMS = {"click": 200.0, "slider": 150.0, "text": 250.0}  # ms
RATIO = 10.0
PICTURE = ROOT / "samples" / "desk.png"
PLACES = [(150, 290), (420, 330), (520, 60), (470, 230), (600, 170), (320, 130), (140, 300), (430, 340), (500, 80)]
THRESHOLDS = [0.3, 0.45, 0.6, 0.75, 0.9, 0.8, 0.65, 0.5, 0.35]
TEXTS = ["coffee", "pencil", "an open book", "a plant", "green apple", "a mug", "a fern", "a novel", "a crayon"]

# in the page: the time from an act to the frame after the new overlay was drawn
_TIMED = """
async ([act, value]) => {
  const host = [...document.querySelectorAll("*")].find((e) => e.shadowRoot?.querySelector(".studio"));
  const root = host.shadowRoot.querySelector(".studio"), view = root.querySelector("canvas.view");
  const drawn = new Promise((done) => {
    const told = () => { watch.disconnect(); requestAnimationFrame(() => done(performance.now())); };
    const watch = new MutationObserver(told);
    watch.observe(root, { attributes: true, attributeFilter: ["data-done"] });
  });
  const start = performance.now();
  if (act === "click") {
    const r = view.getBoundingClientRect(), k = r.width / 640;
    const at = { clientX: r.left + value[0] * k, clientY: r.top + value[1] * k };
    const how = { ...at, pointerId: 1, button: 0, bubbles: true };
    view.setPointerCapture = () => {};
    for (const kind of ["pointerdown", "pointerup"]) view.dispatchEvent(new PointerEvent(kind, how));
  } else {
    const slider = root.querySelector(".threshold");
    slider.value = value;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  }
  return (await drawn) - start;
}
"""
_TEXT = """
([wanted]) => new Promise((done) => {
  const start = performance.now();
  const host = [...document.querySelectorAll("*")].find((e) => e.shadowRoot?.querySelector(".studio"));
  if (host) {
    const root = host.shadowRoot.querySelector(".studio");
    const told = () => { watch.disconnect(); requestAnimationFrame(() => done(performance.now() - start)); };
    const watch = new MutationObserver(told);
    watch.observe(root, { attributes: true, attributeFilter: ["data-answer"] });
  } else {
    const shown = () => document.querySelector("#shown")?.textContent === wanted;
    const tick = () => shown() ? done(performance.now() - start) : requestAnimationFrame(tick);
    tick();
  }
  const field = document.querySelector("input[type=text]");
  field.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
})
"""


def main() -> int:
    if CHROMIUM is None:
        print("Chromium is not installed: apt-get install chromium")
        return 1
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with serving(Path(folder) / "app.log") as address:
            ours = _ours(Person(browser.new_page(), address).go().ready())
        with _rerunning(Path(folder) / "peer.log") as address:
            theirs = _theirs(browser.new_page(), address)
        browser.close()
    good = True
    print(f"{'':8}{'segclip app':>14}{'re-running':>14}{'ratio':>8}   (ms, medians of {len(PLACES) - 1})")
    for name, claim in CLAIMS.items():
        ratio = theirs[name] / ours[name]
        kept = ours[name] < claim and ratio >= RATIO
        good &= kept
        verdict = "ok" if kept else f"not under {claim:.0f} ms and {RATIO:.0f} times"
        print(f"{name:8}{ours[name]:14.0f}{theirs[name]:14.0f}{ratio:8.1f}   {verdict}")
    return 0 if good else 1


def _ours(person: Person) -> dict[str, float]:
    page = person.page

    def timed(act: str, value: object) -> float:
        taken = float(page.evaluate(_TIMED, [act, value]))
        person.ready()
        page.wait_for_timeout(200)  # both sides are asked when they are at rest
        return taken

    def place(at: tuple[int, int]) -> float:
        taken = timed("click", at)
        with person.answered():
            page.locator("[data-do=clear]").click()
        return taken

    return {
        "click": _middle(place, PLACES),
        "slider": _middle(lambda value: timed("slider", value), THRESHOLDS),
        "text": _middle(lambda text: _say(page, page.get_by_label("What to cut out"), text), TEXTS),
    }


def _theirs(page: Page, address: str) -> dict[str, float]:
    page.set_default_timeout(120_000)
    page.goto(address)
    field = page.get_by_label("Ask")
    field.wait_for()
    return {
        "click": _middle(lambda at: _say(page, field, f"{at[0]},{at[1]}"), PLACES),
        "slider": _middle(lambda value: _say(page, field, f"red apple @ {value}"), THRESHOLDS),
        "text": _middle(lambda text: _say(page, field, text), TEXTS),
    }


def _say(page: Page, field: Locator, text: str) -> float:
    field.fill(text)
    page.wait_for_timeout(100)
    taken = float(page.evaluate(_TEXT, [text]))
    page.wait_for_timeout(200)
    return taken


def _middle(time_one: Callable[[T], float], values: Sequence[T]) -> float:
    """Give the median, the first left out: it loads and warms."""
    return median([time_one(value) for value in values][1:])


@contextmanager
def _rerunning(log: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = ROOT / "benchmarks" / "_rerun_page.py"
    flags = [f"--server.port={port}", "--server.address=127.0.0.1", "--server.headless=true"]
    command = [sys.executable, "-m", "streamlit", "run", str(script), *flags, "--browser.gatherUsageStats=false"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PICTURE": str(PICTURE)}
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1):
                    break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    sys.exit(main())
