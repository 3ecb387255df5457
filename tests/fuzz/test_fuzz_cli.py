"""Random command lines, made of what the commands declare: each ends in plain words and touches its
OUT only.

SEGCLIP_FUZZ_EXAMPLES says how many are tried, SEGCLIP_FUZZ_SEED from which seed on; a failure names
its own.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import pickle
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import PIL.Image
import pytest
import typer
from typer.models import ArgumentInfo
from typer.testing import CliRunner

from segclip import loading
from segclip.cli import evaluate, weights
from segclip.cli import main as cli
from segclip.errors import WeightsMissing
from segclip.files import lines
from tests import batch_script, search_script
from tests.expressions import ref
from tests.fakes import FakeEncoder, FakeProposer, paint

EXAMPLES = int(os.environ.get("SEGCLIP_FUZZ_EXAMPLES", "60"))
SEED = int(os.environ.get("SEGCLIP_FUZZ_SEED", "17"))
LONGEST = 60  # s for one command line
LEFT_OUT = {
    "--workers",
    "--runner",
    "--address",
    "--gpus",
}  # processes and clusters have tests of their own

NUMBERS = (
    "0",
    "1",
    "2",
    "9",
    "-1",
    "0.5",
    "1e3",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "1e-999",
    "9" * 30,
    "-" + "9" * 30,
    "9" * 5000,
    "",
    " ",
    "x",
    "１２",
    "1_0",
    "0x10",
    "1,2",
    "None",
    "2147483647",
    "2147483648",
    "-0.0",
)
TEXTS = (
    "red",
    "a blue box",
    "the left red box",
    "red right of the green box",
    "second from the right",
    "",
    " ",
    "\t",
    "\x1b[31m",
    "x" * 2000,
    "🦁",
    "a\nb",
    "\udcff",
    "--",
    "-",
    "-x",
    "a;b",
    "a,b",
    "red.png",
    "{}",
    "%s",
    "imagenet",
    "imagnet",
    "\u202e",
)
PLACES = (
    "20,20",
    "20,20,0",
    "10,10,50,50",
    "0,0,160,120",
    "50,50,10,10",
    "500,500",
    "-1,-1",
    "nan,1",
    "1e39,2,3,4",
    "1e400,1",
    "1,2,3",
    ",",
    "",
    "a,b",
    "20,20,2",
    "9" * 400 + ",1",
    "10.5,10.5,11,11",
    "0,0,0,0",
)
PATHS = (
    "in/pics",
    "in/pics/a.png",
    "in/pics/b.png",
    "in/pics/sub/a.png",
    "in/odd/empty.png",
    "in/odd/text.png",
    "in/odd/pipe.png",
    "in/odd/\x1b[2J.png",
    "in/odd/\udcff.png",
    "in/pics/*.png",
    "in/odd",
    "in/coco",
    "in/texts.txt",
    "in/labels.bin",
    "in/t.csv",
    "in/bad.csv",
    "in/t.jsonl",
    "in/bad.jsonl",
    "in/deep.json",
    "in/captions.csv",
    "in/pipe",
    "in/gone",
    "/dev/null",
    "/dev/zero",
    "",
    ".",
    "in",
    "x" * 300,
    "in/pics/a.png/deeper",
    "-",
    "http://example.invalid/a.png",
    "file:in",
    "~",
)
OUTS = (
    "out",
    "out/new",
    "out/b.png",
    "out/c.csv",
    "out/full",
    "in/pics/a.png",
    "in/pics/a.png/deeper",
    "out/full/x",
)
NAMES = (
    "mini",
    "mini-sam",
    "photo",
    "fake",
    "maxi",
    "",
    "file:in",
    "file:in/pics/a.png",
    "ViT-B-32/openai",
    "hf-hub:a/b",
    "x" * 300,
    "../..",
    "clip-7",
    "in/texts.txt",
    "tight",
    "cpu",
    "cuda:7",
    "auto",
    "numpy",
    "1/2",
    "2/1",
    "0/0",
    "2024-01-01",
    "9999-12-31",
    "0001-01-01",
    "2024-13-01",
    "sub",
    "val",
    "127.0.0.1",
    "300.1.1.1",
    "\x1b[0m",
)
FORMATS = (
    "overlay",
    "png,json",
    "cutout",
    "coco",
    "svg,geojson",
    "npz",
    "labelme",
    "labelmap",
    "jsonl",
    ",",
    "tga",
    "yolo",
    "",
)


@dataclass(frozen=True)
class Option:
    """Hold one declared parameter of a command. flag: "" for an argument. kind: of its value. many:
    takes several.
    """

    flag: str
    kind: type
    many: bool


def options(verb: Callable[..., Any]) -> list[Option]:
    """List what a command declares."""
    hints = getattr(verb, "__annotations__", {})
    if any(isinstance(hint, str) for hint in hints.values()):
        hints = get_type_hints(verb, include_extras=True)
    found = []
    for name, parameter in inspect.signature(verb).parameters.items():
        hint = hints[name]
        inner, extras = (
            (get_args(hint)[0], hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())
        )
        parts = [part for part in (get_args(inner) or (inner,)) if part is not type(None)]
        many = any(get_origin(part) is list for part in (inner, *parts))
        kind = get_args(parts[0])[0] if get_origin(parts[0]) is list else parts[0]
        declared = [
            one
            for extra in extras
            for one in (getattr(extra, "default", None), *(extra.param_decls or ()))
        ]
        flags = [
            one.partition("/")[0]
            for one in declared
            if isinstance(one, str) and one.startswith("-")
        ]
        positional = any(isinstance(extra, ArgumentInfo) for extra in extras) or (
            not extras and parameter.default is inspect.Parameter.empty
        )
        flag = "" if positional else max(flags, key=len, default=f"--{name.replace('_', '-')}")
        found.append(Option(flag, kind, many))
    return found


VERBS: dict[tuple[str, ...], list[Option]] = {
    (*prefix, command.name or command.callback.__name__): [
        option for option in options(command.callback) if option.flag not in LEFT_OUT
    ]
    for prefix, group in (((), cli.app), (("evaluate",), evaluate.app), (("weights",), weights.app))
    for command in group.registered_commands
    if command.callback
}


IMAGES, TREES = ("in/pics/a.png", "in/pics/b.png", "in/pics/sub/a.png"), ("in/pics", "in/indexed")
USUAL: dict[str, tuple[str, ...]] = {  # first arguments that work
    "segment": IMAGES,
    "classify": IMAGES,
    "heat": IMAGES,
    "export": (*TREES, "in/t.csv", "in/t.jsonl", "in/pics/a.png", "in/pics/*.png"),
    "index": TREES,
    "search": ("in/indexed",),
    "retrieval": ("in/captions.csv",),
    "zeroshot": ("in/tree",),
    "referring": ("in/coco", "in/coco/refs(unc).p"),
    "evaluate": ("in/coco",),
}
WANTED = {
    "classify": ("--labels", "red,blue"),
    "heat": ("--encoder", "fake"),
    "export": ("--text", "red"),
}
HEAVY = (
    ("segment",),
    ("export",),
    ("classify",),
    ("search",),
    ("index",),
)  # tried more often than the others


def usual(option: Option) -> tuple[str, ...]:
    """Return values of an option that work, where that is simple to say."""
    if option.kind in (int, float):
        return ("1", "2", "9") if option.kind is int else ("0.3", "0.6", "1")
    places = {
        "--point": ("20,20", "20,20,0"),
        "--box": ("5,5,60,60", "0,0,160,120"),
        "--like": ("20,20", "in/pics/a.png@20,20"),
        "--unlike": ("5,5",),
    }
    named = {
        "--preset": ("mini", "photo"),
        "--encoder": ("fake",),
        "--device": ("cpu",),
        "--image": IMAGES,
    }
    files = {
        "--texts-file": ("in/texts.txt",),
        "--labels-file": ("in/texts.txt", "-"),
        "--boxes-file": ("in/boxes.csv",),
    }
    return {**places, **named, **files}.get(option.flag, ())


def value(rng: random.Random, option: Option) -> str:
    """Return a value for an option: mostly of its kind, now and then anything."""
    if rng.random() < 0.1 and option.flag != "--json":
        return rng.choice(rng.choice((NUMBERS, TEXTS, PLACES, PATHS, OUTS, NAMES, FORMATS)))
    if rng.random() < 0.6 and usual(option):
        return rng.choice(usual(option))
    if option.flag == "--format":
        return rng.choice(FORMATS)
    if option.flag in ("--point", "--box", "--like", "--unlike"):
        return rng.choice(PLACES)
    if option.flag in ("--out", "--sheet", "--copy", "--link", "--json"):
        return rng.choice(OUTS)
    if option.kind in (int, float):
        return rng.choice(NUMBERS)
    if option.kind is Path:
        return rng.choice(PATHS)
    return rng.choice(
        TEXTS if option.flag in ("", "--text", "--not", "--background", "--labels") else NAMES
    )


def command_line(rng: random.Random) -> list[str]:
    """Return a command line, the verb first."""
    verb = rng.choice(HEAVY if rng.random() < 0.6 else list(VERBS))
    declared = VERBS[verb]
    arguments: list[str] = []
    for option in declared:
        if not option.flag and rng.random() < 0.95:
            arguments += [
                value(rng, option) for _ in range(rng.choice((1, 1, 2)) if option.many else 1)
            ]
    first = USUAL.get(verb[-1]) or USUAL.get(verb[0])
    if first and arguments and rng.random() < 0.8:
        arguments[0] = rng.choice(first)
    if verb == ("export",) and len(arguments) > 1:  # its only place for files
        arguments[1] = rng.choice(OUTS)
    named = [option for option in declared if option.flag]
    for option in rng.choices(named, k=rng.choice((0, 1, 1, 2, 3, 5))) if named else ():
        arguments += [option.flag] if option.kind is bool else [option.flag, value(rng, option)]
    if rng.random() < 0.8:
        arguments += WANTED.get(verb[-1], ()) if verb[0] != "evaluate" or verb[-1] == "heat" else ()
    if rng.random() < 0.05:
        arguments.insert(
            rng.randrange(len(arguments) + 1), rng.choice(("--no-such", "-v", "--help", "--", "\0"))
        )
    if rng.random() < 0.05 and verb != ("export",):
        rng.shuffle(arguments)
    return [*verb, *arguments]


def lay_out(place: Path) -> None:
    """Write what command lines are about: images, tables, lists, and what is none of them."""
    for name in ("pics/sub", "odd", "coco/images", "indexed", "tree/red", "tree/a zebra"):
        (place / "in" / name).mkdir(parents=True)
    image = PIL.Image.fromarray(
        paint(("red", (10, 10, 50, 50)), ("green", (60, 20, 100, 80))).pixels
    )
    images = (
        "pics/a.png",
        "pics/b.png",
        "pics/sub/a.png",
        "coco/images/a.png",
        "indexed/a.png",
        "indexed/b.png",
    )
    for name in (
        *images,
        "tree/red/a.png",
        "tree/a zebra/b.png",
        "odd/\x1b[2J.png",
        "odd/\udcff.png",
    ):
        image.save(place / "in" / name)
    box = [[10, 10, 50, 10, 50, 50, 10, 50]]
    thing = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [10, 10, 40, 40],
        "segmentation": box,
    }
    table = {
        "images": [{"id": 1, "file_name": "a.png", "height": 120, "width": 160}],
        "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "a zebra"}],
        "annotations": [thing],
    }
    files: dict[str, bytes] = {
        "odd/empty.png": b"",
        "odd/text.png": b"no image",
        "coco/instances.json": json.dumps(table).encode(),
        "coco/refs(unc).p": pickle.dumps([ref(1, 1, "red", "the red one")], protocol=2),
        "texts.txt": b"red\nblue\n",
        "labels.bin": b"a\0b\n\xff",
        "t.csv": b'image,texts,boxes\npics/a.png,red; blue,"0,0,60,60"\n',
        "bad.csv": b'image,texts\npics/a.png,"red\npics/b.png,blue\n',
        "t.jsonl": b'{"image": "pics/a.png", "texts": ["red"]}\n',
        "bad.jsonl": b'["pics/a.png"]\nnull\n5\n',
        "deep.json": b"[" * 100_000,
        "boxes.csv": b'image,boxes\na.png,"0,0,60,60"\n',
        "captions.csv": b"image,caption\npics/a.png,a red box\npics/b.png,green\n",
    }
    for name, content in files.items():
        (place / "in" / name).write_bytes(content)
    for name in ("pipe", "odd/pipe.png"):
        os.mkfifo(place / "in" / name)
    (place / "precious.txt").write_bytes(b"precious")
    assert CliRunner().invoke(cli.app, ["index", "in/indexed", "--encoder", "fake"]).exit_code == 0


def snapshot(place: Path) -> dict[str, str]:
    """Return a hash of each file there, and what the rest is."""
    found = {}
    for folder, folders, files in os.walk(place):
        for name in [*folders, *files]:
            path = Path(folder) / name
            plain = path.is_file() and not path.is_symlink()
            content = sha256(path.read_bytes()).hexdigest() if plain else str(path.lstat().st_mode)
            found[os.path.relpath(path, place)] = content
    return found


def fresh_out(place: Path) -> None:
    """Make OUT anew, with somebody's files in it."""
    for name in ("out", "segclip-out"):
        shutil.rmtree(place / name, ignore_errors=True)
    (place / "out" / "full").mkdir(parents=True)
    for name in ("a.json", "a.overlay.png", "coco.json", "precious.txt"):
        (place / "out" / "full" / name).write_bytes(b"somebody's own")


