"""Equal seeds give equal shards on every processor: other processors are played by switching off what this one can.

NumPy's random generator asks the C library for a logarithm in one draw of some thousands (the tails of its bell
shapes); nothing else in a shard depends on code chosen by the processor.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from metro.config import BodyConfig, CropConfig, DatasetConfig, SyntheticConfig
from metro.data.shards import ShardWriter
from metro.sources.synthetic import read_shard

RECORDED = {
    "open": "bda50346a39947aed99e88942143b65da0e84bb35a4388ace524bf9a3b642851",
    "open_hand": "8347f3ab83aabaef9ff96e41b16a942e3b98b07d2630ca4d80df1fcfab44ece5",
}
"""Digests of the shards' contents; run as a script, this file prints them, for when pictures are meant to change."""
COUNTS = {"open": 8, "open_hand": 4}

FOUND = " ".join(np.show_config(mode="dicts")["SIMD Extensions"].get("found", []))
PROCESSORS = {
    "BLAS of Haswell": {"OPENBLAS_CORETYPE": "HASWELL"},
    "BLAS of Prescott": {"OPENBLAS_CORETYPE": "PRESCOTT"},
    "NumPy at its baseline": {"NPY_DISABLE_CPU_FEATURES": FOUND},
    "OpenCV at its baseline": {
        "OPENCV_CPU_DISABLE": "AVX512-SKX,AVX2,FP16,AVX,SSE4.2,SSE4.1",
        "OPENCV_IPP": "disabled",
    },
    "C library without fused multiplication": {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F"},
    "kernels for any processor": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
}


def digests(folder: Path) -> dict[str, str]:
    """Digests of a small shard of people and one of hands."""
    out = {}
    for kind, count in COUNTS.items():
        synthetic = SyntheticConfig(seed=11, count=count, occlusion=0.6)
        config = DatasetConfig(crop=CropConfig(box_px=64), synthetic=synthetic)
        with ShardWriter(folder / f"{kind}.h5", config.crop, hand=kind == "open_hand") as writer:
            for record in read_shard(config, BodyConfig(kind=kind), 0, count):
                writer.add(record)
        with h5py.File(folder / f"{kind}.h5") as file:
            out[kind] = str(file.attrs["digest"])
    return out


def test_pictures_and_labels_are_the_recorded_ones(tmp_path):
    assert digests(tmp_path) == RECORDED


@pytest.mark.parametrize("name", PROCESSORS)
def test_other_processors_make_the_same_shards(name):
    env = {**os.environ, **PROCESSORS[name]}
    done = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == str(RECORDED), done.stderr


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(digests(Path(scratch)))
