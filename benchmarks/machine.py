"""What the benchmarks ran on, for the heads of their tables."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    """Cores, processor and its widest vectors: ``2 cores, AMD EPYC, AVX-512``."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    facts = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = facts.get("flags", "").split()
    vectors = next(
        (name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("avx", "AVX")) if flag in flags), ""
    )
    name = facts.get("model name") or platform.machine()
    return f"{os.cpu_count()} cores, {name}" + (f", {vectors}" if vectors else "")
