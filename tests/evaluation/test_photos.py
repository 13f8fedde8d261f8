"""Benchmark `photos`: numbers worked out by hand, who is matched and missed, and what labels are refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from metro.body.joints import JOINT_SETS
from metro.detect import Detection
from metro.errors import MetroError
from metro.evaluation.photo_figures import write_cases
from metro.evaluation.photo_labels import LIMBS, read_labels
from metro.evaluation.photos import METRICS, Photos, assign, judge, shown, turn
from metro.export.predictor import Predictor
from tests.reference import reference

STANCE = {
    **{"R_Shoulder": (-9, -30), "R_Elbow": (-25, -15), "R_Wrist": (-30, 5)},
    **{"L_Shoulder": (9, -30), "L_Elbow": (25, -15), "L_Wrist": (30, 5)},
    **{"R_Hip": (-8, 0), "R_Knee": (-9, 20), "R_Ankle": (-9, 40)},
    **{"L_Hip": (8, 0), "L_Knee": (9, 20), "L_Ankle": (9, 40)},
}
"""Where the network below sees everybody's joints: hundredths of the box's longer side from its middle, facing us."""
WIDTH, HEIGHT = 400, 300


class Still:
    """A network that says the same of whatever it sees."""

    faces_F3 = np.array([[0, 1, 2]])
    meta: Mapping[str, Any] = {
        "model": {"joint_set": "J14", "image_size": 32},
        "joint_names": JOINT_SETS["J14"],
    }

    def __call__(self, pixels_BSS3: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # The crop, from -1 to 1, is 1.2 of the box's longer side: 60 hundredths are 1.
        joints = np.array([(*STANCE.get(name, (0, 0)), 0) for name in JOINT_SETS["J14"]], np.float32) / 60
        count = len(pixels_BSS3)
        camera = np.tile(np.array([1, 0, 0], np.float32), (count, 1))
        vertices = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]], np.float32)
        return camera, np.tile(joints, (count, 1, 1)), np.tile(vertices, (count, 1, 1))


def person(
    number: int,
    picture: int,
    middle: tuple[float, float],
    side: float = 100,
    off: Mapping[str, tuple[float, float]] | None = None,
    without: tuple[str, ...] = (),
    mirrored: bool = False,
) -> dict[str, Any]:
    """COCO's annotation of somebody in the stance, some of whose joints are off by so many pixels or not annotated."""
    x, y = middle  # of the box, edges of pixels: half a pixel more than where centres count
    numbers: list[float] = []
    for name in JOINT_SETS["COCO17"]:
        if name not in STANCE or name in without:
            numbers += [0, 0, 0]
            continue
        right, down = STANCE[name]
        dx, dy = (off or {}).get(name, (0, 0))
        right = -right if mirrored else right
        numbers += [x - 0.5 + side / 100 * right + dx, y - 0.5 + side / 100 * down + dy, 2 if dx == 0 else 1]
    box = [x - 0.3 * side, y - 0.5 * side, 0.6 * side, side]
    return {"id": number, "image_id": picture, "category_id": 1, "iscrowd": 0, "bbox": box, "keypoints": numbers}


