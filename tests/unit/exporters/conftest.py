"""A result of three rows, and one without any."""

from __future__ import annotations

import numpy as np
import pytest

from segclip.types import Result
from tests.results import SIZE, blobs, make


@pytest.fixture
def result() -> Result:
    return make(blobs(3), ("a mug", "a lamp", "a mug"), ("a mug", "a lamp", "ein Löwe 🦁"))


@pytest.fixture
def empty() -> Result:
    return make(np.zeros((0, *SIZE), bool), (), ("a zebra",))