def may_write(name: str, arguments: list[str]) -> bool:
    """Tell whether a command may write there: OUT, the default OUT, and an index in its folder."""
    parts = Path(name).parts
    named = {
        Path(value).parts[:1]
        for option, value in pairwise(arguments)
        if option in ("--out", "--link", "--copy", "--json")
    }
    if parts[0] not in ("in", ".segclip-index") and parts[:1] in named:
        return True
    return parts[0] in ("out", "segclip-out") or (
        ".segclip-index" in parts and arguments[0] in ("index", "evaluate")
    )


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"still at work after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fake_encoder(name: str, **options: Any) -> FakeEncoder:
    if name not in (
        "mini",
        "mini-sam",
        "photo",
        "fake",
        loading.PRESETS["mini"][1],
        loading.PRESETS["photo"][1],
    ):
        raise WeightsMissing(f"{name} is not on this machine")
    return FakeEncoder()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with everything, with fake models, without a network and without a
    server.
    """
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    for name, content in (
        ("SEGCLIP_HOME", str(tmp_path / "home")),
        ("SEGCLIP_OFFLINE", "1"),
        ("HF_HUB_OFFLINE", "1"),
    ):
        monkeypatch.setenv(name, content)
    monkeypatch.setattr(loading, "load", batch_script.fake_load)
    monkeypatch.setattr(loading, "fingerprint", batch_script.fake_fingerprint)
    monkeypatch.setattr(loading, "load_proposer", lambda name, **options: FakeProposer())
    monkeypatch.setattr(loading, "load_encoder", fake_encoder)
    monkeypatch.setattr(loading, "encoder_fingerprint", search_script.fake_hash)
    monkeypatch.setattr(lines, "PATIENCE", 0.2)
    monkeypatch.setattr(os, "execve", lambda *arguments: sys.exit(0))
    return place


def attempt(place: Path, arguments: list[str]) -> str:
    """Run a command line and return what is wrong with how it ended, or ""."""
    fresh_out(place)
    logging.getLogger(
        "segclip"
    ).handlers.clear()  # a command has a process of its own, and a stderr
    before = snapshot(place)
    try:
        with limited(LONGEST):
            outcome = CliRunner().invoke(cli.app, arguments, input="red\nblue\n")
    except AssertionError as late:
        return str(late)
    after = snapshot(place)
    changed = [name for name, content in before.items() if after.get(name) != content]
    new = after.keys() - before.keys()
    strange = [name for name in new if not may_write(name, arguments)]
    touched = [
        name for name in changed if ".segclip-index" not in name or not may_write(name, arguments)
    ]
    if changed or any(not name.startswith(("out", "segclip-out")) for name in new):
        for top in {Path(name).parts[0] for name in new} - {"in", "out"}:
            shutil.rmtree(place / top, ignore_errors=True)
        shutil.rmtree(place / "in")
        lay_out(place)
    problems = {
        f"ended by {outcome.exception!r}": not isinstance(outcome.exception, SystemExit | None),
        f"exit code {outcome.exit_code}": outcome.exit_code not in (0, 1, 2),
        f"a traceback: {outcome.output}": "Traceback" in outcome.output,
        "refused without a reason": outcome.exit_code == 2 and not outcome.stderr.strip(),
        f"control characters: {outcome.stderr!r}": bool(
            set("\x1b\x07\u202e") & set(outcome.stderr)
        ),
        f"touched {touched}": bool(touched),
        f"wrote {strange}": bool(strange),
    }
    return "; ".join(problem for problem, there in problems.items() if there)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.timeout(0)  # each command line has a limit of its own
def test_a_random_command_line_ends_in_plain_words(place: Path) -> None:
    """Fault 17.17: exit codes 0, 1, 2; no traceback; no hang; nothing touched outside OUT, nothing
    of others' in it.
    """
    lay_out(place)
    wrong = []
    for seed in range(SEED, SEED + EXAMPLES):
        arguments = command_line(random.Random(seed))
        if problem := attempt(place, arguments):
            wrong.append(
                f"seed {seed}: segclip {' '.join(map(repr, arguments))[:1500]}: {problem[:1500]}"
            )
    assert not wrong, "\n\n".join([f"{len(wrong)} of {EXAMPLES} from seed {SEED}", *wrong[:20]])


def test_every_command_and_option_is_tried() -> None:
    flags = {option.flag for declared in VERBS.values() for option in declared}
    assert {
        ("segment",),
        ("export",),
        ("evaluate", "retrieval"),
        ("weights", "get"),
        ("app",),
    } <= VERBS.keys()
    assert {
        "",
        "--point",
        "--threshold",
        "--texts-file",
        "--labels-file",
        "--format",
        "--before",
        "--json",
    } <= flags
    assert len({" ".join(command_line(random.Random(seed))) for seed in range(200)}) > 150
    assert typer.main.get_command(cli.app)
