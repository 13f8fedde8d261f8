"""What samples are grouped by."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from metro.evaluation.evaluate import evaluate
from metro.evaluation.strata import named_groups, overlaps, told
from tests.conftest import World
from tests.evaluation.test_evaluate import FEW

H36M = {"subject": "S11", "action": "Photo", "camera": "60457274"}


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("pw3d:imageFiles/downtown_bar_00/image_00012.jpg#1", {"sequence": "downtown_bar_00"}),
        (
            "mpi_inf_3dhp:mpi_inf_3dhp_test_set/TS5/imageSequence/img_000001.jpg#0",
            {"sequence": "TS5", "scene": "outdoors"},
        ),
        ("mpi_inf_3dhp:S8/Seq2/imageSequence/video_13.avi@20#0", {"sequence": "S8/Seq2", "camera": "13"}),
        ("mpi_inf_3dhp:S1/Seq1/imageFrames/video_0/frame_000001.jpg#0", {"sequence": "S1/Seq1", "camera": "0"}),
        ("h36m:S11/Videos/TakingPhoto 1.60457274.mp4@5#0", H36M),
        ("h36m:s11/Videos/Photo.60457274.mp4@5#0", H36M),
        ("h36m:S11/S11_Photo_1.60457274/S11_Photo_1.60457274_000006.jpg#0", H36M),
        ("h36m:images/S11_Photo.60457274_000006.jpg#0", H36M),
        ("h36m:S11/Images/Photo 1.60457274/frame_000005.jpg#0", H36M),
        ("h36m:images/s_11_act_12_subact_02_ca_04/s_11_act_12_subact_02_ca_04_000006.jpg#0", H36M),
        ("coco:train2017/000000000009.jpg#1", {}),
    ],
)
def test_what_names_tell(key: str, found: dict[str, str]) -> None:
    assert told(key.encode()) == found


def test_groups_by_name() -> None:
    keys = [f"h36m:S{s}/Videos/Eating.54138969.mp4@{k}#0".encode() for k, s in enumerate((11, 9, 11))] + [b"made:0#0"]
    found = named_groups(keys, np.array([0, 1, 3]))
    assert [(word, rows.tolist()) for word, rows in found["subject"]] == [
        ("S9", [False, True, False]),
        ("S11", [True, False, False]),
    ]
    assert list(found) == ["action", "subject", "camera"]


def test_overlap_of_boxes_by_hand() -> None:
    keys = np.array([b"s:a#0", b"s:b#0", b"s:a#1", b"s:a#2", b"s:c#0"])
    box = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [5, 0, 10, 20], [100, 0, 5, 5], [3, 3, 1, 1]], np.float32)
    assert overlaps({"keys": keys, "box": box}).tolist() == pytest.approx([0.5, np.nan, 0.25, 0, np.nan], nan_ok=True)


def test_a_result_tells_its_groups_and_why_others_are_absent(world: World) -> None:
    people = copy.copy(world.dataset)
    box = world.dataset.labels["box"].copy()
    box[:2, 0] += 1000  # of the first frames of both sequences, whose people then stand apart
    people.labels = {
        **world.dataset.labels,
        "keys": np.array([f"pw3d:imageFiles/{'ab'[i % 2]}/{i // 4}.jpg#{i}".encode() for i in range(12)]),
        "box": box,
        "scale": np.where(np.arange(12) < 3, 1.0, 2.0).astype(np.float32),
    }
    summary = evaluate(world.model, people, world.body, "open", FEW).summary
    groups = {name: [(e["group"], e["n"]) for e in entries] for name, entries in summary["groups"].items()}
    assert groups["sequence"] == [("a", 6), ("b", 6)]
    assert groups["side"] == [("128–256 px", 3), ("256–512 px", 9)]
    assert groups["overlap"] == [("nobody's box over theirs", 4), ("more than a quarter", 8)]
    assert {"action", "occlusion", "subject", "camera", "scene"} <= summary["absent"].keys()
    assert not summary["absent"].keys() & groups.keys()
