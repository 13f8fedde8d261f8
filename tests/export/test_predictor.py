"""The predictor: images of every kind, boxes, frames of reference, files, and one-line refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from metro.detect import Detection
from metro.errors import MetroError
from metro.export.bundle import bundle_of
from metro.export.networks import TorchNetwork
from metro.export.predictor import Photo, Predictor, read_image, read_photo, save_scene
from metro.viz.camera import project, to_pixels
from tests.conftest import World
from tests.square import FACES, centre_of_mass, square


@pytest.fixture(scope="module")
def predictor(world: World) -> Predictor:
    return Predictor(TorchNetwork(bundle_of(world.model, world.data, world.levels), "cpu"))


@pytest.fixture
def picture() -> np.ndarray:
    image = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    return cv2.GaussianBlur(image, (0, 0), 3)


def save(image: np.ndarray, path: Path, mode: str | None = None, **options: object) -> Path:
    Image.fromarray(image, mode).save(path, **options)  # type: ignore[arg-type]
    return path


def test_one_image_one_person(predictor: Predictor, picture: np.ndarray) -> None:
    (found,) = predictor(picture, [30, 10, 40, 70])
    assert found.vertices.shape == (6890, 3)
    assert found.joints.shape == (14, 3)
    assert found.joint_names[0] == "R_Ankle"
    assert found.image_size == (140, 90)
    # The crop is 1.2 × the longer side, around the box's middle.
    assert 64 / found.affine[0, 0] == pytest.approx(1.2 * 70)
    assert found.to_image([[31.5, 31.5]])[0] == pytest.approx([50, 45])
    assert found.score is None
    assert not found.assumed


def test_boxes_may_bring_a_score_and_there_may_be_none(predictor: Predictor, picture: np.ndarray) -> None:
    (plain,) = predictor(picture, [30, 10, 40, 70])
    (scored,) = predictor(picture, [[30, 10, 40, 70, 0.75]])
    assert np.array_equal(scored.vertices, plain.vertices)
    assert scored.box == plain.box
    assert json.loads(scored.to_json())["score"] == 0.75
    assert "score" not in json.loads(plain.to_json())
    assert predictor(picture, []) == predictor(picture, np.zeros((0, 4))) == predictor([]) == []
    assert [p.picture for p in predictor([picture, picture], [[], [[30, 10, 40, 70]]])] == [1]


def test_an_assumed_box_is_told(predictor: Predictor, picture: np.ndarray) -> None:
    (found,) = predictor(picture)
    assert found.assumed
    assert "a tight box around the person gives better results" in json.loads(found.to_json())["box"]
    assert json.loads(predictor(picture, [30, 10, 40, 70])[0].to_json())["box"] == "as given"


def test_a_photo_is_not_read_again(predictor: Predictor, picture: np.ndarray) -> None:
    (found,) = predictor(Photo(picture, "clip 7"), [30, 10, 40, 70])
    assert json.loads(found.to_json())["image"] == "clip 7"
    assert np.array_equal(found.vertices, predictor(picture, [30, 10, 40, 70])[0].vertices)
    with pytest.raises(MetroError, match="clip 7: box 200"):
        predictor(Photo(picture, "clip 7"), [200, 10, 40, 70])


def test_the_crop_is_what_the_network_was_shown(world: World, predictor: Predictor, picture: np.ndarray) -> None:
    """A box of crop size, brought to the network by hand, gives the same prediction."""
    (found,) = predictor(picture, [40, 20, 64 / 1.2, 30])
    left, top = round(40 + 64 / 2.4 - 31.5), round(20 + 15 - 31.5)
    affine = np.array([[1, 0, -(40 + 64 / 2.4 - 31.5)], [0, 1, -(20 + 15 - 31.5)]])
    crop = cv2.warpAffine(picture, affine, (64, 64))
    assert np.abs(found.affine - affine).max() < 1e-9
    assert (left, top) == (35, 4)
    tensor = torch.from_numpy(crop).permute(2, 0, 1)[None] / 255
    mean, sd = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        output = world.model((tensor - mean[:, None, None]) / sd[:, None, None])
    assert np.abs(output.vertices[-1][0].numpy() - found.vertices).max() < 1e-5


def test_a_network_that_gives_nan_is_refused(world: World, picture: np.ndarray) -> None:
    network = TorchNetwork(bundle_of(world.model, world.data, world.levels), "cpu")

    class Broken:
        meta, faces_F3 = network.meta, network.faces_F3

        def __call__(self, pixels_BSS3: np.ndarray) -> tuple[np.ndarray, ...]:
            camera, joints, vertices = network(pixels_BSS3)
            return camera, joints, np.where(np.arange(len(vertices[0]))[:, None] == 7, np.nan, vertices)

    with pytest.raises(MetroError, match="answer is not finite"):
        Predictor(Broken())(picture)  # type: ignore[arg-type]


def test_order_and_batching(predictor: Predictor, picture: np.ndarray) -> None:
    boxes = [[0, 0, 50, 50], [60, 20, 40, 60]]
    together = predictor([picture, picture[:, ::-1]], [boxes, None], batch_size=2)
    assert [p.picture for p in together] == [0, 0, 1]
    alone = predictor(picture, boxes[1])[0]
    assert np.abs(together[1].vertices - alone.vertices).max() < 1e-5
    assert together[2].box == (24.5, -0.5, 90, 90)  # the largest square in the middle; pixel 0 begins at -0.5


def test_a_picture_of_the_networks_size_is_its_own_crop(predictor: Predictor, picture: np.ndarray) -> None:
    (found,) = predictor(picture[:64, :64])
    assert found.affine == pytest.approx(np.eye(2, 3))


def test_joints_2d_agree_with_the_camera(predictor: Predictor, picture: np.ndarray) -> None:
    (found,) = predictor(picture, [30, 10, 40, 70])
    s, tx, ty = found.camera
    uv = s * (found.joints[:, :2] + [tx, ty])
    crop = to_pixels(uv, 64)
    back = np.c_[found.joints_2d, np.ones(14)] @ found.affine.T
    assert np.abs(back - crop).max() < 1e-4
    assert np.abs(project(found.joints, found.camera, 64) - crop).max() < 1e-4


def test_the_overlay_lies_where_the_camera_projects(predictor: Predictor, picture: np.ndarray) -> None:
    (found,) = predictor(picture, [30, 10, 40, 70])
    found = replace(found, vertices=square((0.1, -0.2)), faces=FACES, camera=np.array([0.9, 0.1, -0.1]))
    black = np.zeros_like(picture)
    drawn = found.overlay(black)
    assert drawn.shape == picture.shape
    expected = found.to_image(project([[0.1, -0.2, 0]], found.camera, 64))[0]
    assert centre_of_mass(black, drawn) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("focal", [None, 300.0, 2000.0])
def test_perspective_translation(predictor: Predictor, picture: np.ndarray, focal: float | None) -> None:
    """A point at the root's depth falls on the same pixel through the pinhole as through the weak perspective."""
    (found,) = predictor(picture, [70, 10, 40, 70])
    x, y, z = np.array([0.2, -0.3, 0.0]) + found.translation(focal)
    f = focal or np.hypot(140, 90)
    pixel = [f * x / z + 69.5, f * y / z + 44.5]
    expected = found.to_image(project([[0.2, -0.3, 0.0]], found.camera, 64))[0]
    assert pixel == pytest.approx(expected, abs=1e-3)


