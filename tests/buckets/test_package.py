"""What the package needs, and what it exports."""

import subprocess
import sys

import pytest

import seq2split.buckets as subject

EXAMPLE = """
import sys
sys.modules["{blocked}"] = None  # an import of it raises
from seq2split.buckets import {names}
print(Buckets.fit([3, 4, 9], count=2), pad_rows([[5], [6, 7]], length=2).tolist())
"""


@pytest.mark.parametrize(("blocked", "code"), [("tensorflow", 0), ("keras", 0), ("numpy", 1)])
def test_needs_numpy_and_no_tensorflow(blocked, code):
    example = EXAMPLE.format(blocked=blocked, names=", ".join(subject.__all__))
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout == ("" if code else "Buckets([4, 9]) [[5, 0], [6, 7]]\n")