def write(folder: Path, people: list[dict[str, Any]], **changes: Any) -> Path:
    """Labels of these people, and a picture for each id they name."""
    numbers = sorted({p["image_id"] for p in people})
    for number in numbers:
        cv2.imwrite(str(folder / f"{number}.png"), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    images = [{"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in numbers]
    path = folder / "people.json"
    path.write_text(json.dumps({"images": images, "annotations": people} | changes))
    return path


def judged(path: Path, **options: Any) -> Photos:
    return judge(Predictor(Still()), read_labels(path), path.parent, **options)


# Off by 9.9 and 19.9 px of a box of 100 counts at 0.1 and at 0.2; by 10.1 and 20.1 does not.
WHOLE = person(5, 1, (200, 150), off={"L_Wrist": (9.9, 0), "R_Wrist": (0, 10.1), "L_Ankle": (-20.1, 0)})
# A box of 200 forgives twice as much: 15 px counts, 30 px at 0.2 only, 50 px never. The wrists are not annotated.
PART = person(
    6,
    1,
    (150, 140),
    side=200,
    off={"L_Hip": (15, 0), "R_Hip": (0, 30), "R_Knee": (0, -30), "L_Ankle": (0, 50), "R_Ankle": (50, 0)},
    without=("L_Wrist", "R_Wrist"),
)
BACK = person(3, 2, (200, 150), mirrored=True)


def test_shares_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    result = judged(write(tmp_path, [WHOLE, PART]))
    told = {key: entry["value"] for key, entry in result.summary["metrics"].items()}
    # 10 and 11 of 12 joints; 6 and 8 of 10.
    assert result.values["pck10"] == pytest.approx([10 / 12, 6 / 10])
    assert result.values["pck20"] == pytest.approx([11 / 12, 8 / 10])
    assert told["pck10"] == pytest.approx(71.667)
    assert told["pck20"] == pytest.approx(85.833)
    assert (told["pck10_whole"], told["pck10_part"]) == (83.333, 60)
    assert (told["pck20_whole"], told["pck20_part"]) == (91.667, 80)
    # Resamples of two people are one of them twice, or both.
    assert result.summary["metrics"]["pck10"]["ci95"] == pytest.approx([60, 83.333])
    assert result.summary["metrics"]["pck10"]["n"] == 2
    assert result.summary["metrics"]["pck10_part"]["n"] == 1


def test_joints_have_their_own_shares(tmp_path: Path) -> None:
    result = judged(write(tmp_path, [WHOLE, PART])).summary
    single = {entry["joint"]: (entry["n"], entry["pck10"]["value"], entry["pck20"]["value"])
              for entry in result["per_joint"]}  # fmt: skip
    assert single["L_Shoulder"] == (2, 100, 100)
    assert single["L_Wrist"] == (1, 100, 100)
    assert single["R_Wrist"] == (1, 0, 100)
    assert single["R_Hip"] == (2, 50, 100)
    assert single["L_Ankle"] == (2, 0, 0)
    assert single["R_Ankle"] == (2, 50, 50)
    groups = {entry["group"]: entry["pck10"]["value"] for entry in result["joint_groups"]}
    assert groups == {"shoulders": 100, "elbows": 100, "wrists": 50, "hips": 75, "knees": 75, "ankles": 25}
    text = shown(result)
    assert "71.7 %" in text
    assert [line.split() for line in text.splitlines() if line.startswith("ankles")] == [
        ["ankles", *(word for share in 2 * ("25.0", "0.0", "50.0") for word in (share, "%")), "4"]
    ]


def test_who_is_seen_from_behind_and_drawn_as_a_front_is_wrong(tmp_path: Path) -> None:
    result = judged(write(tmp_path, [WHOLE, BACK]))
    assert result.summary["metrics"]["facing_front"]["value"] == 100
    assert result.summary["metrics"]["facing_back"]["value"] == 0
    assert [result.summary["metrics"][f"facing_{side}"]["n"] for side in ("front", "back")] == [1, 1]
    # Elbows and wrists on the wrong side are 50 and 60 px off, shoulders, knees and ankles 18, hips 16.
    assert result.values["pck10"][1] == 0
    assert result.values["pck20"][1] == pytest.approx(8 / 12)


@pytest.mark.parametrize(
    ("changed", "fronts", "backs"),
    [
        ({}, 1, 0),
        ({"mirrored": True}, 0, 1),
        ({"without": ("L_Hip",)}, 0, 0),
        ({"off": {"L_Shoulder": (-14, 0)}}, 0, 0),  # 4 px apart, of a box of 100
        ({"off": {"L_Shoulder": (-12, 0)}}, 1, 0),  # 6 px
        ({"off": {"L_Shoulder": (-40, 0)}}, 0, 0),  # shoulders one way, hips the other
    ],
)
def test_facing_is_told_where_shoulders_and_hips_agree(
    changed: dict[str, Any], fronts: int, backs: int, tmp_path: Path
) -> None:
    values = judged(write(tmp_path, [person(1, 1, (200, 150), **changed)])).values
    assert np.isfinite(values["facing_front"]).sum() == fronts
    assert np.isfinite(values["facing_back"]).sum() == backs


def test_people_keep_their_rows_over_many_pictures_and_whatever_order_the_file_has(tmp_path: Path) -> None:
    joints = list(STANCE)
    people = [
        person(100 - k, k, (150 + 5 * k, 150), off={name: (0, 60) for name in joints[:k]}) for k in range(1, 11)
    ]  # person k has k joints wrong
    path = write(tmp_path, people[::-1])
    first = judged(path, batch_size=3)
    assert first.people.ids.tolist() == [100 - k for k in range(1, 11)]
    assert first.values["pck20"] == pytest.approx([(12 - k) / 12 for k in range(1, 11)])
    assert [case["id"] for case in first.summary["cases"]["worst"]] == [90, 91, 92, 93]
    labels = json.loads(path.read_text())
    path.write_text(json.dumps({"annotations": labels["annotations"][::-1], "images": labels["images"][::-1]}))
    assert judged(path, batch_size=64).summary == first.summary
    assert len(read_labels(path, limit=3)) == 3


def test_people_whom_a_detector_misses_are_wrong(tmp_path: Path) -> None:
    class Finder:
        name = "finder"

        def __call__(self, image: np.ndarray) -> list[Detection]:
            assert image.shape == (HEIGHT, WIDTH, 3)
            # Over the middle of the first person, 60 of 100 high; where nobody is; nothing near the second.
            return [Detection((350, 10, 20, 20), 0.99), Detection((70, 69.5, 60, 60), 0.9)]

    path = write(tmp_path, [person(1, 1, (100, 100)), person(2, 1, (250, 150))])
    result = judged(path, detector=Finder())
    # Joints at 60 of 100 of their true places are off by 40 of 100 of their distance from the middle: at most 16.5 px.
    assert result.boxes_N4[0].tolist() == [70, 69.5, 60, 60]
    assert np.isnan(result.boxes_N4[1]).all()
    assert result.values["pck20"].tolist() == [1, 0]
    assert result.values["facing_front"].tolist() == [1, 0]
    assert result.summary["metrics"]["pck20"]["value"] == 50
    result.write(tmp_path / "out")
    write_cases(result, Predictor(Still()), tmp_path, tmp_path / "out")
    assert cv2.imread(str(tmp_path / "out/worst.png")) is not None
    with np.load(tmp_path / "out/samples.npz") as stored:
        assert stored["picture"].tolist() == ["1.png", "1.png"]
        assert np.isinf(stored["distance"][1]).all()
        assert set(METRICS) < set(stored.files)
    assert json.loads((tmp_path / "out/metrics.json").read_text())["pck20_pct"] == 50
    strict = json.loads((tmp_path / "out/result.json").read_text(), parse_constant=pytest.fail)
    assert strict["protocol"]["name"] == "photos"


def test_boxes_find_their_people_best_pairs_first() -> None:
    people = np.array([[0, 0, 10, 10], [4, 0, 10, 10], [50, 0, 10, 10]])
    both, first, far = (Detection((x, 0, 10, 10), 0.5) for x in (3, -1, 90))
    assert assign(people, [both, first, far]) == [first, both, None]
    assert assign(people, []) == [None, None, None]
    assert assign(people[:1], [Detection((0, 0, 10, 2.9), 0.5)]) == [None]  # 29 of 100
    narrow = Detection((0, 0, 10, 3.1), 0.5)
    assert assign(people[:1], [narrow]) == [narrow]


def test_who_is_left_out_is_counted(tmp_path: Path) -> None:
    arms = tuple(name for name in STANCE if "Wrist" not in name and "Elbow" not in name)
    crowd = person(10, 1, (200, 150)) | {"iscrowd": 1, "keypoints": [0]}
    others = [
        person(7, 1, (200, 150), without=arms),  # 4 joints
        person(8, 1, (200, 150), without=tuple(STANCE)[:7]),  # 5 joints
        person(9, 1, (200, 150)) | {"bbox": [200, 150, 0, 10]},
        person(11, 1, (200, 150)) | {"category_id": 18},
        crowd,
    ]
    few = person(12, 1, (200, 150), without=tuple(STANCE)[:6])  # 6 joints
    result = judged(write(tmp_path, [WHOLE, few, *others]))
    assert result.people.ids.tolist() == [5, 12]
    assert sorted(result.summary["left_out"].values()) == [1, 1, 1, 2]
    assert "2 fewer than 6 limb joints annotated" in shown(result.summary)


def changed(**changes: Any) -> Callable[[Path], Path]:
    return lambda folder: write(folder, [WHOLE | changes, PART])


def keypoints(at: int, value: Any) -> list[Any]:
    return [*WHOLE["keypoints"][:at], value, *WHOLE["keypoints"][at + 1 :]]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda folder: folder / "none.json", r"none\.json: missing"),
        (lambda folder: folder, "is a folder"),
        (lambda folder: write(folder, [WHOLE], annotations=[]), r"nobody to be judged \(no annotations\)"),
        (lambda folder: write(folder, [WHOLE | {"iscrowd": 1}]), r"nobody to be judged \(1 left out: crowd\)"),
        (lambda folder: write(folder, [WHOLE], annotations={}), "has no list 'annotations'"),
        (lambda folder: write(folder, [WHOLE], annotations=[1]), "annotation 0: has no id"),
        (lambda folder: write(folder, [WHOLE, WHOLE]), "annotation of id 5: another before has the same id"),
        (lambda folder: write(folder, [WHOLE], images=[]), "annotation of id 5: image_id 1 is of no image"),
        (lambda folder: write(folder, [WHOLE], images=[{"id": 1}]), "image of id 1 has no file_name"),
        (lambda folder: write(folder, [WHOLE], images=2 * [{"id": 1, "file_name": "a"}]), "two images have the id 1"),
        (changed(id="5"), "annotation 0: has no id"),
        (changed(image_id=1.5), "annotation 0: has no image_id"),
        (changed(bbox=[1, 2, 3]), "id 5: bbox is not 4 numbers"),
        (changed(bbox=[1, 2, 3, "4"]), "id 5: bbox is not 4 numbers"),
        (changed(bbox=[0.2, 0.2, 0.4, 0.5]), "no joint is near its box; both must be in pixels"),
        (changed(keypoints=keypoints(0, float("nan"))), "id 5: keypoints is not 51 numbers"),
        (changed(keypoints=keypoints(0, 1e300)), "id 5: keypoints is not 51 numbers"),
        (changed(keypoints=WHOLE["keypoints"][:48]), "id 5: keypoints is not 51 numbers"),
        (changed(keypoints=keypoints(17, 0.7)), "third number that is not 0, 1 or 2"),
    ],
)
def test_labels_that_cannot_be_right_are_refused(made: Callable[[Path], Path], said: str, tmp_path: Path) -> None:
    with pytest.raises(MetroError, match=said):
        read_labels(made(tmp_path))