def test_left_hands_are_mirrored(hands: World, picture: np.ndarray) -> None:
    predictor = Predictor(TorchNetwork(bundle_of(hands.model, hands.data, hands.levels), "cpu"))
    box = [40, 20, 40, 40]
    (right,) = predictor(picture, box)
    mirrored_box = [140 - 1 - 40 - 40 + 1, 20, 40, 40]
    (left,) = predictor(np.ascontiguousarray(picture[:, ::-1]), mirrored_box, left_hand=True)
    assert np.abs(left.vertices * [-1, 1, 1] - right.vertices).max() < 0.02
    assert left.camera[0] == pytest.approx(right.camera[0], abs=0.01)
    before = trimesh.Trimesh(right.vertices, right.faces, process=False).volume
    assert trimesh.Trimesh(left.vertices, left.faces, process=False).volume == pytest.approx(before, rel=0.05)


class Known:
    """A detector that knows what is there."""

    name = "known"

    def __init__(self, *found: Detection) -> None:
        self.found = list(found)

    def __call__(self, image: np.ndarray) -> list[Detection]:
        return self.found


def test_people_are_found_where_no_boxes_are_given(predictor: Predictor, picture: np.ndarray) -> None:
    landmarks = np.ones((33, 3))
    finding = Predictor(predictor.network, Known(Detection((30, 10, 40, 70), 0.75, landmarks)))
    (given,) = predictor(picture, [30, 10, 40, 70])
    (found, boxed) = finding([picture, picture], [None, [30, 10, 40, 70]])
    assert np.abs(found.vertices - given.vertices).max() < 1e-5
    assert (found.box, found.score, found.detector, found.assumed) == (given.box, 0.75, "known", False)
    assert found.landmarks is landmarks
    assert json.loads(found.to_json())["box"] == "found by known"
    assert (boxed.detector, boxed.score, boxed.landmarks) == ("", None, None)
    assert Predictor(predictor.network, Known())(picture) == []


