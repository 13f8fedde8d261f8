"""The predictor: images of every kind, boxes, frames of reference, files, and one-line refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from metro.cli import export as commands
from metro.errors import MetroError
from metro.export.bundle import Bundle, bundle_of, write_bundle
from metro.export.predictor import Predictor, read_image
from metro.viz.camera import project, to_pixels
from tests.conftest import World
from tests.square import FACES, centre_of_mass, square


@pytest.fixture(scope="module")
def bundle(world: World) -> Bundle:
    return bundle_of(world.model, world.data, world.levels)


@pytest.fixture(scope="module")
def predictor(bundle: Bundle) -> Predictor:
    return Predictor(bundle, "cpu")


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


def test_the_crop_is_what_the_network_was_shown(predictor: Predictor, picture: np.ndarray) -> None:
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
        output = predictor.model((tensor - mean[:, None, None]) / sd[:, None, None])
    assert np.abs(output.vertices[-1][0].numpy() - found.vertices).max() < 1e-5


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
    predictor = Predictor(bundle_of(hands.model, hands.data, hands.levels), "cpu")
    box = [40, 20, 40, 40]
    (right,) = predictor(picture, box)
    mirrored_box = [140 - 1 - 40 - 40 + 1, 20, 40, 40]
    (left,) = predictor(np.ascontiguousarray(picture[:, ::-1]), mirrored_box, left_hand=True)
    assert np.abs(left.vertices * [-1, 1, 1] - right.vertices).max() < 0.02
    assert left.camera[0] == pytest.approx(right.camera[0], abs=0.01)
    before = trimesh.Trimesh(right.vertices, right.faces, process=False).volume
    assert trimesh.Trimesh(left.vertices, left.faces, process=False).volume == pytest.approx(before, rel=0.05)


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
            (b"", "not an image"),
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
    with pytest.raises(MetroError, match="left_hand is for hand models"):
        predictor(picture, left_hand=True)
    with pytest.raises(MetroError, match="pass that image"):
        predictor(picture)[0].overlay()
    with pytest.raises(MetroError, match="image of 70×90 pixels, the prediction is for 140×90"):
        predictor(picture)[0].overlay(picture[:, :70])


def test_predict_command(bundle: Bundle, picture: np.ndarray, tmp_path: Path) -> None:
    model = str(write_bundle(tmp_path / "bundle", bundle))
    one, two = save(picture, tmp_path / "one.png"), save(picture, tmp_path / "two.png")
    commands.predict([one], model=model, box="10,10,50,60;70,5,40,80", out=tmp_path / "a")
    names = {p.name for p in (tmp_path / "a").iterdir()}
    assert names == {"one_overlay.png", *(f"one_{k}.{e}" for k in (0, 1) for e in ("obj", "glb", "json"))}
    table = tmp_path / "boxes.json"
    table.write_text(json.dumps({"one.png": [[0, 0, 50, 50]], "two.png": [[0, 0, 50, 50]]}))
    text = commands.predict([one, two], model=model, boxes=table, out=tmp_path / "b")
    assert text.count("1 predicted") == 2
    assert (tmp_path / "b" / "two.glb").exists()

    listed = tmp_path / "listed.json"
    listed.write_text('["one.png"]')
    for images, arguments, message in (
        ([one, two], {"box": "1,2,3,4"}, "--box is for a single image"),
        ([one], {"box": "1,2,three,4"}, "expected x,y,width,height"),
        ([one], {"box": "1,2,3,4", "boxes": table}, "not both"),
        ([tmp_path / "three.png"], {"boxes": table}, r"has no boxes for three\.png"),
        ([one], {"boxes": tmp_path / "absent.json"}, "cannot be read as JSON"),
        ([one], {"boxes": listed}, r"expected \{"),
    ):
        with pytest.raises(MetroError, match=message):
            commands.predict(images, model=model, out=tmp_path / "c", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "c").exists()


def test_predict_command_keeps_images_of_one_name_apart(bundle: Bundle, picture: np.ndarray, tmp_path: Path) -> None:
    model = str(write_bundle(tmp_path / "bundle", bundle))
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    images = [save(picture, tmp_path / place) for place in ("x/a.png", "y/a.png", "a_1.png")]
    table = tmp_path / "boxes.json"
    boxes = [[[0, 0, 50, 50], [60, 0, 40, 40]], [[10, 0, 50, 50]], [[20, 0, 50, 50]]]

    table.write_text(json.dumps({"a.png": boxes[0], "a_1.png": boxes[2]}))
    with pytest.raises(MetroError, match=r"has no boxes for .*x/a\.png.*y/a\.png; its keys are file names or paths"):
        commands.predict(images, model=model, boxes=table, out=tmp_path / "out")
    table.write_text(json.dumps({str(images[0]): boxes[0], str(images[1]): boxes[1], "a_1.png": boxes[2]}))
    commands.predict(images, model=model, boxes=table, out=tmp_path / "out")
    commands.predict(images[::2], model=model, boxes=table, out=tmp_path / "pair")

    def found(folder: str) -> dict[str, list[float]]:
        return {p.stem: json.loads(p.read_text())["box_xywh"] for p in (tmp_path / folder).glob("*.json")}

    assert found("out") == {"0-a_0": boxes[0][0], "0-a_1": boxes[0][1], "1-a": boxes[1][0], "2-a_1": boxes[2][0]}
    assert found("pair") == {"0-a_0": boxes[0][0], "0-a_1": boxes[0][1], "1-a_1": boxes[2][0]}


def test_export_command(bundle: Bundle, tmp_path: Path) -> None:
    model = str(write_bundle(tmp_path / "bundle", bundle))
    report = commands.export(model=model, out=tmp_path / "copy", onnx=False, torch_export=False)
    assert set(report["bytes"]) == {"bundle.json", "model.safetensors", "geometry.safetensors"}
