"""What the tflite files themselves compute, run by LiteRT, for the tests of our modules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from metro.detect.programs import INPUT_PX
from tools.blazepose.networks import DETECTORS, OTHERS, SHIPPED
from tools.blazepose.standard import pictures


def run(path: Path, image_HW3: np.ndarray, outputs: tuple[int, ...]) -> list[np.ndarray]:
    """Some outputs of a tflite file for one RGB image in [0, 1]."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image_HW3[None].astype(np.float32))
    interpreter.invoke()
    found = interpreter.get_output_details()
    return [interpreter.get_tensor(found[number]["index"]) for number in outputs]


def golden(files: Mapping[str, Path]) -> dict[str, Tensor]:
    """A rendered person, or hand, as PNG and the outputs for it, by `NETWORK.picture` and `NETWORK.0`, `.1`, …"""
    recorded: dict[str, Tensor] = {}
    for name, path in files.items():
        outputs = (SHIPPED | OTHERS)[name].outputs
        hand = name.startswith("hand")
        (picture,) = pictures(hand, 1, 224 if hand else 256)
        _, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
        recorded[f"{name}.picture"] = torch.from_numpy(png)
        for number, value in enumerate(run(path, picture / 255, outputs)):
            recorded[f"{name}.{number}"] = torch.from_numpy(value.flatten())
    return recorded


def golden_detectors(files: Mapping[str, Path]) -> dict[str, Tensor]:
    """As `golden`, of every 16th anchor: scores (A, 1), and boxes and points (A, N)."""
    recorded: dict[str, Tensor] = {}
    for name, path in files.items():
        (picture,) = pictures(name == "palm_detector", 1, INPUT_PX[name])
        _, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
        recorded[f"{name}.picture"] = torch.from_numpy(png)
        # The one for people takes images from -1 to 1, which our module does by itself.
        image = picture / 127.5 - 1 if name == "pose_detector" else picture / 255
        for number, value in enumerate(run(path, image, DETECTORS[name].outputs)):
            recorded[f"{name}.{number}"] = torch.from_numpy(value[0, ::16].copy())
    return recorded