def test_left_hands_that_are_found_are_mirrored(hands: World, picture: np.ndarray) -> None:
    network = TorchNetwork(bundle_of(hands.model, hands.data, hands.levels), "cpu")
    box = (40.0, 20.0, 40.0, 40.0)
    finding = Predictor(network, Known(Detection(box, 0.9, left=True), Detection(box, 0.8)))
    found = finding(picture)
    for one, left in zip(found, (True, False), strict=True):
        (expected,) = Predictor(network)(picture, box, left_hand=left)
        assert np.abs(one.vertices - expected.vertices).max() < 1e-5
        assert np.array_equal(one.faces, expected.faces)


def test_a_second_pass_looks_at_the_first_mesh(predictor: Predictor, picture: np.ndarray) -> None:
    (first,) = predictor(picture, [30, 10, 40, 70])
    (second,) = Predictor(predictor.network, passes=2)(picture, [30, 10, 40, 70])
    pixels = first.to_image(project(first.vertices, first.camera, 64))
    low, high = pixels.min(0), pixels.max(0)
    (again,) = predictor(picture, [*low, *(high - low)])
    assert np.abs(second.vertices - again.vertices).max() < 1e-5
    assert second.affine == pytest.approx(again.affine)
    assert second.box == first.box


def test_files(predictor: Predictor, picture: np.ndarray, tmp_path: Path) -> None:
    (found,) = predictor(save(picture, tmp_path / "a.png"))
    for path in (found.save_obj(tmp_path / "o" / "a.obj"), found.save_glb(tmp_path / "o" / "a.glb")):
        mesh = trimesh.load(path, force="mesh", process=False)
        assert len(mesh.faces) == 13776
        assert np.ptp(mesh.vertices, axis=0) == pytest.approx(np.ptp(found.vertices, axis=0), abs=1e-4)
        # Upright: what is low in the picture (y down) is low in the file (y up).
        lowest = found.vertices[found.vertices[:, 1].argmax()]
        assert mesh.vertices[:, 1].min() == pytest.approx(-lowest[1], abs=1e-4)
    record = json.loads(found.to_json(vertices=True))
    assert len(record["vertices"]) == 6890
    assert record["image"] == str(tmp_path / "a.png")
    assert np.allclose(record["joints_2d"], found.joints_2d, atol=0.01)
    assert "vertices" not in json.loads(found.to_json())
    assert found.overlay().shape == picture.shape


