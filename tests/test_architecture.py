"""Hold the house together: who may import whom, what import costs, how long a function may be."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import segclip
from segclip import errors, types

ROOT = Path(__file__).parent.parent
PARTS = ("segclip", "train", "app")

# A module may import its own layer and those below; the longest name that fits decides.
LAYERS: dict[str, int] = {
    **dict.fromkeys(
        ("errors", "startup", "types", "question", "files.formats", "ranking.selection"), 0
    ),
    **dict.fromkeys(("files", "weights", "images", "drawing", "registry", "checks", "lifetime"), 1),
    **dict.fromkeys(("ranking", "scoring"), 1),  # templates, words of place, crops
    **dict.fromkeys(("proposers", "encoders", "weights.tensors", "weights.torchscript"), 2),
    **dict.fromkeys(("ranking.embedding", "ranking.probability", "ranking.resemblance"), 3),
    **dict.fromkeys(("scoring.scorers", "scoring.heat", "scoring.examples"), 3),
    "scoring.calibration": 3,
    **dict.fromkeys(("loading", "segmenter", "zeroshot", "exporters"), 4),
    **dict.fromkeys(("batch", "search", "evaluation"), 5),
    **dict.fromkeys(("cli", "__main__", "__init__"), 6),
}
TRAIN_MAY_IMPORT = {
    *(
        "types",
        "images",
        "errors",
        "scoring",
        "ranking",
        "drawing",
        "files",
        "weights",
        "proposers",
        "encoders",
    ),
    *("loading", "segmenter", "evaluation", "checks", "lifetime"),
}

# Packages of others: where the everyday ones may not be imported, and where alone the rest may.
NOT_WELCOME: dict[str, set[str]] = {
    "numpy": {"errors"},
    "PIL": {"errors", "question", "types"},
    "cv2": {"errors", "question", "types", "app"},
}
HOMES: dict[str, set[str]] = {
    # loading picks the device, batch and startup the threads
    "torch": {
        "proposers",
        "encoders",
        "weights.tensors",
        "weights.torchscript",
        "train",
        "loading",
        "batch",
        "startup",
    },
    "torchvision": {"proposers", "encoders", "train"},
    "ultralytics": {"proposers", "train"},
    "segment_anything": {"proposers"},
    "open_clip": {"encoders", "train"},
    "timm": {"encoders", "train"},
    "sentence_transformers": {"encoders", "train"},
    "safetensors": {"ranking.concepts", "proposers", "encoders", "weights.tensors", "train"},
    "huggingface_hub": {"encoders", "weights.downloads"},
    "filelock": {"app", "batch", "weights.downloads"},
    "pycocotools": {"files.coco", "exporters", "evaluation.proposals", "train"},
    "rich": {"cli", "weights.downloads"},
    "typer": {"cli", "train"},
    "pillow_heif": {"images"},
    "emoji": {"train"},
    "matplotlib": {"evaluation.zeroshot", "train"},
    "peft": {"train"},
    "tokenizers": {"train"},
    "transformers": {"encoders", "train"},
    "lancedb": {"search"},
    "ray": {"batch"},
    "pyarrow": {"batch", "search"},
    **{name: {"app"} for name in ("anyio", "fastapi", "pydantic", "starlette")},
    "streamlit": {"app"},
}
# of the dialect this code was once written in: image, report, query, view and return are meant
BANNED = {"picture", "pictures", "told", "tell", "tells", "said", "say", "says", "seen", "looked"}
BANNED |= {"asked", "shown", "who", "whoever", "gives", "give"}
SERIALISED = {"asked", "pictures", "picture"}  # fields of records, journals and indexes
HEAVY = {
    "torch",
    "torchvision",
    "ultralytics",
    "open_clip",
    "timm",
    "cv2",
    "PIL",
    "pycocotools",
    "streamlit",
    "typer",
}
# of batch: where one picture's failure ends, and where a process tells its own; where a weight
# file's does
CATCH_ALL = {"work.py", "runners.py", "reading.py"}
MANY_OPTIONS = "segclip/cli/"  # a command's parameters are its flags


# where the tests of a part of the repository mirror its modules
TESTS_OF = {"segclip": "tests/unit", "app": "tests/app", "train": "tests/train"}


def sources(*parts: str) -> list[Path]:
    return sorted(path for part in parts for path in (ROOT / part).rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Give the full dotted name of everything a file imports, wherever in the file it does so."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def target(name: str) -> str:
    """Give the module of this repository that a dotted name lies in: segclip.types for
    segclip.types.Image.
    """
    parts = name.split(".")
    while len(parts) > 1:
        path = ROOT.joinpath(*parts)
        if (path / "__init__.py").exists() or path.with_suffix(".py").exists():
            break
        parts.pop()
    return ".".join(parts)


def place(path: Path) -> str:
    """Return a file's dotted name inside segclip, or the part it lies in: train, app."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] != "segclip":
        return parts[0]
    return ".".join(parts[1:]).removesuffix(".__init__")


