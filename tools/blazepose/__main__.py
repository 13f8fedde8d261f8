"""Writes MediaPipe's networks as safetensors: ``python -m tools.blazepose [FOLDER_OR_WHEEL] [--heavy FILE]``.

The first argument is the wheel of PyPI's `mediapipe` 0.10.21 (`pip download --no-deps mediapipe==0.10.21`), or the
folder it is unpacked in; `--heavy` the file `pose_landmark_heavy.tflite` of npm's `@mediapipe/pose` 0.5.1675469404,
which is too large to ship. Both are Apache-2.0. Those that ship also get an ONNX file, which `metro.detect` runs.
``--standard`` measures the statistics of maps anew, for the networks that are there, and ``--golden FILE`` records what
the tflite files themselves compute, for the tests. Needs the [landmarks] extra and none of MediaPipe.
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
from torch import Tensor

from metro.errors import MetroError
from metro.files import atomic_file
from metro.model.packaged import LANDMARK_NETWORKS, STANDARD
from tools.blazepose.convert import tensors
from tools.blazepose.golden import golden, golden_detectors
from tools.blazepose.networks import DETECTORS, OTHERS, SHIPPED
from tools.blazepose.programs import write_program
from tools.blazepose.standard import standard

ASSETS = Path("metro/assets/blazepose")


@contextmanager
def modules_of(source: Path | None) -> Iterator[Path | None]:
    """The folder `mediapipe/modules` of an unpacked package or a wheel."""
    if source is None or source.is_dir():
        yield None if source is None else source / "mediapipe" / "modules"
        return
    if not zipfile.is_zipfile(source):
        raise MetroError(f"{source}: neither a folder nor a wheel; `pip download --no-deps mediapipe==0.10.21`")
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(source) as wheel:
        wheel.extractall(folder, [name for name in wheel.namelist() if name.endswith(".tflite")])
        yield Path(folder) / "mediapipe" / "modules"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.blazepose", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?", help="MediaPipe's wheel, or the folder it is unpacked in")
    parser.add_argument("--heavy", type=Path, help="pose_landmark_heavy.tflite")
    parser.add_argument("--standard", action="store_true", help="measure mean and deviation of the maps, minutes")
    parser.add_argument("--golden", type=Path, help="write outputs of the tflite files here")
    parser.add_argument("--golden-detectors", type=Path, help="and those of the detectors here")
    parser.add_argument("--out", type=Path, default=ASSETS, help=f"folder to write to (default: {ASSETS})")
    options = parser.parse_args()
    if not (options.source or options.heavy or options.standard):
        parser.error("give MediaPipe's wheel, --heavy or --standard")
    with modules_of(options.source) as modules:
        files = {name: modules / network.file for name, network in SHIPPED.items()} if modules else {}
        finders = {name: modules / network.file for name, network in DETECTORS.items()} if modules else {}
        if options.heavy is not None:
            files["pose_heavy"] = options.heavy
        for name, path in (files | finders).items():
            _, make, outputs, unused = (SHIPPED | DETECTORS | OTHERS)[name]
            write(tensors(path, make(), outputs, unused), options.out / f"{name}.safetensors")
            if name not in OTHERS:
                print(write_program(make(), options.out / f"{name}.safetensors"))
        if options.golden is not None:
            write(golden(files), options.golden)
        if options.golden_detectors is not None:
            write(golden_detectors(finders), options.golden_detectors)
    if options.standard:
        there = {name: options.out / f"{file}.safetensors" for name, file in LANDMARK_NETWORKS.items()}
        measured = [standard(name, weights) for name, weights in there.items() if weights.is_file()]
        write(
            {key: value for state in measured for key, value in state.items()}, options.out / f"{STANDARD}.safetensors"
        )


def write(state: dict[str, Tensor], path: Path) -> None:
    """Write tensors and say so."""
    with atomic_file(path) as partial:
        partial.write_bytes(save(state))
    print(path)


if __name__ == "__main__":
    try:
        main()
    except MetroError as err:
        sys.exit(str(err))
