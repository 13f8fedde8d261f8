"""Writes MediaPipe's networks as safetensors: ``python -m tools.blazepose FOLDER_OR_WHEEL [--heavy FILE]``.

The first argument is the wheel of PyPI's `mediapipe` 0.10.21 (`pip download --no-deps mediapipe==0.10.21`), or the
folder it is unpacked in; `--heavy` the file `pose_landmark_heavy.tflite` of npm's `@mediapipe/pose` 0.5.1675469404,
which is too large to ship. Both are Apache-2.0. Those that ship also get an ONNX file, which `metro.detect` runs. Needs
`ai-edge-litert` (`pip install --no-deps ai-edge-litert flatbuffers`) and none of MediaPipe. ``--out FOLDER`` writes
elsewhere than into `metro/assets/blazepose`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save

from metro.errors import MetroError
from metro.files import atomic_file
from tools.blazepose.convert import tensors
from tools.blazepose.networks import OTHERS, SHIPPED
from tools.blazepose.programs import write_program


@contextmanager
def modules_of(source: Path) -> Iterator[Path]:
    """The folder `mediapipe/modules` of an unpacked package or a wheel."""
    if source.is_dir():
        yield source / "mediapipe" / "modules"
        return
    if not zipfile.is_zipfile(source):
        raise MetroError(f"{source}: neither a folder nor a wheel; `pip download --no-deps mediapipe==0.10.21`")
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(source) as wheel:
        wheel.extractall(folder, [name for name in wheel.namelist() if name.endswith(".tflite")])
        yield Path(folder) / "mediapipe" / "modules"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.blazepose", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="MediaPipe's wheel, or the folder it is unpacked in")
    parser.add_argument("--heavy", type=Path, help="pose_landmark_heavy.tflite")
    parser.add_argument("--out", type=Path, default=Path("metro/assets/blazepose"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with modules_of(options.source) as modules:
        files = {name: modules / network.file for name, network in SHIPPED.items()}
        networks = dict(SHIPPED)
        if options.heavy is not None:
            files["pose_heavy"], networks["pose_heavy"] = options.heavy, OTHERS["pose_heavy"]
        for name, path in files.items():
            _, make, outputs, unused = networks[name]
            weights = options.out / f"{name}.safetensors"
            with atomic_file(weights) as partial:
                partial.write_bytes(save(tensors(path, make(), outputs, unused)))
            print(weights)
            if name in SHIPPED:
                print(write_program(make(), weights))


if __name__ == "__main__":
    try:
        main()
    except MetroError as err:
        sys.exit(str(err))