def inner(path: Path) -> list[str]:
    """Return what a file imports of segclip, by the names ``place`` gives; the package itself is
    __init__.
    """
    found = [target(name) for name in imports(path) if name.split(".")[0] == "segclip"]
    return [name.removeprefix("segclip.") for name in found if name != "segclip"]


def layer(name: str) -> int:
    """Return the layer of a module by the longest name in LAYERS that fits."""
    parts = name.split(".")
    fitting = [
        ".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in LAYERS
    ]
    assert fitting, f"{name} is in no layer: add it to LAYERS in {Path(__file__).name}"
    return LAYERS[fitting[0]]


def lives_in(name: str, homes: set[str]) -> bool:
    return any(name == home or name.startswith(f"{home}.") for home in homes)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


each = pytest.mark.parametrize


@each("path", sources("segclip"), ids=module_of)
def test_a_module_imports_its_own_layer_and_those_below(path: Path) -> None:
    own = layer(place(path))
    if place(path) == "__init__":
        return  # the public names are loaded lazily; the import test below holds it
    above = {name for name in inner(path) if layer(name) > own}
    assert not above, f"{module_of(path)} (layer {own}) imports {above} above it"


@each("path", sources(*PARTS), ids=module_of)
def test_packages_of_others_stay_in_their_homes(path: Path) -> None:
    where = place(path)
    for name in {name.split(".")[0] for name in imports(path)} - {*PARTS, *sys.stdlib_module_names}:
        if name in NOT_WELCOME:
            assert not lives_in(where, NOT_WELCOME[name]), f"{name} is not for {where}"
        else:
            assert name in HOMES, (
                f"{where} imports {name}: add it to HOMES in {Path(__file__).name}, and to "
                "requirements"
            )
            assert lives_in(where, HOMES[name]), (
                f"{where} imports {name}, which lives in {sorted(HOMES[name])} only"
            )


@each("path", sources("train", "app"), ids=module_of)
def test_train_and_app_import_what_they_may(path: Path) -> None:
    names = set(imports(path))
    if place(path) == "train":
        assert not {n for n in names if n.split(".")[0] == "app"}
        assert all(lives_in(name, TRAIN_MAY_IMPORT) for name in inner(path))
    else:
        private = {
            n
            for n in names
            if n.startswith("segclip.") and n.removeprefix("segclip.") not in segclip.__all__
        }
        assert not private, f"app/ uses segclip's public names only, not {private}"
        assert not {n for n in names if n.split(".")[0] == "train"}


def test_the_top_of_segclip_is_short() -> None:
    entries = {path.name for path in (ROOT / "segclip").iterdir()} - {"__pycache__"}
    assert len(entries) <= 26, sorted(entries)


@each("path", sorted((ROOT / "tests" / "unit").rglob("test_*.py")), ids=lambda path: path.stem)
def test_unit_tests_lie_where_their_module_does(path: Path) -> None:
    folder = path.relative_to(ROOT / "tests" / "unit").parent
    assert (ROOT / "segclip" / folder).is_dir(), (
        f"{path.name} lies in {folder}, which segclip has not"
    )


@each(("part", "tests"), TESTS_OF.items())
def test_every_module_has_its_test_module(part: str, tests: str) -> None:
    """A package's own code, in its __init__.py, is tested in test_<package>.py if it needs to."""
    missing = []
    for path in sources(part):
        if path.name in ("__init__.py", "__main__.py"):
            continue
        inside = path.relative_to(ROOT / part)
        wanted = ROOT / tests / inside.with_name(f"test_{inside.name.lstrip('_')}")
        if not wanted.is_file():
            missing.append(f"{module_of(path)}: write {wanted.relative_to(ROOT)}")
    assert not missing, "\n".join(missing)


