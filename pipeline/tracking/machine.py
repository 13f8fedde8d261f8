"""What a run computes with: packages, processor, kernels of the linear algebra, GPUs. Rounding hangs on it."""

from __future__ import annotations

import os
import platform
import runpy
import sys
from importlib.metadata import distribution, distributions
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Facts about this machine and its Python, nested; the machine itself is not named.

    What torch computes with is told by a stage that has loaded it; loading it only to ask takes two seconds.
    """
    from threadpoolctl import threadpool_info

    pools = [
        {
            "library": pool["internal_api"],
            "version": pool["version"],
            "kernel": pool.get("architecture"),
            "threads": pool["num_threads"],
        }
        for pool in threadpool_info()
    ]
    packages = {dist["Name"]: dist["Version"] for dist in (found.metadata for found in distributions())}
    return {
        "python": platform.python_version(),
        "torch": _torch_version(),
        "system": f"{platform.system()} {platform.release()}",
        "packages": dict(sorted(packages.items(), key=lambda entry: entry[0].lower())),
        "processor": {
            "model": _processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        },
        "thread_pools": pools,
        "computing": _torch() if "torch" in sys.modules else None,
        "variables": {key: value for key, value in sorted(os.environ.items()) if key in VARIABLES},
    }


def _torch_version() -> str:
    """With its build (``2.9.0+cu128``), unlike the package's."""
    return str(runpy.run_path(str(distribution("torch").locate_file("torch/version.py")))["__version__"])


def _torch() -> dict[str, Any]:
    import torch

    return {
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
    }


VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "MKL_NUM_THREADS",
    "NPY_DISABLE_CPU_FEATURES",
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
)
"""Environment variables that choose kernels or threads."""


def summary(facts: dict[str, Any]) -> dict[str, str]:
    """The facts that runs are told apart by, as tags."""
    computing = facts["computing"]
    kernels = sorted({f"{pool['library']} {pool['kernel']}" for pool in facts["thread_pools"] if pool["kernel"]})
    tags = {
        "python": facts["python"],
        "torch": facts["torch"],
        "numpy": facts["packages"]["numpy"],
        "processor": facts["processor"]["model"],
    }
    if computing:
        kernels = [f"torch {computing['kernels']}", *kernels]
        tags |= {"threads": computing["threads"], "gpu": ", ".join(computing["gpus"]) or "none"}
    return {f"env.{key}": str(value) for key, value in (tags | {"kernels": ", ".join(kernels)}).items()}


def _processor() -> str | None:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
