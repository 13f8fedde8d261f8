"""Other processors, played in subprocesses: libraries are told to use no more than an older one has.

As far as they can be told: MKL listens on Intel's processors only, numba compiles anew where it is asked to listen, and
nothing plays a processor that has more than this one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from numpy._core._multiarray_umath import __cpu_dispatch__

NUMPY_LEVELS = tuple(__cpu_dispatch__)
_AVX512 = Path("/proc/cpuinfo").is_file() and "avx512f" in Path("/proc/cpuinfo").read_text()


def _settings(
    openblas: str, numpy: tuple[str, ...], opencv: str, aten: str, onednn: str, mkl: str, glibc: str, numba: str
) -> dict[str, str]:
    settings = {
        "OPENBLAS_CORETYPE": openblas,
        "NPY_DISABLE_CPU_FEATURES": " ".join(name for name in NUMPY_LEVELS if name not in numpy),
        "OPENCV_CPU_DISABLE": opencv,
        "OPENCV_IPP": "disabled" if opencv else "",
        "ATEN_CPU_CAPABILITY": aten,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "MKL_ENABLE_INSTRUCTIONS": mkl,
        "GLIBC_TUNABLES": f"glibc.cpu.hwcaps={glibc}" if glibc else "",
        "NUMBA_CPU_NAME": numba,
        "NUMBA_CPU_FEATURES": "",
    }
    return {name: value for name, value in settings.items() if value or name == "NUMBA_CPU_FEATURES"}


_NO_AVX2, _NO_AVX512 = "AVX2,AVX512-SKX", "AVX512-SKX"
PROCESSORS = {
    "PRESCOTT": _settings(
        "PRESCOTT", (), f"AVX,FP16,{_NO_AVX2}", "default", "SSE41", "SSE4_2", "-AVX2,-FMA,-FMA4,-AVX512F,-AVX", "x86-64"
    ),
    "SANDYBRIDGE": _settings(
        "SANDYBRIDGE", (), _NO_AVX2, "default", "AVX", "AVX", "-AVX2,-FMA,-FMA4,-AVX512F", "sandybridge"
    ),
    "HASWELL": _settings(
        "HASWELL", ("X86_V3", "AVX2", "FMA3"), _NO_AVX512, "avx2", "AVX2", "AVX2", "-AVX512F", "haswell"
    ),
    "SKYLAKEX": _settings("SKYLAKEX", NUMPY_LEVELS, "", "avx512", "AVX512_CORE", "AVX512", "", "skylake-avx512"),
}
"""Environment of each kind, by OpenBLAS's name for it, as far as the libraries of this project can be told."""
if not _AVX512:
    del PROCESSORS["SKYLAKEX"]


def run_on(processor: str, code: str, *arguments: str, numba: bool = False) -> str:
    """What Python code prints on another processor; `numba` compiles kernels for it too (slow: nothing is cached)."""
    settings = {name: v for name, v in PROCESSORS[processor].items() if numba or not name.startswith("NUMBA")}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
