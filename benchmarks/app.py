"""Time the app in Chromium, from an input to the new overlay, against rerunning everything.

The other side is a Streamlit page that works as FastSAM's public demo does
(benchmarks/_rerun_page.py), in the same browser, with its models already loaded, on the same
weights. Twice: with the mini weights, and with networks as large as a FastSAM demo's, FastSAM-s and
ViT-B-32, whose weights here are random. The app answers clicks with mini-sam both times. Exits 1
unless the medians with the mini weights are under 200, 150 and 250 ms, and those with the networks
of a demo 10 times faster than the demo. Run: python -m benchmarks.app
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
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import open_clip
import safetensors.torch
import torch
from playwright.sync_api import Locator, Page, sync_playwright

from segclip.encoders import Serving, checkpoints
from segclip.proposers.yolo import quiet, save
from tests.app.browsing import CHROMIUM, FLAGS, ROOT, Person, serving
from tests.networks import random_network, save_checkpoint

T = TypeVar("T")
CLAIMS = {"click": 200.0, "slider": 150.0, "text": 250.0}  # ms
RATIO = 10.0
# about what FastSAM finds in a photograph; random weights find more, and the app looks at all of
# them
MOST = 50
MINI = ROOT / "weights" / "mini"
IMAGE = ROOT / "samples" / "desk.png"
PLACES = [
    (150, 290),
    (420, 330),
    (520, 60),
    (470, 230),
    (600, 170),
    (320, 130),
    (140, 300),
    (430, 340),
    (500, 80),
]
THRESHOLDS = [0.3, 0.45, 0.6, 0.75, 0.9, 0.8, 0.65, 0.5, 0.35]
TEXTS = [
    "coffee",
    "pencil",
    "an open book",
    "a plant",
    "green apple",
    "a mug",
    "a fern",
    "a novel",
    "a crayon",
]

# in the page: the time from an act to the frame after the new overlay was drawn
_TIMED = """
async ([act, value]) => {
  const all = [...document.querySelectorAll("*")];
  const host = all.find((e) => e.shadowRoot?.querySelector(".studio"));
  const root = host.shadowRoot.querySelector(".studio"), view = root.querySelector("canvas.view");
  const drawn = new Promise((done) => {
    const told = () => {
      watch.disconnect();
      requestAnimationFrame(() => done(performance.now()));
    };
    const watch = new MutationObserver(told);
    watch.observe(root, { attributes: true, attributeFilter: ["data-done"] });
  });
  const start = performance.now();
  if (act === "click") {
    const r = view.getBoundingClientRect(), k = r.width / 640;
    const at = { clientX: r.left + value[0] * k, clientY: r.top + value[1] * k };
    const how = { ...at, pointerId: 1, button: 0, bubbles: true };
    view.setPointerCapture = () => {};
    for (const kind of ["pointerdown", "pointerup"])
      view.dispatchEvent(new PointerEvent(kind, how));
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
  const all = [...document.querySelectorAll("*")];
  const host = all.find((e) => e.shadowRoot?.querySelector(".studio"));
  if (host) {
    const root = host.shadowRoot.querySelector(".studio");
    const told = () => {
      watch.disconnect();
      requestAnimationFrame(() => done(performance.now() - start));
    };
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
    """Time both pages on both pairs of networks; return the exit code."""
    if CHROMIUM is None:
        print("Chromium is not installed: apt-get install chromium")
        return 1
    good = True
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for title, networks in (
            ("mini weights", _mini(Path(folder))),
            ("FastSAM-s, ViT-B-32", _large(Path(folder))),
        ):
            with serving(Path(folder) / "app.log", *networks.options) as address:
                ours = _ours(Person(browser.new_page(), address).go().ready())
            with _rerunning(Path(folder) / "peer.log", networks) as address:
                theirs = _theirs(browser.new_page(), address)
            good &= _compare(title, ours, theirs, largest=networks.claims, ratio=networks.ratio)
        browser.close()
    return 0 if good else 1


def _compare(
    title: str,
    ours: dict[str, float],
    theirs: dict[str, float],
    *,
    largest: dict[str, float],
    ratio: float,
) -> bool:
    print(
        f"{title:20}{'segclip app':>14}{'re-running':>14}{'ratio':>8}   (ms, medians of "
        f"{len(PLACES) - 1})"
    )
    good = True
    for name, taken in ours.items():
        times = theirs[name] / taken
        missed = (
            [f"not under {largest[name]:.0f} ms"]
            if taken >= largest.get(name, float("inf"))
            else []
        )
        if times < ratio:
            missed.append(f"not {ratio:.0f} times faster")
        good &= not missed
        print(
            f"{name:20}{taken:14.0f}{theirs[name]:14.0f}{times:8.1f}   {', '.join(missed) or 'ok'}"
        )
    return good


@dataclass(frozen=True)
class _Networks:
    """Hold the demo's checkpoint and CLIP, the app's options, and what is claimed."""

    proposer: Path
    encoder: Path
    options: tuple[str, ...] = ()
    claims: dict[str, float] = field(default_factory=dict)
    ratio: float = 1.0
    most: int = 300


def _mini(folder: Path) -> _Networks:
    network = _network("yolov8n-seg.yaml")
    network.load_state_dict(safetensors.torch.load_file(MINI / "proposer" / "model.safetensors"))
    return _Networks(
        save_checkpoint(network, folder / "FastSAM-n.pt"), MINI / "clip", claims=CLAIMS
    )


def _large(folder: Path) -> _Networks:
    network = random_network("yolov8s-seg.yaml", candidates=2, size=1024)
    network.names = {0: "object"}
    config = {"image_size": 1024, "confidence": 0.25, "iou": 0.7}
    save(network, folder / "FastSAM-s", config)
    torch.manual_seed(0)
    clip, described = open_clip.create_model("ViT-B-32"), open_clip.get_model_config("ViT-B-32")
    preprocess = dict(open_clip.get_model_preprocess_cfg(clip))
    checkpoints.save(
        clip, folder / "clip", model_cfg=described, preprocess_cfg=preprocess, serving=Serving()
    )
    options = ("--preset", f"file:{folder / 'FastSAM-s'}", "--encoder", f"file:{folder / 'clip'}")
    return _Networks(
        save_checkpoint(network, folder / "FastSAM-s.pt"),
        folder / "clip",
        options,
        ratio=RATIO,
        most=MOST,
    )


def _network(architecture: str) -> Any:
    with quiet():
        from ultralytics.nn.tasks import SegmentationModel

        network = SegmentationModel(architecture, nc=1, verbose=False)
    network.names, network.task = {0: "object"}, "segment"
    return network


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

    words = page.get_by_label("What to cut out")
    return {
        "click": _middle(place, PLACES),
        "slider": _middle(lambda value: timed("slider", value), THRESHOLDS),
        "text": _middle(lambda text: _submit(page, words, text), TEXTS),
    }


def _theirs(page: Page, address: str) -> dict[str, float]:
    page.set_default_timeout(120_000)
    page.goto(address)
    field = page.get_by_label("Ask")
    field.wait_for()
    return {
        "click": _middle(lambda at: _submit(page, field, f"{at[0]},{at[1]}"), PLACES),
        "slider": _middle(lambda value: _submit(page, field, f"red apple @ {value}"), THRESHOLDS),
        "text": _middle(lambda text: _submit(page, field, text), TEXTS),
    }


def _submit(page: Page, field: Locator, text: str) -> float:
    field.fill(text)
    page.wait_for_timeout(100)
    taken = float(page.evaluate(_TEXT, [text]))
    page.wait_for_timeout(200)
    return taken


def _middle(time_one: Callable[[T], float], values: Sequence[T]) -> float:
    """Give the median, the first left out: it loads and warms."""
    return median([time_one(value) for value in values][1:])


@contextmanager
def _rerunning(log: Path, networks: _Networks) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = ROOT / "benchmarks" / "_rerun_page.py"
    flags = [f"--server.port={port}", "--server.address=127.0.0.1", "--server.headless=true"]
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        str(script),
        *flags,
        "--browser.gatherUsageStats=false",
    ]
    variables = {
        "IMAGE": IMAGE,
        "PROPOSER": networks.proposer,
        "ENCODER": networks.encoder,
        "MOST": networks.most,
    }
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        **{name: str(value) for name, value in variables.items()},
    }
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
