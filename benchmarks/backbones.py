"""How long the landmark networks' trunks take for a picture, in each of the ways in which they can be run.

``python benchmarks/backbones.py [FOLDER]`` takes two minutes and writes ``benchmarks/backbones.md``. FOLDER holds
MediaPipe's own tflite files (`mediapipe/modules/…`, and `pose_landmark_heavy.tflite`); without it LiteRT's columns stay
empty. Each figure is milliseconds of processor time of one thread for one picture, because other jobs may share the
machine: the smallest of several rounds in which all ways take turns.
"""

from __future__ import annotations

import io
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import machine

from metro.model.backbones import LandmarkMap, build_backbone

BATCHES = (1, 8, 32)
ROUNDS = 5
FILES = {
    "blazepose": "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
    "blazepose_heavy": "pose_landmark_heavy.tflite",
    "blazehand": "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
}
COLUMNS = ("torch", "torch, channels_last", "torch.compile", "ONNX Runtime", "LiteRT, whole network")


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    rows = [row for name in FILES for row in rows_of(name, folder)]
    lines = [
        f"Made by `python benchmarks/backbones.py FOLDER` on {machine()}; torch {torch.__version__}, one thread.",
        "",
        "Milliseconds for one picture, from pixels to the features that a cache would keep, without gradients:",
        "",
        f"| backbone | batch | {' | '.join(COLUMNS)} |",
        f"| --- | --- |{' --- |' * len(COLUMNS)}",
        *rows,
        "",
        "LiteRT runs MediaPipe's files as they are, one picture at a time, with heat maps and segmentation that the ",
        "trunks leave out.",
    ]
    text = "\n".join(line.rstrip() for line in lines) + "\n"
    (Path(__file__).parent / "backbones.md").write_text(text)
    print(text)


def rows_of(name: str, folder: Path | None) -> list[str]:
    size = 224 if name == "blazehand" else 256
    backbone, *_ = build_backbone(name, "none", size)
    assert isinstance(backbone, LandmarkMap)
    backbone.eval()
    lasting = build_backbone(name, "none", size)[0].eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled = torch.compile(lasting.features)
    session = onnx_session(backbone, size)
    litert = None if folder is None else litert_of(folder / FILES[name])
    rows = []
    for batch in BATCHES:
        images = torch.rand(batch, 3, size, size)
        along = images.contiguous(memory_format=torch.channels_last)
        pixels, one = images.numpy(), images[:1].permute(0, 2, 3, 1).contiguous().numpy()
        ways: list[Callable[[], object] | None] = [
            lambda x=images: backbone.features(x),  # type: ignore[misc]
            lambda x=along: lasting.features(x),  # type: ignore[misc]
            lambda x=along: compiled(x),  # type: ignore[misc]
            lambda x=pixels: session.run(None, {"image": x}),  # type: ignore[misc]
            None if litert is None or batch > 1 else lambda x=one: litert(x),  # type: ignore[misc]
        ]
        figures = [f"{1000 * t / batch:.1f}" if t else "" for t in fastest(ways)]
        rows.append(f"| {name if batch == 1 else ''} | {batch} | {' | '.join(figures)} |")
    return rows


def fastest(ways: list[Callable[[], object] | None]) -> list[float]:
    """Seconds of each way, taking turns; 0 for one that there is not."""
    best = [0.0 if way is None else float("inf") for way in ways]
    with torch.inference_mode():
        for _ in range(ROUNDS + 1):
            for number, way in enumerate(ways):
                if way is not None:
                    start = time.process_time()
                    way()
                    best[number] = min(best[number], time.process_time() - start)
    return best


class Features(torch.nn.Module):
    """`features` as a network of its own, to be exported."""

    def __init__(self, backbone: LandmarkMap) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.backbone.features(image)


def onnx_session(backbone: LandmarkMap, size: int):  # type: ignore[no-untyped-def]
    import onnxruntime

    shapes = {"image": {0: torch.export.Dim("batch", min=1, max=4096)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Features(backbone),
            (torch.rand(2, 3, size, size),),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["image"],
            verbose=False,
        )
    assert program is not None
    file = io.BytesIO()
    program.save(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])


def litert_of(path: Path) -> Callable[[np.ndarray], object]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    place = interpreter.get_input_details()[0]["index"]

    def run(image: np.ndarray) -> None:
        interpreter.set_tensor(place, image)
        interpreter.invoke()

    return run


if __name__ == "__main__":
    main()
