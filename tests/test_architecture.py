"""Hold the house together: who may import whom, what import costs, how long a function may be."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import segclip
from segclip import errors, types

ROOT = Path(__file__).parent.parent
PARTS = ("segclip", "train", "app")

# A module may import its own layer and those below. A new module is added here on purpose.
LAYERS: dict[str, int] = {
    **dict.fromkeys(
        ("errors", "formats", "imports", "masks", "prompts", "question", "selection", "types", "version"), 0
    ),
    **dict.fromkeys(("images", "crops", "positions", "templates", "metrics", "drawing", "registry", "polygons"), 1),
    **dict.fromkeys(("atomic", "cache", "captions", "checks", "coco", "downloads", "lifetime", "lines"), 1),
    **dict.fromkeys(("listing", "outputs", "profiles", "regular", "rle", "tables", "weight_files", "weights"), 1),
    **dict.fromkeys(("proposers", "encoders", "tensors", "torchscript"), 2),
    **dict.fromkeys(("ranking", "scoring"), 3),
    **dict.fromkeys(("loading", "segmenter", "zeroshot", "exporters", "datasets", "heat"), 4),
    **dict.fromkeys(("accuracy", "batch", "clicks", "evaluate", "localise", "recall", "retrieval", "search"), 5),
    **dict.fromkeys(
        (
            "cli",
            "cli_app",
            "cli_classify",
            "cli_evaluate",
            "cli_export",
            "cli_heat",
            "cli_options",
            "cli_search",
            "cli_weights",
        ),
        6,
    ),
    **dict.fromkeys(("__main__", "__init__"), 6),
}
TRAIN_MAY_IMPORT = {"atomic", "lifetime", "lines", "listing"}
TRAIN_MAY_IMPORT |= {"types", "images", "crops", "errors", "proposers", "encoders", "scoring", "templates", "positions"}
TRAIN_MAY_IMPORT |= {
    "cache",
    "captions",
    "checks",
    "clicks",
    "coco",
    "datasets",
    "lines",
    "tables",
    "metrics",
    "weight_files",
    "weights",
    "drawing",
    "loading",
    "ranking",
    "segmenter",
    "evaluate",
    "selection",
}

# Packages of others: where the everyday ones may not be imported, and where alone the rest may.
NOT_WELCOME: dict[str, set[str]] = {
    "numpy": {"errors"},
    "PIL": {"errors", "masks", "prompts", "types"},
    "cv2": {"errors", "masks", "prompts", "types", "app"},
}
HOMES: dict[str, set[str]] = {
    # loading picks the device, batch and app the threads
    "torch": {"proposers", "encoders", "tensors", "torchscript", "train", "loading", "batch", "app"},
    "torchvision": {"proposers", "encoders", "train"},
    "ultralytics": {"proposers", "train"},
    "segment_anything": {"proposers"},
    "open_clip": {"encoders", "train"},
    "timm": {"encoders", "train"},
    "sentence_transformers": {"encoders", "train"},
    "safetensors": {"proposers", "encoders", "tensors", "train"},
    "huggingface_hub": {"encoders", "downloads"},
    "filelock": {"app", "batch", "downloads"},
    "pycocotools": {"coco", "exporters", "recall", "train"},
    "rich": {"cli", "cli_export", "cli_weights", "downloads"},
    "typer": {
        "cli",
        "cli_app",
        "cli_classify",
        "cli_evaluate",
        "cli_export",
        "cli_heat",
        "cli_options",
        "cli_search",
        "cli_weights",
        "train",
    },
    "pillow_heif": {"images"},
    "emoji": {"train"},
    "matplotlib": {"accuracy", "train"},
    "peft": {"train"},
    "tokenizers": {"train"},
    "transformers": {"encoders", "train"},
    "lancedb": {"search"},
    "ray": {"batch"},
    "pyarrow": {"batch", "search"},
    **{name: {"app"} for name in ("anyio", "fastapi", "pydantic", "starlette")},
    "streamlit": {"app"},
}
HEAVY = {"torch", "torchvision", "ultralytics", "open_clip", "timm", "cv2", "PIL", "pycocotools", "streamlit", "typer"}
# of batch: where one picture's failure ends, and where a process tells its own; where a weight file's does
CATCH_ALL = {"work.py", "runners.py", "weight_files.py"}
MANY_OPTIONS = {
    "checks.py",
    "cli_app.py",
    "cli_classify.py",
    "cli_export.py",
    "cli_options.py",
    "cli_search.py",
    "cli_weights.py",
}  # a command's parameters are its flags


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
    """Give the module of this repository that a dotted name lies in: segclip.types for segclip.types.Image."""
    parts = name.split(".")
    while len(parts) > 1:
        path = ROOT.joinpath(*parts)
        if (path / "__init__.py").exists() or path.with_suffix(".py").exists():
            break
        parts.pop()
    return ".".join(parts)


def place(path: Path) -> str:
    """Give a file's line in the tables: a module or folder of segclip, or the part itself outside it."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "segclip" else parts[0]


