"""Write docs/api.md, the reference of segclip's public names, from their signatures and docstrings.

Run after any change of either: python -m tests.api_page
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import segclip

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
HEAD = """\
# Python reference

Every name of `segclip`, from its docstring. `python -m tests.api_page` writes this page, and a test
checks that it is current. N is a number of regions, T of texts, D the length of an embedding, K of
points, B of boxes. A *size* is (H, W), a coordinate is (x, y) in pixels of the upright image, and a
*box* is x1, y1, x2, y2, where x2 and y2 lie outside.

In signatures, `Source` is a path, the bytes of an image file, a PIL image, an array or an `Image`;
`Prompt` is `Points`, `Boxes` or `Everything`; `Array` is a NumPy array; `Encoder` is what
`load_encoder` returns, and `Proposer` what a `Segmenter` has beside one.
"""
GROUPS: dict[str, tuple[str, ...]] = {
    "Load and ask": (
        *("load", "load_picker", "load_encoder", "ModelSpec", "load_image", "Segmenter"),
        *("Question", "Selection", "PRESETS", "Example", "Concept"),
    ),
    "Types": (
        "Image",
        "Masks",
        "Proposals",
        "Encoded",
        "Regions",
        "Scores",
        "Result",
        "Resemblance",
    ),
    "Prompts": ("Points", "Boxes", "Everything", "place"),
    "Results and files": (
        *("overlay", "contact_sheet", "shrink", "save", "to_record", "PER_IMAGE", "PER_RUN"),
        "IMAGE_SUFFIXES",
    ),
    "Many images": ("export", "ExportOptions", "Ask", "Answers", "Running", "Progress", "Summary"),
    "Encoders, crops and heat": (
        *("CropPolicy", "View", "POLICIES", "heat_maps", "label_pixels"),
        *("get_weights", "list_weights", "get_threads", "limit_threads"),
    ),
    "Classification": (
        *("classify", "read_labels", "make_classifier", "Labels", "Classifier", "Guess"),
    ),
    "Search": ("find_matches", "make_index", "Index", "IndexOptions", "Query", "Filter", "Match"),
    "Errors": (
        *("SegclipError", "BadImage", "BadIndex", "BadPrompt", "BadTable", "Busy", "NotWritable"),
        *("UnknownName", "Unsupported", "WeightsCorrupt", "WeightsMissing"),
    ),
}
CONSTANTS = {  # a constant has no docstring of its own
    "IMAGE_SUFFIXES": "The suffixes of files that are images, in lower case.",
    "PER_IMAGE": "The formats that `save` and `export` write for each image, by name.",
    "PER_RUN": "The formats of which `export` writes one file or tree for the whole run.",
    "POLICIES": "The named crop policies that `load` takes.",
    "PRESETS": "The names of each preset's proposer and encoder.",
}
WIDTH = 88
Function = ast.FunctionDef | ast.AsyncFunctionDef


def write() -> str:
    """Return the page."""
    parts = [HEAD]
    for title, names in GROUPS.items():
        links = ", ".join(f"[`{name}`](#{name.lower()})" for name in names)
        parts += [f"## {title}\n", f"{links}\n", *(_entry(name) for name in names)]
    return "\n".join(parts)


def _entry(name: str) -> str:
    if name in CONSTANTS:
        return f"### {name}\n\n{CONSTANTS[name]}\n"
    node = _definition(name)
    parts = [f"### {name}\n", _code(_signature(node, name)), _prose(node)]
    if isinstance(node, ast.ClassDef):
        for method in _methods(node):
            title = "calling it" if method.name == "__call__" else method.name
            parts += [
                f"#### {name}: {title}\n",
                _code(_signature(method, method.name)),
                _prose(method),
            ]
    return "\n".join(parts)


def _definition(name: str) -> ast.ClassDef | Function:
    """Return the syntax tree of a public class or function."""
    value: Any = inspect.unwrap(getattr(segclip, name))  # of a context manager, what it wraps
    source = inspect.getsourcefile(value)
    assert source, f"{name} has no source"
    for node in ast.parse(Path(source).read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | Function) and node.name == value.__name__:
            return node
    raise AssertionError(f"{name} is not defined in {source}")


def _methods(node: ast.ClassDef) -> list[Function]:
    """Return the public methods and properties of a class, and what calling it does."""
    return [
        member
        for member in node.body
        if isinstance(member, Function)
        and (not member.name.startswith("_") or member.name == "__call__")
    ]


def _signature(node: ast.ClassDef | Function, name: str) -> str:
    if isinstance(node, ast.ClassDef):
        start = next(
            (m for m in node.body if isinstance(m, Function) and m.name == "__init__"), None
        )
        if start is not None:
            return _wrapped(name, _parameters(start), "")
        if node.bases:
            return f"class {name}({', '.join(map(ast.unparse, node.bases))})"
        fields = [member for member in node.body if isinstance(member, ast.AnnAssign)]
        return _wrapped(name, [_field(member) for member in fields], "")
    marks = [ast.unparse(mark) for mark in node.decorator_list]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if "property" in marks or "cached_property" in marks:
        return f"{name}{returns}  # a property"
    kept = [f"@{mark}\n" for mark in marks if mark in ("classmethod", "staticmethod")]
    return "".join(kept) + _wrapped(name, _parameters(node), returns)


def _parameters(node: Function) -> list[str]:
    """Return a function's parameters without self and cls, "*" among them."""
    given = node.args
    plain = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(plain) - len(given.defaults)) + list(given.defaults)
    found = [_parameter(one, default) for one, default in zip(plain, defaults, strict=True)]
    if plain and plain[0].arg in ("self", "cls"):
        del found[0]
    if given.vararg:
        found.append(f"*{ast.unparse(given.vararg)}")
    elif given.kwonlyargs:
        found.append("*")
    pairs = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    return found + [_parameter(one, default) for one, default in pairs]


def _parameter(one: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(one) + (f" = {ast.unparse(default)}" if default else "")


def _field(member: ast.AnnAssign) -> str:
    """Return a dataclass's field as the parameter of its constructor."""
    text = f"{ast.unparse(member.target)}: {ast.unparse(member.annotation)}"
    if isinstance(member.value, ast.Call) and ast.unparse(member.value.func) == "field":
        made = {word.arg: ast.unparse(word.value) for word in member.value.keywords}
        factory = made.get("default_factory", "")
        value = "..." if factory.startswith("lambda") else f"{factory}()"
        return f"{text} = {value if factory else made.get('default', '...')}"
    return text + (f" = {ast.unparse(member.value)}" if member.value else "")


def _wrapped(name: str, parameters: list[str], end: str) -> str:
    line = f"{name}({', '.join(parameters)}){end}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{name}(", *(f"    {one}," for one in parameters), f"){end}"])


def _code(text: str) -> str:
    return f"```python\n{text}\n```\n"


def _prose(node: ast.ClassDef | Function) -> str:
    """Return a docstring as Markdown, each paragraph on one line."""
    paragraphs = (ast.get_docstring(node) or "").split("\n\n")
    lines = [re.sub(r"``(.+?)``", r"`\1`", " ".join(one.split())) for one in paragraphs]
    return "\n".join(f"{textwrap.fill(line, 120)}\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(write(), encoding="utf-8")
