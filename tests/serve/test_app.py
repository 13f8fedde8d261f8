"""`POST /predict` and its neighbours: the predictor's own answers; for a mistake its status and one sentence."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import trimesh
from fastapi.testclient import TestClient
from PIL import Image as Pil

import metro
from metro.detect import Detection
from metro.export.predictor import Photo, Predictor
from metro.serve.app import CLOSED_REQUEST, create_app
from metro.serve.document import PREDICT
from metro.serve.limits import Limits
from tests.serve.conftest import Serving, encoded

BOXES = [[60.0, 20.0, 90.0, 200.0], [170.0, 30.0, 80.0, 190.0]]


PERSON = Detection((60.0, 20.0, 90.0, 200.0), 0.9)


@dataclass(frozen=True)
class Finding:
    """A detector that does not look."""

    find: Callable[[], list[Detection]]
    name: str = "made up"

    def __call__(self, image: np.ndarray) -> list[Detection]:
        return self.find()


@pytest.fixture(scope="module")
def client(serving: Serving) -> Iterator[TestClient]:
    with serving() as running:
        yield running


def ask(client: TestClient, png: bytes, query: str = "", name: str = "p.png", **fields: str) -> Any:
    return client.post(f"/predict{query}", files={"image": (name, png)}, data=fields)


def refusal(response: Any) -> tuple[int, str]:
    """Status and sentence; nothing else is in it."""
    assert list(response.json()) == ["detail"], response.text
    detail = response.json()["detail"]
    assert isinstance(detail, str)
    assert "\n" not in detail
    return response.status_code, detail


def test_people_are_found_where_no_box_is_given(client: TestClient) -> None:
    """In a picture of the page, and nobody in one of nothing."""
    with TestClient(create_app(metro.load("open"))) as finding:
        (image,) = ask(finding, finding.get("/examples/1.jpg").content).json()["images"]
        (person,) = image["people"]
        assert person["box"] == "found by blazepose"
        x, y, width, height = person["box_xywh"]
        assert min(width, height) > 0.2 * min(image["image_size"])
        assert x > -1
        assert y > -1
        nobody = encoded(np.full((200, 300, 3), 120, np.uint8))
        assert ask(finding, nobody).json()["images"][0]["people"] == []


def test_people_are_those_of_the_predictor(
    client: TestClient, png: bytes, pixels: np.ndarray, predictor: Predictor
) -> None:
    response = ask(client, png, "?vertices=true&focal=500", boxes=json.dumps(BOXES))
    assert response.status_code == 200
    (image,) = response.json()["images"]
    assert (image["image"], image["image_size"]) == ("p.png", [320, 240])
    expected = predictor(Photo(pixels, "p.png"), BOXES)
    for got, person in zip(image["people"], expected, strict=True):
        record = json.loads(person.to_json(vertices=True, focal=500))
        assert got.keys() == record.keys()
        for key in ("joints", "joints_2d", "vertices", "box_xywh"):
            np.testing.assert_allclose(got[key], record[key], atol=1e-3 if key != "joints_2d" else 0.1)
        assert got["perspective"]["focal"] == 500


def test_without_boxes_the_answer_says_what_was_taken(client: TestClient, png: bytes) -> None:
    (person,) = ask(client, png).json()["images"][0]["people"]
    assert person["box"].startswith("none given: the middle square")
    assert "vertices" not in person


def test_several_pictures_each_with_their_own_boxes(client: TestClient, png: bytes) -> None:
    files = [("image", (f"{k}.png", png)) for k in range(3)]
    response = client.post("/predict", files=files, data={"boxes": json.dumps([BOXES, None, []])})
    images = response.json()["images"]
    assert [image["image"] for image in images] == ["0.png", "1.png", "2.png"]
    assert [len(image["people"]) for image in images] == [2, 1, 0]
    assert images[2]["note"].startswith("nobody was found; give the box")


def test_drawings_and_meshes_on_demand(client: TestClient, png: bytes, predictor: Predictor) -> None:
    query = "?overlay=true&obj=true&glb=true"
    (image,) = ask(client, png, query, boxes=json.dumps(BOXES)).json()["images"]
    drawn = cv2.imdecode(np.frombuffer(base64.b64decode(image["overlay_png"]), np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == (240, 320, 3)
    assert (drawn != cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)).any(2).mean() > 0.02
    faces = len(predictor.network.faces_F3)
    alone = trimesh.load(io.BytesIO(image["people"][0]["obj"].encode()), file_type="obj", process=False)
    assert len(alone.faces) == faces
    together = trimesh.load(io.BytesIO(base64.b64decode(image["glb"])), file_type="glb", process=False)
    assert [len(mesh.faces) for mesh in together.geometry.values()] == [faces, faces]


def test_one_drawing_or_mesh_is_sent_as_itself(client: TestClient, png: bytes) -> None:
    drawn = ask(client, png, "?format=png")
    assert drawn.headers["content-type"] == "image/png"
    whole = Pil.open(io.BytesIO(drawn.content))
    assert whole.size == (320, 240)
    small = Pil.open(io.BytesIO(ask(client, png, "?format=png&overlay_side=160").content))
    assert small.size == (160, 120)
    # Drawn small it looks as if it had been made small afterwards.
    difference = np.asarray(small, float) - np.asarray(whole.resize((160, 120), Pil.Resampling.BOX), float)
    assert np.abs(difference).mean() < 2
    mesh = ask(client, png, "?format=glb")
    assert mesh.headers["content-type"] == "model/gltf-binary"
    assert mesh.content.startswith(b"glTF")


def test_a_turned_phone_picture_is_upright(client: TestClient, pixels: np.ndarray) -> None:
    turned, file = Pil.Exif(), io.BytesIO()
    turned[0x0112] = 6
    Pil.fromarray(pixels).save(file, "jpeg", exif=turned)
    assert ask(client, file.getvalue()).json()["images"][0]["image_size"] == [240, 320]


def test_nothing_touches_the_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert len(encoded(noise)) > 4 << 20
    assert ask(client, encoded(noise), "?format=glb").status_code == 200


def test_a_name_is_a_label_and_no_path(client: TestClient, png: bytes, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(np.zeros((50, 60, 3), np.uint8)))
    for name, label in (
        (str(secret), "secret.png"),
        ("..\\..\\a\u200bb.png", "ab.png"),
        ("../..", ".."),
        ("/", "image 0"),
    ):
        (image,) = ask(client, png, "?overlay=true", name=name).json()["images"]
        assert image["image"] == label
        assert image["image_size"] == [320, 240]


@pytest.mark.parametrize(
    ("query", "fields", "status", "told"),
    [
        ("?vertices=perhaps", {}, 422, "vertices: Input should be a valid boolean"),
        ("?vertice=true", {}, 422, "vertice: Extra inputs are not permitted; known: format, vertices"),
        ("?format=stl", {}, 422, "format: Input should be 'json', 'png' or 'glb'"),
        ("?focal=-1", {}, 422, "focal: "),
        ("?focal=nan", {}, 422, "focal: "),
        ("?focal=1e8", {}, 422, "focal: "),
        ("?left_hand=true", {}, 422, "left_hand is for hand models; this one predicts bodies"),
        ("?overlay_side=3", {}, 422, "overlay_side: "),
        ("", {"boxes": "30,20,180,460"}, 422, "boxes: not JSON; expected [[x, y, width, height], ...]"),
        ("", {"boxes": "[[1, 2, 3]]"}, 422, "p.png: boxes: a box is four finite numbers"),
        ("", {"boxes": '{"a": 1}'}, 422, "p.png: boxes: a box is four finite numbers"),
        ("", {"boxes": "[[1, 2, NaN, 4]]"}, 422, "p.png: boxes: a box is four finite numbers"),
        ("", {"boxes": "[" * 100_000}, 422, "boxes: not JSON"),
        ("", {"boxes": "[[900, 900, 10, 10]]"}, 422, "p.png: box 900,900,10,10 is empty or outside the image"),
        (
            "",
            {"boxes": json.dumps([BOXES[0]] * 40)},
            413,
            "40 people are in the pictures; this server takes 32",
        ),
        ("", {"box": "1"}, 422, "text 'box' of the form is not expected here"),
        ("", {"image": "text"}, 422, "text 'image' of the form is not expected here"),
        ("?format=png", {"boxes": "[]"}, 422, "p.png: nobody was found; give the box of the person"),
        ("", {"boxes": "x" * (2 << 20)}, 400, "the form cannot be read (Part exceeded maximum size"),
    ],
)
def test_what_is_asked_wrongly(
    client: TestClient, png: bytes, query: str, fields: dict[str, str], status: int, told: str
) -> None:
    got, detail = refusal(ask(client, png, query, **fields))
    assert (got, detail[: len(told)]) == (status, told)


def test_pictures_that_are_none(client: TestClient, png: bytes) -> None:
    assert refusal(ask(client, b"")) == (422, "p.png: the file is empty")
    status, detail = refusal(ask(client, b"plain text"))
    assert (status, detail) == (415, "p.png: not an image in a known format (JPEG, PNG, WebP, …)")
    assert refusal(ask(client, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"))[0] == 415
    status, detail = refusal(ask(client, png[: len(png) // 2]))
    assert status == 422
    assert detail.startswith("p.png: unreadable image")
    files = [("image", ("good.png", png)), ("image", ("bad.png", b"x"))]
    assert refusal(client.post("/predict", files=files))[1].startswith("bad.png: ")
    assert refusal(client.post("/predict?format=png", files=[("image", ("a", png))] * 2)) == (
        422,
        "format=png is for one picture, here are 2",
    )


def test_forms_that_are_none(client: TestClient, png: bytes) -> None:
    assert refusal(client.post("/predict", content=png, headers={"content-type": "image/png"}))[0] == 415
    assert refusal(client.post("/predict"))[0] == 415
    for kind, body in (
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=a", b"--b\r\n\r\n"),
        ("multipart/form-data; boundary=a", b"--a\r\nContent-Disposition: form-data\r\n\r\nx\r\n--a--\r\n"),
    ):
        status, detail = refusal(client.post("/predict", content=body, headers={"content-type": kind}))
        assert status == 400
        assert detail.startswith("the form cannot be read (")
    empty = client.post("/predict", content=b"--a--\r\n", headers={"content-type": "multipart/form-data; boundary=a"})
    assert refusal(empty)[0] in (400, 422)
    assert client.get("/predict").status_code == 405
    assert client.get("/nowhere").status_code == 404
    two = client.post("/predict", files={"image": ("p.png", png)}, data={"boxes": ["[]", "[]"]})
    assert refusal(two)[1].startswith("text 'boxes' of the form is not expected here or is given twice")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged pictures
def test_damaged_forms_are_never_a_fault_of_the_server(client: TestClient, pixels: np.ndarray) -> None:
    rng, files = np.random.default_rng(0), [encoded(pixels[:40, :50], kind) for kind in (".png", ".jpg", ".tiff")]
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    tail = b'\r\n--b\r\nContent-Disposition: form-data; name="boxes"\r\n\r\n[[1, 2, 30, 30]]\r\n--b--\r\n'
    statuses = []
    for turn in range(150):
        body = bytearray(head + files[turn % 3] + tail)
        for place in rng.integers(0, len(body), rng.integers(0, 5)) % (200 if turn % 2 else len(body)):
            body[place : place + rng.integers(0, 9)] = rng.bytes(rng.integers(0, 9))
        headers = {"content-type": "multipart/form-data; boundary=b"}
        response = client.post("/predict?overlay=true", content=bytes(body), headers=headers)
        statuses.append(response.status_code)
        if response.status_code != 200:
            refusal(response)
    assert {*statuses} <= {200, 400, 413, 415, 422}
    assert {*statuses} >= {200, 400, 422}


def test_limits_on_bytes_pixels_and_people(serving: Serving, png: bytes) -> None:
    with serving(Limits(megabytes=1, megapixels=1, people=3), Finding(lambda: [PERSON] * 4)) as client:
        status, detail = refusal(ask(client, bytes(2 << 20)))
        assert (status, detail.partition(";")[0]) == (413, "the request is larger than 1 MB")
        form = client.build_request("POST", "/predict", files={"image": ("p.png", bytes(2 << 20))})
        chunked = {"content-type": form.headers["content-type"]}
        assert refusal(client.post("/predict", content=iter([form.read()]), headers=chunked))[0] == 413
        blank = encoded(np.zeros((900, 1200, 3), np.uint8))
        status, detail = refusal(ask(client, blank))
        assert (status, detail.partition(";")[0]) == (413, "p.png: more than 1 megapixels in one request")
        header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + blank[24:29]
        bomb = blank[:12] + header + zlib.crc32(header).to_bytes(4, "big") + blank[33:]
        assert refusal(ask(client, bomb))[0] == 413
        assert refusal(ask(client, png)) == (
            413,
            "4 people are in the pictures; this server takes 3 in one request",
        )
        assert ask(client, png, boxes="[[0, 0, 20, 40]]").status_code == 200


def test_more_than_may_wait_are_sent_away(serving: Serving, png: bytes) -> None:
    inside, go = threading.Event(), threading.Event()

    def slow() -> list[Detection]:
        inside.set()
        assert go.wait(10)
        return [PERSON]

    with serving(Limits(waiting=1), Finding(slow)) as client:
        statuses = []
        first = threading.Thread(target=lambda: statuses.append(ask(client, png).status_code))
        first.start()
        assert inside.wait(10)
        refused = ask(client, png)
        assert refusal(refused) == (429, "1 requests are waiting already; try again in a moment")
        assert refused.headers["retry-after"] == "1"
        assert client.get("/health").json() == {"status": "ok", "waiting": 1, "answered": 0}
        go.set()
        first.join()
        assert statuses == [200]
        assert ask(client, png).status_code == 200
        assert client.get("/health").json() == {"status": "ok", "waiting": 0, "answered": 2}


def test_a_fault_of_the_server_is_told_as_one(serving: Serving, png: bytes) -> None:
    def broken() -> list[Detection]:
        raise RuntimeError("inner words")

    with serving(None, Finding(broken)) as client:
        assert refusal(ask(client, png)) == (500, "the server failed; its log says why")
        assert client.get("/health").json()["waiting"] == 0
        assert ask(client, png, boxes="[[0, 0, 99, 99]]").status_code == 200


@pytest.mark.parametrize(("kind", "status"), [("slow", 408), ("gone", CLOSED_REQUEST)])
def test_clients_that_stall_or_leave(predictor: Predictor, kind: str, status: int) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if kind == "slow":
            await asyncio.sleep(0.3)
            return {"type": "http.request", "body": b"--a\r\n", "more_body": True}
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def call() -> None:
        app = create_app(predictor, Limits(seconds=0.1))
        scope = {
            **{"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "root_path": ""},
            "headers": [(b"content-type", b"multipart/form-data; boundary=a")],
            "app": app,
        }
        await app(scope, receive, send)

    asyncio.run(call())
    assert sent[0]["status"] == status


def test_what_runs_here(client: TestClient) -> None:
    told = client.get("/version").json()
    assert told["model"]["joint_names"][0] == "R_Ankle"
    assert told["limits"]["megabytes"] == 32


def test_the_page_and_its_parts_name_no_other_place(client: TestClient) -> None:
    for path in ("/", "/docs", "/page.css", "/page.js", "/turntable.js"):
        response = client.get(path)
        assert response.status_code == 200
        assert "//" not in response.text.replace("// ", "").replace("http://testserver/predict", "")
        assert "default-src 'none'" in response.headers["content-security-policy"]
    for number in (1, 2, 3):
        assert Pil.open(io.BytesIO(client.get(f"/examples/{number}.jpg").content)).format == "JPEG"


def test_openapi_tells_fields_options_and_every_status(client: TestClient, png: bytes) -> None:
    call = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    assert set(call["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]) == {"image", "boxes"}
    assert {option["name"] for option in call["parameters"]} >= {"format", "vertices", "overlay", "obj", "glb"}
    assert {*call["responses"]} == {"200", "400", "408", "413", "415", "422", "429"}
    example = PREDICT["responses"][200]["content"]["application/json"]["example"]
    answer = ask(client, png, boxes=json.dumps(BOXES[:1])).json()
    assert example["images"][0].keys() == answer["images"][0].keys()
    assert example["images"][0]["people"][0].keys() == answer["images"][0]["people"][0].keys()
    page = client.get("/docs").text
    for word in ("image=@photo.jpg", "overlay_side", "429", "/health", "/version", "model/gltf-binary"):
        assert word in page