def test_pictures_must_be_the_annotated_ones(tmp_path: Path) -> None:
    path = write(tmp_path, [WHOLE, BACK])
    cv2.imwrite(str(tmp_path / "2.png"), np.zeros((WIDTH, HEIGHT, 3), np.uint8))
    with pytest.raises(MetroError, match=r"2\.png: has 300×400 pixels, its labels are for 400×300; .* nor turned"):
        judged(path)
    (tmp_path / "2.png").write_text("words")
    with pytest.raises(MetroError, match=r"2\.png: not an image"):
        judged(path)
    (tmp_path / "2.png").unlink()
    with pytest.raises(MetroError, match=r"2\.png: no such image \(1 of 2 labelled ones are missing\)"):
        judged(path)


def test_hand_models_are_refused(tmp_path: Path) -> None:
    network = Still()
    network.meta = {"model": {"joint_set": "HAND21", "image_size": 32}}
    with pytest.raises(MetroError, match="photos is for bodies; this model predicts hands"):
        judge(Predictor(network), read_labels(write(tmp_path, [WHOLE])), tmp_path)


def test_a_real_annotation_is_read() -> None:
    people = read_labels(reference("real/person_keypoints_785.json"))
    assert (people.ids.tolist(), people.files) == ([442619], ("000000000785.jpg",))
    assert people.annotated_NL.all()
    assert people.joints_NL2[0, LIMBS.index("L_Wrist")].tolist() == [449, 165]
    assert people.boxes_N4[0] == pytest.approx([280.29, 44.23, 218.7, 346.68])
    assert turn(people.joints_NL2).tolist() == [[399 - 358, 424 - 393]]