def inner(path: Path) -> list[str]:
    """Give what a file imports of segclip, by its line in LAYERS; the package itself is __init__."""
    return [([*target(n).split("."), "__init__"])[1] for n in imports(path) if n.split(".")[0] == "segclip"]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


each = pytest.mark.parametrize


@each("path", sources("segclip"), ids=module_of)
def test_a_module_imports_its_own_layer_and_those_below(path: Path) -> None:
    assert place(path) in LAYERS, f"{place(path)} is in no layer: add it to LAYERS in {Path(__file__).name}"
    if place(path) == "__init__":
        return  # the public names are loaded lazily; the import test below holds it
    above = {name for name in inner(path) if LAYERS.get(name, 9) > LAYERS[place(path)]}
    assert not above, f"{module_of(path)} (layer {LAYERS[place(path)]}) imports {above} above it"


@each("path", sources(*PARTS), ids=module_of)
def test_packages_of_others_stay_in_their_homes(path: Path) -> None:
    where = place(path)
    for name in {name.split(".")[0] for name in imports(path)} - {*PARTS, *sys.stdlib_module_names}:
        if name in NOT_WELCOME:
            assert where not in NOT_WELCOME[name], f"{name} is not for {where}"
        else:
            assert name in HOMES, (
                f"{where} imports {name}: add it to HOMES in {Path(__file__).name}, and to requirements"
            )
            assert where in HOMES[name], f"{where} imports {name}, which lives in {sorted(HOMES[name])} only"


@each("path", sources("train", "app"), ids=module_of)
def test_train_and_app_import_what_they_may(path: Path) -> None:
    names = set(imports(path))
    if place(path) == "train":
        assert not {n for n in names if n.split(".")[0] == "app"}
        assert not set(inner(path)) - TRAIN_MAY_IMPORT
    else:
        private = {n for n in names if n.startswith("segclip.") and n.removeprefix("segclip.") not in segclip.__all__}
        assert not private, f"app/ uses segclip's public names only, not {private}"
        assert not {n for n in names if n.split(".")[0] == "train"}


def test_no_import_cycles() -> None:
    graph = {module_of(path): {target(n) for n in imports(path)} for path in sources("segclip", "train")}
    graph["segclip"] = set()  # loads on demand
    graph = {module: {n for n in needs if n in graph and n != module} for module, needs in graph.items()}
    while leaves := {module for module, needs in graph.items() if not needs}:
        graph = {module: needs - leaves for module, needs in graph.items() if module not in leaves}
    assert not graph, f"a cycle among {sorted(graph)}"


@each("path", sources(*PARTS), ids=module_of)
def test_functions_are_short_and_take_few_parameters(path: Path) -> None:
    for function in functions(path):
        where = f"{module_of(path)}.{function.name}"
        assert function.end_lineno is not None
        assert function.end_lineno - function.lineno < 60, f"{where} is over 60 lines"
        if path.name in MANY_OPTIONS or (function.name == "main" and path.parent.name == "train"):
            continue
        given = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
        names = [argument.arg for argument in given if argument.arg not in ("self", "cls")]
        assert len(names) <= 6, f"{where} takes {len(names)} parameters; 6 are allowed"
        assert function.args.kwarg is None, f"{where} tunnels keyword arguments; name them"


@each("path", [p for p in sources("segclip") if p.name not in MANY_OPTIONS], ids=module_of)
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
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
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
        return {name for name, member in members if member.__module__ == getattr(module, "__name__", "")}

    wanted = classes(errors) | classes(types) | {"load", "overlay", "save", "Segmenter", "Selection"}
    assert not wanted - set(segclip.__all__)