def test_a_scene_shows_people_where_the_overlay_does(predictor: Predictor, picture: np.ndarray, tmp_path: Path) -> None:
    """Every vertex, seen by a pinhole camera at the scene's origin, falls where the root's depth magnifies it to."""
    people = predictor(picture, [[30, 10, 40, 70], [70, 5, 40, 80]])
    scene = trimesh.load(save_scene(tmp_path / "s.glb", people, 200.0))
    for k, person in enumerate(people):
        x, y, z = (np.asarray(scene.geometry[f"person_{k}"].vertices) * [1, -1, -1]).T  # back to camera axes
        depth = person.translation(200.0)[2]
        shifted = person.vertices.astype(np.float64)
        pixels = person.to_image(project(shifted, person.camera, person.crop_size))
        assert z - depth == pytest.approx(shifted[:, 2], abs=1e-5)
        assert np.c_[200 * x / depth + 69.5, 200 * y / depth + 44.5] == pytest.approx(pixels, abs=1e-2)
    record = json.loads(people[0].to_json(focal=200.0))["perspective"]
    assert record["focal"] == 200
    assert record["translation"] == pytest.approx(people[0].translation(200.0), abs=1e-5)
    assert record["note"] == "for the given focal length"


@pytest.mark.parametrize("focal", [0.0, -3.0, float("nan"), float("inf")])
def test_what_is_no_focal_length(predictor: Predictor, picture: np.ndarray, focal: float) -> None:
    with pytest.raises(MetroError, match="expected a positive number of pixels"):
        predictor(picture)[0].translation(focal)


def test_glb_has_normals_and_a_material(
    world: World, predictor: Predictor, picture: np.ndarray, tmp_path: Path
) -> None:
    body = replace(predictor(picture)[0], vertices=world.data.v_template * [1, -1, -1])
    drawn = trimesh.load(body.save_glb(tmp_path / "a.glb")).geometry["person"]
    assert drawn.volume == pytest.approx(0.07, abs=0.03)  # cubic metres; negative if faces looked inwards
    given = np.array(drawn.vertex_normals)
    outward = trimesh.Trimesh(drawn.vertices, drawn.faces, process=False).vertex_normals
    assert np.linalg.norm(given, axis=1) == pytest.approx(1, abs=1e-5)
    assert (given * outward).sum(1).min() > 0  # trimesh weights faces by their angles
    assert (given * outward).sum(1).mean() > 0.99
    assert drawn.visual.material.baseColorFactor.tolist() == [140, 165, 210, 255]


