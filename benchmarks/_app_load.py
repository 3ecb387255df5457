"""Let many people use the app at once: 8 in browsers, then 4 programs over the HTTP API.

Everyone works on an image of their own, and every answer is checked: the image, the place, the
number. Prints what went wrong and the server's memory. Run: python -m benchmarks._app_load
--minutes 10
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import PIL.Image
from playwright.sync_api import sync_playwright

from app.samples import FIRST, TEXTS
from tests.app.browsing import CHROMIUM, FLAGS, ROOT, Person, serving

PEOPLE, PROGRAMS = 8, 4
WARM = 0.3  # share of the time after which memory should stay as it is
FLAT = 0.05  # how much it may still grow


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    seconds = parser.parse_args().minutes * 60
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "log", "--api") as address:
        wrong = people(address, seconds)
        wrong += programs(address, seconds / 2)
    print("\n".join(wrong) or "nothing went wrong")
    return int(bool(wrong))


def people(address: str, seconds: float) -> list[str]:
    """Click and type in browsers."""
    wrong: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        crowd = [Person(browser.new_context().new_page(), address) for _ in range(PEOPLE)]
        names = [list(TEXTS)[number % len(TEXTS)] for number in range(PEOPLE)]
        for person, name in zip(crowd, names, strict=True):
            person.go().ready()
            if name != FIRST:
                person.open(ROOT / "samples" / name)
        start, rounds, warm = time.monotonic(), 0, 0
        while (spent := time.monotonic() - start) < seconds:
            rounds += 1
            for number, (person, name) in enumerate(zip(crowd, names, strict=True)):
                wrong += _one(person, name, number, rounds)
            warm = warm or (memory(address) if spent > WARM * seconds else 0)
        end = memory(address)
        for person in crowd:
            wrong += [
                f"asked of another machine: {url}" for url in person.elsewhere
            ] + person.complaints
        browser.close()
    grown = f"memory {warm / 1e6:.0f} MB warm, {end / 1e6:.0f} MB after"
    print(f"{PEOPLE} browsers, {rounds} rounds in {seconds:.0f} s; {grown}")
    return wrong + (
        [f"memory grew from {warm} to {end}"] if warm and end > warm * (1 + FLAT) else []
    )


def _one(person: Person, name: str, number: int, rounds: int) -> list[str]:
    """Click where nobody else does, look at what comes back, and clear it."""
    x, y = 40 + 30 * number, 50 + 7 * (rounds % 30)
    person.click(x, y)
    ((px, py, _),), _ = person.places()
    wanted = person.expected(x, y, _size(name))
    reports = []
    if abs(px - wanted[0]) > 1 or abs(py - wanted[1]) > 1:
        reports.append(f"person {number} clicked at {wanted}, the answer is about {px, py}")
    if (displayed := person.root.get_attribute("data-image")) != name:
        reports.append(f"person {number} sees {displayed}, not {name}")
    with person.answered():
        person.page.locator("[data-do=clear]").click()
    return reports


def _size(name: str) -> tuple[int, int]:
    with PIL.Image.open(ROOT / "samples" / name) as image:
        return image.size


def programs(address: str, seconds: float) -> list[str]:
    """Ask over HTTP from several programs at once."""
    with ThreadPoolExecutor(PROGRAMS) as crowd:
        reports = list(
            crowd.map(lambda number: list(_program(address, number, seconds)), range(PROGRAMS))
        )
    answers = sum(row.count("ok") for row in reports)
    print(f"{PROGRAMS} programs, {answers} answers in {seconds:.0f} s")
    return [line for row in reports for line in row if line != "ok"]


def _program(address: str, number: int, seconds: float) -> Iterator[str]:
    name, text = list(TEXTS.items())[number]
    data = (ROOT / "samples" / name).read_bytes()
    head = b'content-disposition: form-data; name="image"; filename="a.png"'
    body = b"\r\n".join((b"--cut", head, b"", data, b"--cut--", b""))
    first, start = None, time.monotonic()
    while time.monotonic() - start < seconds:
        try:
            image = send(f"{address}/api/images", body, "multipart/form-data; boundary=cut")[
                "image"
            ]
            ask = {
                "image": image,
                "prompts": [{"texts": [text]}, {"points": [{"x": 100 + number, "y": 100}]}],
            }
            answer = send(f"{address}/api/segment", json.dumps(ask).encode(), "application/json")[
                "answers"
            ]
        except OSError as error:
            yield f"program {number}: {error}"
            continue
        first = first or answer
        yield "ok" if answer == first else f"program {number}: the answer changed"


def send(address: str, body: bytes, kind: str) -> dict[str, object]:
    request = urllib.request.Request(address, body, {"content-type": kind})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return dict(json.load(answer))


def memory(address: str) -> int:
    with urllib.request.urlopen(f"{address}/api/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(
        int(line.split()[1]) for line in lines if line.startswith("process_resident_memory_bytes ")
    )


if __name__ == "__main__":
    sys.exit(main())
