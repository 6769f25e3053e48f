"""What a figure was measured on: without it a figure means nothing."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_CPUINFO, _MEMINFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")
# Those that change what a product costs, by the flag that Linux shows; the matrix units first.
_EXTENSIONS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16", "avx512f": "AVX-512", "avx2": "AVX2"}
_PACKAGES = ("tensorflow", "keras", "numpy", "torch", "jax")


@dataclass(frozen=True)
class Machine:
    """A machine, and what runs on it.

    Attributes:
        processor: Its name.
        extensions: Those of AMX, AVX-512 BF16, AVX-512 and AVX2 that it has.
        cores: How many this process may use.
        memory: In GB; 0 where it isn't told.
        versions: Of Python and of the packages that are installed, by name.
    """

    processor: str
    extensions: tuple[str, ...]
    cores: int
    memory: int
    versions: dict[str, str]

    @property
    def short(self) -> str:
        """What tells kinds of machines apart, such as `Intel Xeon, AVX-512, no AMX, 2 cores`."""
        best = next((name for name in self.extensions if name != "AMX"), "no AVX2")
        amx = "AMX" if "AMX" in self.extensions else "no AMX"
        return f"{self.processor}, {best}, {amx}, {self.cores} core{'s' * (self.cores > 1)}"

    @property
    def text(self) -> str:
        """All of it, in one line."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return f"{self.short}, {self.memory} GB; {versions}"


def this_machine() -> Machine:
    """The machine that this process runs on."""
    fields = _fields(_CPUINFO)
    flags = set(fields.get("flags", "").split())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = int(_fields(_MEMINFO).get("MemTotal", "0 kB").split()[0]) // 1024**2
    processor = fields.get("model name") or platform.processor() or platform.machine()
    extensions = tuple(name for flag, name in _EXTENSIONS.items() if flag in flags)
    return Machine(processor, extensions, cores, memory, {"Python": platform.python_version(), **_versions()})


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _fields(path: Path) -> dict[str, str]:
    """The `name: value` lines of a file, the first of each name; none where there is no such file."""
    found: dict[str, str] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        name, separator, value = line.partition(":")
        if separator:
            found.setdefault(name.strip(), value.strip())
    return found