def segclips_own(tree: ast.Module) -> set[str]:
    """Return the names that a file imports from segclip."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            parts = [(alias.name.split(".")[0], alias) for alias in node.names]
            found |= {alias.asname or top for top, alias in parts if top == "segclip"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "segclip":
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@each("path", sources("tests"), ids=module_of)
def test_tests_use_no_private_name_of_segclip(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    own, used = segclips_own(tree), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            base: ast.expr = node.value
            while isinstance(base, ast.Attribute):
                base = base.value
            if isinstance(base, ast.Name) and base.id in own:
                used.append(f"line {node.lineno}: {ast.unparse(node)}")
    used += [name for name in own if is_private(name)]
    assert not used, f"{module_of(path)} uses {used}: test what is public, or make it so"


def test_a_class_name_means_one_thing() -> None:
    places: dict[str, list[str]] = {}
    for path in sources(*PARTS):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(module_of(path))
    assert not {name: where for name, where in places.items() if len(where) > 1}


@each("path", sources(*PARTS), ids=module_of)
def test_names_and_docstrings_are_plain_english(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        words: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            words += re.split(r"_+|(?<=[a-z])(?=[A-Z])", node.name)
        if isinstance(node, ast.arg):
            words += node.arg.split("_")
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            words += node.id.split("_")
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            words += re.findall(r"[A-Za-z]+", ast.get_docstring(node) or "")
        banned = {word for word in map(str.lower, words) if word in BANNED} - SERIALISED
        assert not banned, f"{module_of(path)}:{getattr(node, 'lineno', 1)} says {banned}"


def test_no_import_cycles() -> None:
    graph = {
        module_of(path): {target(n) for n in imports(path)} for path in sources("segclip", "train")
    }
    graph["segclip"] = set()  # loads on demand
    graph = {
        module: {n for n in needs if n in graph and n != module} for module, needs in graph.items()
    }
    while leaves := {module for module, needs in graph.items() if not needs}:
        graph = {module: needs - leaves for module, needs in graph.items() if module not in leaves}
    assert not graph, f"a cycle among {sorted(graph)}"


@each("path", sources(*PARTS), ids=module_of)
def test_functions_are_short_and_take_few_parameters(path: Path) -> None:
    for function in functions(path):
        where = f"{module_of(path)}.{function.name}"
        assert function.end_lineno is not None
        assert function.end_lineno - function.lineno < 60, f"{where} is over 60 lines"
        command = function.name == "main" and path.relative_to(ROOT).parts[0] == "train"
        if (
            path.relative_to(ROOT).as_posix().startswith(MANY_OPTIONS)
            or path.name == "checks.py"
            or command
        ):
            continue
        given = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
        names = [argument.arg for argument in given if argument.arg not in ("self", "cls")]
        assert len(names) <= 6, f"{where} takes {len(names)} parameters; 6 are allowed"
        assert function.args.kwarg is None, f"{where} tunnels keyword arguments; name them"


@each("path", [p for p in sources("segclip") if p.parent.name != "cli"], ids=module_of)
def test_the_library_prints_nothing_and_swallows_nothing(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) != "print", f"print in {module_of(path)}:{node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "BaseException"
            everything = caught in ("Exception", "BaseException") and path.name not in CATCH_ALL
            assert not everything, f"{module_of(path)}:{node.lineno} catches {caught}"


def test_importing_segclip_loads_nothing_heavy_and_changes_nothing() -> None:
    script = (
        "import os, sys; before = dict(os.environ); import segclip; "
        f"assert before == dict(os.environ); print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_all_is_sorted_and_every_name_is_there() -> None:
    assert list(segclip.__all__) == sorted(set(segclip.__all__))
    assert [name for name in segclip.__all__ if getattr(segclip, name, None) is None] == []
    assert set(segclip.__all__) <= set(dir(segclip))
    with pytest.raises(AttributeError):
        _ = segclip.no_such_name


def test_all_holds_every_error_and_every_type() -> None:
    def classes(module: object) -> set[str]:
        members = inspect.getmembers(module, inspect.isclass)
        return {
            name for name, member in members if member.__module__ == getattr(module, "__name__", "")
        }

    wanted = (
        classes(errors) | classes(types) | {"load", "overlay", "save", "Segmenter", "Selection"}
    )
    assert not wanted - set(segclip.__all__)
