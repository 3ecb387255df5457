"""torch's compiler is not loaded at startup, and still works when it is used."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap

import pytest

from segclip.startup import without_collector

RUNS = {
    "a query never loads it": """
        import sys, segclip
        segclip.load("mini")
        assert "torchvision" in sys.modules and "timm" in sys.modules
        assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
        """,
    "compilation works afterwards": """
        import segclip, torch
        segclip.load("mini")
        twice = torch.compile(lambda x: x * 2, backend="eager")
        assert twice(torch.ones(2)).tolist() == [2, 2]
        assert torch._dynamo.__file__
        """,
    "a library that needs it loads it": """
        import sys
        from segclip.startup import without_compiler
        with without_compiler():
            import torch
            kept = torch.compiler.disable(len)
            assert kept is len and torch.compiler.disable()(len) is len
            from torch._dynamo.eval_frame import OptimizedModule
            assert torch._dynamo.config.recompile_limit
        assert sys.modules["torch._dynamo"].__file__
        assert sys.modules["torch._dynamo.utils"].__file__
        """,
    "an imported compiler is kept": """
        import sys, torch._dynamo
        from segclip.startup import without_compiler
        real = sys.modules["torch._dynamo"]
        with without_compiler():
            assert sys.modules["torch._dynamo"] is real
        assert sys.modules["torch._dynamo"] is real
        """,
}


@pytest.mark.parametrize("collecting", [True, False])
def test_the_garbage_collector_is_restored(
    collecting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(gc, "isenabled", lambda: collecting)
    monkeypatch.setattr(gc, "disable", lambda: calls.append("disable"))
    monkeypatch.setattr(gc, "enable", lambda: calls.append("enable"))
    with pytest.raises(KeyError), without_collector():
        raise KeyError
    assert calls == ["disable", "enable"][: 1 + collecting]


@pytest.mark.parametrize("name", RUNS)
def test_compiler(name: str) -> None:
    script = textwrap.dedent(RUNS[name])
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stderr
