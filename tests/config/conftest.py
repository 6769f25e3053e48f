"""Configuration files."""

from pathlib import Path

import pytest
from configurations import DATA


@pytest.fixture
def write(tmp_path):
    """Write a configuration file (with a valid [data] unless told otherwise), and return its path."""

    def write_text(text: str = "", data: str = DATA) -> Path:
        path = tmp_path / "run.toml"
        path.write_text(text + data)
        return path

    return write_text