class TestReading:
    def test_greyscale(self, picture: np.ndarray, tmp_path: Path) -> None:
        grey = picture[..., 0]
        read = read_image(save(grey, tmp_path / "g.png"))
        assert np.array_equal(read, np.repeat(grey[..., None], 3, 2))
        assert np.array_equal(read_image(grey), read)
        assert np.array_equal(read_image(grey[..., None]), read)

    def test_sixteen_bits(self, tmp_path: Path) -> None:
        grey = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
        cv2.imwrite(str(tmp_path / "g16.png"), grey)
        assert np.abs(read_image(tmp_path / "g16.png")[..., 0] - grey / 257.0).max() <= 1

    def test_alpha_lies_on_white(self, picture: np.ndarray, tmp_path: Path) -> None:
        alpha = np.full((*picture.shape[:2], 1), 255, np.uint8)
        alpha[:10] = 0
        alpha[10:20] = 51
        read = read_image(save(np.concatenate((picture, alpha), 2), tmp_path / "a.png"))
        assert (read[:10] == 255).all()
        assert np.abs(read[10:20] - (0.2 * picture[10:20] + 0.8 * 255)).max() <= 1
        assert np.array_equal(read[20:], picture[20:])

    def test_palette_and_cmyk(self, picture: np.ndarray, tmp_path: Path) -> None:
        Image.fromarray(picture).convert("P").save(tmp_path / "p.gif")
        Image.fromarray(picture).convert("CMYK").save(tmp_path / "c.jpg", quality=95)
        for name in ("p.gif", "c.jpg"):
            assert np.abs(read_image(tmp_path / name).astype(int) - picture).mean() < 25

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation(self, orientation: int, picture: np.ndarray, tmp_path: Path) -> None:
        """The eight cases of the EXIF standard: where the stored first row and column lie in the scene."""
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = {
            1: picture,
            2: picture[:, ::-1],
            3: picture[::-1, ::-1],
            4: picture[::-1],
            5: picture.swapaxes(0, 1),
            6: np.rot90(picture, 1),
            7: picture[::-1, ::-1].swapaxes(0, 1),
            8: np.rot90(picture, -1),
        }[orientation]
        path = save(np.ascontiguousarray(stored), tmp_path / "e.png", exif=exif)
        assert np.array_equal(read_image(path), picture)

    def test_floats(self, picture: np.ndarray) -> None:
        assert np.array_equal(read_image(picture / 255.0), picture)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "not an image: the file is empty"),
            (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image, which is not read; save it as JPEG"),
            (b"GIF89a but no more", "unreadable image|not an image"),
            (b"hello" * 99, "not an image"),
        ],
    )
    def test_corrupt(self, content: bytes, message: str, tmp_path: Path) -> None:
        (tmp_path / "bad.jpg").write_bytes(content)
        with pytest.raises(MetroError, match=message) as caught:
            read_image(tmp_path / "bad.jpg")
        assert "bad.jpg" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_truncated_jpeg(self, picture: np.ndarray, tmp_path: Path) -> None:
        path = save(picture, tmp_path / "cut.jpg")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(MetroError, match=r"cut\.jpg: unreadable image .* is the file complete\?"):
            read_image(path)

    def test_a_hundred_megapixels(self, tmp_path: Path) -> None:
        """In a process of its own, which tells its peak of memory; no warning of Pillow's comes through."""
        Image.new("RGB", (10_000, 10_000), (10, 200, 30)).save(tmp_path / "large.jpg")
        code = (
            "import sys, re; from metro.export.predictor import read_image; image = read_image(sys.argv[1]);"
            "print(image.shape, *image[5, 5], re.search('VmHWM:.*?([0-9]+)', open('/proc/self/status').read())[1])"
        )
        words = [sys.executable, "-c", code, str(tmp_path / "large.jpg")]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        *told, peak = done.stdout.rsplit(maxsplit=4)
        assert told[0] == "(10000, 10000, 3)"
        assert np.abs(np.array(told[1:], int) - (10, 200, 30)).max() <= 3
        assert int(peak) < 1_200_000  # kB
        assert done.stderr == ""

    def test_what_is_larger_than_any_camera_makes(self, tmp_path: Path) -> None:
        Image.new("1", (16_000, 16_000)).save(tmp_path / "huge.png")
        with pytest.raises(MetroError, match=r"huge\.png: an image of more than 178 megapixels; make it smaller"):
            read_image(tmp_path / "huge.png")

    def test_of_an_animation_the_first_frame_is_read(self, picture: np.ndarray, tmp_path: Path) -> None:
        frames = [Image.fromarray(picture), Image.fromarray(picture[::-1].copy())]
        for name in ("a.webp", "a.png", "a.gif"):
            frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
            photo = read_photo(tmp_path / name)
            assert photo.frames == 2
            assert np.abs(photo.pixels.astype(int) - picture).mean() < 25
        assert read_photo(save(picture, tmp_path / "still.png")).frames == 1

    def test_an_animation_that_is_cut_between_frames(self, tmp_path: Path) -> None:
        first, second = (Image.new("L", (8, 8), grey) for grey in (10, 200))
        first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
        whole, said = (tmp_path / "a.gif").read_bytes(), set()
        for end in range(whole.rindex(b",") - 20, len(whole)):
            (tmp_path / "a.gif").write_bytes(whole[:end])
            try:
                said.add(read_photo(tmp_path / "a.gif").frames)
            except MetroError as err:
                said.add(str(err).partition(" (")[0])
        assert said == {1, 2, f"{tmp_path / 'a.gif'}: unreadable image"}

    def test_not_files(self, tmp_path: Path) -> None:
        with pytest.raises(MetroError, match="no such image"):
            read_image(tmp_path / "none.jpg")
        with pytest.raises(MetroError, match="is a folder"):
            read_image(tmp_path)

    @pytest.mark.parametrize(
        "array", [np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((2, 3, 4, 3), np.uint8)]
    )
    def test_arrays_that_are_no_images(self, array: np.ndarray) -> None:
        with pytest.raises(MetroError, match="image array of shape"):
            read_image(array)

    def test_arrays_of_other_types(self) -> None:
        with pytest.raises(MetroError, match="image array of int64; expected uint8"):
            read_image(np.zeros((4, 4, 3), np.int64))
        with pytest.raises(MetroError, match="image array of float32"):
            read_image(np.full((4, 4, 3), 200, np.float32))


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([200, 10, 20, 20], "empty or outside the image of 140×90 pixels"),
        ([10, 10, 0, 20], "empty or outside"),
        ([10, 10, -5, 20], "empty or outside"),
        ([10, 10, 20], "a box is four finite numbers"),
        ([10, 10, float("nan"), 20], "a box is four finite numbers"),
        ([10, 10, 10**400, 20], "a box is four finite numbers"),
        ([10, 10, 20, 1e308], "or more than 10 times as large"),
        ([10, 10, 20, 1000], "^image: a box of 1200 pixels is more than 8 times as large as the picture of 140 × 90"),
        ([10, 10, 20, 20, 0.5, 0.5], "a box is four finite numbers"),
        ([[]], "a box is four finite numbers"),
        ({}, "a box is four finite numbers"),
        ("10,10,20,20", "a box is four finite numbers"),
        ([[1, 2, 3, 4], [5, 6]], "a box is four finite numbers"),
    ],
)
def test_bad_boxes(predictor: Predictor, picture: np.ndarray, boxes: object, message: str) -> None:
    with pytest.raises(MetroError, match=message):
        predictor(picture, boxes)  # type: ignore[arg-type]


def test_boxes_that_stick_out_are_fine(predictor: Predictor, picture: np.ndarray) -> None:
    assert len(predictor(picture, [-20, -20, 60, 60])) == 1


def test_mismatched_lists(predictor: Predictor, picture: np.ndarray) -> None:
    with pytest.raises(MetroError, match="2 images but boxes for 1"):
        predictor([picture, picture], [[0, 0, 10, 10]])
    for size in (0, -1):
        with pytest.raises(MetroError, match=f"batch_size {size}: expected a positive number"):
            predictor(picture, batch_size=size)
    with pytest.raises(MetroError, match="left_hand is for hand models"):
        predictor(picture, left_hand=True)
    with pytest.raises(MetroError, match="pass that image"):
        predictor(picture)[0].overlay()
    with pytest.raises(MetroError, match="image of 70×90 pixels, the prediction is for 140×90"):
        predictor(picture)[0].overlay(picture[:, :70])


def test_a_picture_of_millions_of_pixels_along_a_side_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("L", (1, 70_000)).save(tmp_path / "long.png")
    with pytest.raises(MetroError, match=r"long\.png: an image of 1×70000 pixels; more than 65535 along a side"):
        read_image(tmp_path / "long.png")
