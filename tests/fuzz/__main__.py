"""Run every fuzz test again and again from new seeds: python -m tests.fuzz --minutes 60 --seed 5.

What failed is appended to failed.txt beside this file, and comes first the next time: see
README.md.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

HERE = Path(__file__).parent
FAILED = HERE / "failed.txt"
_TEST = re.compile(r"^(?:FAILED|ERROR) (\S+::\S+)", re.MULTILINE)


def run(tests: Sequence[str], seed: int, examples: int) -> list[str]:
    """Run tests from a seed on; return those that failed."""
    environment = {
        **os.environ,
        "SEGCLIP_FUZZ_SEED": str(seed),
        "SEGCLIP_FUZZ_EXAMPLES": str(examples),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rfE",
        "--no-header",
        "--timeout=0",
        f"--hypothesis-seed={seed}",
    ]
    done = subprocess.run(
        [*command, *tests], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        typer.echo(done.stdout + done.stderr)
    return _TEST.findall(done.stdout) or ([*tests] if done.returncode not in (0, 5) else [])


def again() -> list[str]:
    """Run what failed before, and keep of it what still fails; return that."""
    lines = FAILED.read_text("utf-8").splitlines() if FAILED.is_file() else []
    wrong = []
    for line in dict.fromkeys(lines):
        test, seed, examples = line.split()
        if run([test], int(seed), int(examples)):
            wrong.append(line)
    return wrong


def main(
    minutes: Annotated[float, typer.Option(help="How long to go on.", min=0)] = 60.0,
    seed: Annotated[
        int | None, typer.Option(help="The first; drawn at random if left out.", min=0)
    ] = None,
    examples: Annotated[int, typer.Option(help="Of each test in a round.", min=1)] = 500,
) -> None:
    """Fuzz for a while; exit code 1 when anything failed."""
    first = random.SystemRandom().randrange(10**6) * 1000 if seed is None else seed
    typer.echo(f"seed {first}, {examples} examples a round, for {minutes:g} minutes")
    wrong, end, start = again(), monotonic() + 60 * minutes, first
    while monotonic() < end:
        found = [f"{test} {start} {examples}" for test in run([str(HERE)], start, examples)]
        if new := [line for line in found if line not in wrong]:
            wrong += new
            with FAILED.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in new)
        start += examples
        typer.echo(f"up to seed {start}: {len(wrong)} failed")
    for line in wrong:
        test, at, count = line.split()
        typer.echo(
            f"again: SEGCLIP_FUZZ_SEED={at} SEGCLIP_FUZZ_EXAMPLES={count} python -m pytest {test}"
        )
    raise typer.Exit(bool(wrong))


if __name__ == "__main__":
    typer.run(main)
