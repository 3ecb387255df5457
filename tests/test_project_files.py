"""What is stored in two places is the same in both: versions, tools, Pythons."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

import segclip

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


def test_the_version_is_that_of_the_changelog_and_of_the_citation() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    newest = re.search(r"^## (\S+) - (\S+)$", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == segclip.__version__
    citation = load("CITATION.cff")
    assert (citation["version"], str(citation["date-released"])) == newest.groups()


def test_pre_commit_runs_the_tools_of_the_dev_extra() -> None:
    pinned = dict(
        requirement.split("==")
        for requirement in PROJECT["project"]["optional-dependencies"]["dev"]
        if "==" in requirement
    )
    repositories = load(".pre-commit-config.yaml")["repos"]
    revisions = {entry["repo"].rpartition("/")[2]: entry["rev"] for entry in repositories}
    assert revisions["ruff-pre-commit"] == f"v{pinned['ruff']}"
    assert revisions["codespell"] == f"v{pinned['codespell']}"


def test_workflows_try_the_least_python_and_have_no_rights_but_those_they_need() -> None:
    workflows = {
        path.stem: load(f".github/workflows/{path.name}")
        for path in (ROOT / ".github" / "workflows").glob("*.yml")
    }
    matrix = workflows["test"]["jobs"]["quick"]["strategy"]["matrix"]
    assert f">={matrix['python'][0]}" == PROJECT["project"]["requires-python"]
    assert all(flow["permissions"] == {"contents": "read"} for flow in workflows.values())
    rights = {
        name: job["permissions"]
        for flow in workflows.values()
        for name, job in flow["jobs"].items()
        if "permissions" in job
    }
    assert rights == {"publish": {"id-token": "write"}}
