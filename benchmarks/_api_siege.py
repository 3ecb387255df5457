"""Let hostile programs use the HTTP API beside plain ones, which should hardly notice.

Of 16 programs half open a photo and ask for words and a click, again and again; the others send
what is dear or broken: huge images, many prompts, everything as PNG, half requests, dripping ones,
bodies of the fuzz, and leave in between. Prints how long the plain ones waited, what the hostile
ones got, and the server's memory before and a minute after. Run: python -m benchmarks._api_siege
--minutes 5
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import PIL.Image

from app.samples import TEXTS
from benchmarks._app_load import memory
from tests.app.browsing import ROOT, serving
from tests.fuzz.test_fuzz_api import damaged, encoded, question

PROGRAMS, HOSTILE = 16, 8
MEDIAN, WORST = 3.0, 15.0  # s that plain requests may take
GROWN = 0.10  # how much more memory the server may have a minute later
PATIENCE = 120.0  # s
KINDS = {"image": "multipart/form-data; boundary=cut", "json": "application/json"}


@dataclass
class Notes:
    """Count answers: seconds of plain requests, statuses by request, answers that are wrong."""

    plain: list[float] = field(default_factory=list)
    hostile: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=17)
    given = parser.parse_args()
    notes = Notes()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "log", "--api") as address:
        for number in range(len(TEXTS)):  # models are loaded before anything is measured
            plain(address, number, Notes())
        before = memory(address)
        siege(address, given.minutes * 60, given.seed, notes)
        time.sleep(60)
        after = memory(address)
    return report(notes, before, after, given.seed)


def report(notes: Notes, before: int, after: int, seed: int) -> int:
    """Print what happened; 1 where it is not as it should be."""
    median, worst = statistics.median(notes.plain), max(notes.plain)
    print(
        f"seed {seed}; {len(notes.plain)} plain requests: median {median:.2f} s, worst {worst:.2f} "
        "s"
    )
    for name, count in sorted(notes.hostile.items()):
        print(f"  {name}: {count}")
    grown = after / before - 1
    print(
        f"memory {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB a minute after ({grown:+.1%})"
    )
    for what, count in notes.wrong.items():
        print(f"WRONG, {count} times: {what}")
    return int(bool(notes.wrong) or median > MEDIAN or worst > WORST or grown > GROWN)


def siege(address: str, seconds: float, seed: int, notes: Notes) -> None:
    """Let all programs work at once until the time is over."""
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        rng = random.Random(seed * 1000 + number)
        while time.monotonic() < end:
            try:
                if number < HOSTILE:
                    hostile(address, rng, notes)
                else:
                    plain(address, number, notes)
            except (OSError, http.client.HTTPException) as error:
                what = f"{'hostile' if number < HOSTILE else 'plain'}: {type(error).__name__}"
                (notes.hostile if number < HOSTILE else notes.wrong)[what] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(PROGRAMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def plain(address: str, number: int, notes: Notes) -> None:
    """Open a sample and ask about it; note how long each answer took."""
    name, text = list(TEXTS.items())[number % len(TEXTS)]
    start = time.monotonic()
    status, answer = send(
        address, "images", upload((ROOT / "samples" / name).read_bytes()), "image"
    )
    notes.plain.append(time.monotonic() - start)
    if status != 201:
        notes.wrong[f"a plain image: {status}"] += 1
        return
    body = {
        "image": answer["image"],
        "prompts": [{"texts": [text]}, {"points": [{"x": 100, "y": 100}]}],
    }
    start = time.monotonic()
    status, answer = send(address, "segment", json.dumps(body).encode(), "json")
    notes.plain.append(time.monotonic() - start)
    if status != 200:
        notes.wrong[f"a plain question: {status} {str(answer)[:200]}"] += 1


def hostile(address: str, rng: random.Random, notes: Notes) -> None:
    """Do one of the things nobody should."""
    attacks: tuple[Callable[[str, random.Random], str], ...] = (
        huge,
        thin,
        many,
        every,
        fuzz,
        leave,
        drip,
        half,
    )
    attack = rng.choice(attacks)
    result = attack(address, rng)
    notes.hostile[f"{attack.__name__}: {result}"] += 1
    if result.startswith("5") and result != "503":
        notes.wrong[f"{attack.__name__}: {result}"] += 1


def huge(address: str, rng: random.Random) -> str:
    """Send fifty megapixels in a few kilobytes, and ask for all that is in them."""
    pixels = np.full((7000, 7000), rng.randrange(256), np.uint8)
    left = rng.randrange(6000)
    pixels[left : left + 900, :900] = rng.randrange(256)
    status, answer = send(address, "images", upload(encoded(pixels, "PNG")), "image")
    return ask(address, str(answer["image"]), rng) if status == 201 else str(status)


def thin(address: str, rng: random.Random) -> str:
    """Send an image a pixel wide."""
    pixels = np.full((1, rng.randrange(1, 100_000)), 0, np.uint8)
    status, answer = send(address, "images", upload(encoded(pixels, "PNG")), "image")
    return ask(address, str(answer["image"]), rng) if status == 201 else str(status)


def many(address: str, rng: random.Random) -> str:
    """Ask fifty things at once of an image of noise."""
    file = io.BytesIO()
    noise = np.frombuffer(rng.randbytes(300 * 400 * 3), np.uint8).reshape(300, 400, 3)
    PIL.Image.fromarray(noise).resize((1600, 1200)).save(file, "JPEG")
    status, answer = send(address, "images", upload(file.getvalue()), "image")
    if status != 201:
        return str(status)
    prompts = [
        {"texts": [f"{rng.random()} {n}" for n in range(6)], "threshold": 0.0} for _ in range(50)
    ]
    return str(
        send(
            address,
            "segment",
            json.dumps({"image": answer["image"], "prompts": prompts}).encode(),
            "json",
        )[0]
    )


def every(address: str, rng: random.Random) -> str:
    """Ask for every object of a sample as images and outlines, again and again."""
    data = (ROOT / "samples" / rng.choice(list(TEXTS))).read_bytes()
    status, answer = send(address, "images", upload(data), "image")
    return ask(address, str(answer["image"]), rng, prompts=50) if status == 201 else str(status)


def ask(address: str, image: str, rng: random.Random, prompts: int = 2) -> str:
    body = {"image": image, "prompts": [{"everything": True, "threshold": 0.0}] * prompts}
    body["masks"] = rng.choice(("png", "polygon"))
    return str(send(address, "segment", json.dumps(body).encode(), "json")[0])


def fuzz(address: str, rng: random.Random) -> str:
    """Send a body of the fuzz."""
    path, body = question(rng, "0" * 32)
    raw = json.dumps(body).encode()
    return str(send(address, path, damaged(rng, raw) if rng.random() < 0.5 else raw, "json")[0])


def leave(address: str, rng: random.Random) -> str:
    """Ask for much and go at once."""
    data = (ROOT / "samples" / "desk.png").read_bytes()
    status, answer = send(address, "images", upload(data), "image")
    if status == 201:
        body = {"image": answer["image"], "prompts": [{"texts": [str(rng.random())]}] * 50}
        with connection(address) as line:
            line.sendall(head("segment", len(json.dumps(body))) + json.dumps(body).encode())
            time.sleep(rng.random() / 2)
    return "left"


def drip(address: str, rng: random.Random) -> str:
    """Send a byte a second, until the server has enough of it."""
    start = time.monotonic()
    with connection(address) as line:
        line.sendall(head("images", 1_000_000))
        while time.monotonic() - start < PATIENCE:
            line.sendall(b"x")
            line.settimeout(1.0)
            try:
                heard = line.recv(100)
            except TimeoutError:
                continue
            return heard.split()[1].decode() if heard else "dropped"
    return "held"


def half(address: str, rng: random.Random) -> str:
    """Send half a request and go."""
    with connection(address) as line:
        line.sendall(head("images", 1_000_000) + rng.randbytes(rng.randrange(100_000)))
    return "left"


def connection(address: str) -> socket.socket:
    parts = urlsplit(address)
    return socket.create_connection((str(parts.hostname), int(parts.port or 80)), timeout=PATIENCE)


def head(path: str, length: int) -> bytes:
    kind = KINDS["image" if path == "images" else "json"]
    lines = (
        f"POST /api/{path} HTTP/1.1",
        "host: localhost",
        f"content-type: {kind}",
        f"content-length: {length}",
    )
    return "\r\n".join((*lines, "", "")).encode()


def upload(data: bytes) -> bytes:
    line = b'content-disposition: form-data; name="image"; filename="a.png"'
    return b"\r\n".join((b"--cut", line, b"", data, b"--cut--", b""))


def send(address: str, path: str, body: bytes, kind: str) -> tuple[int, dict[str, object]]:
    parts = urlsplit(address)
    line = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=PATIENCE)
    try:
        line.request("POST", f"/api/{path}", body, {"content-type": KINDS[kind]})
        answer = line.getresponse()
        return answer.status, dict(json.loads(answer.read() or b"{}"))
    finally:
        line.close()


if __name__ == "__main__":
    sys.exit(main())
