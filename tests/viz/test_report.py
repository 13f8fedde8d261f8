"""The report: complete, offline, and honest about what the numbers allow to say."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from metro.errors import MetroError
from metro.viz import report
from metro.viz.report import SECTIONS, Content, DataSet, _quantised, verdict, write_report

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


COST = {"parameters_m": 1.25, "trained_parameters_m": 0.5, "forward_gflop": 0.125, "training_tflop": 3.0}
STUDY = {
    "study": "masking", "benchmark": "b", "samples": 50, "seeds": [1, 2], "reference": "off", "axis": None,
    "metrics": {"mpjpe": {"label": "MPJPE", "unit": "mm", "lower_is_better": True}}, "ranked_by": "mpjpe",
    "verdict": "Best in MPJPE is <both>.",
    "variants": [
        {"name": "off", "cost": COST, "metrics": {"mpjpe": {"value": 12.0, "ci95": [11, 13], "seeds": [11.5, 12.5]}}},
        {"name": "both", "cost": COST, "metrics": {"mpjpe": {
            "value": 9.0, "ci95": None, "seeds": [9.0], "difference": -3.0, "people_ci95": [-4, -2],
            "seeds_ci95": None, "p": 0.01, "p_holm": 0.02, "told_apart": False,
        }}},
    ],
}  # fmt: skip

FIT = {
    "count": 7, "accepted": 5, "rejected": {"no joints": 2}, "kept_meshes": 0, "converged": 1.0,
    "error_3d_mm": {"mean": 1.334, "p50": 1.2, "p95": 2.5, "max": 3.0}, "error_2d_percent": None,
}  # fmt: skip


def entry(value: float, unit: str = "mm", label: str = "MPJPE") -> dict:
    return {
        "label": label, "unit": unit, "meaning": "m", "lower_is_better": True, "value": value,
        "ci95": [value - 2, value + 2], "n": 50,
    }  # fmt: skip


def result(ratio: float = 0.7, low: float = 0.6, high: float = 0.8) -> dict:
    score = {"mpjpe": {"value": 100 / ratio, "ratio": ratio, "ratio_ci95": [low, high]}}
    return {
        "schema": 1, "benchmark": "b", "samples": 50,
        "protocol": {"name": "open", "title": "Open <benchmark>", "description": "d", "joints": ["Neck"]},
        "model": {},
        "metrics": {"mpjpe": entry(100.0), "pck50": entry(30.0, "%", "PCK@50")},
        "baselines": {
            "origin": "training labels", "count": 9,
            **{name: score for name in ("camera_mean", "canonical_mean", "canonical_true_heading")},
        },
        "per_joint": [{"joint": "Neck", "mpjpe": 40.0, "pa_mpjpe": 20.0, "camera_mean": 60.0}],
        "joint_groups": [],
        "groups": {"heading": [{"group": "front", "n": 3, "mpjpe": {"value": 1.0, "ci95": None, "camera_mean": 2.0}}]},
        "curve": {},
        "cases": {k: [{"index": i, "key": "x", "mpjpe": 10.0 + i}] for i, k in enumerate(("best", "median", "worst"))},
    }  # fmt: skip


OCCLUSION = {
    "people": 5,
    "benchmark": "b",
    "hidden": [0.0, 0.123],
    "patch": {"people": 2, "side": 0.25, "steps": 6},
    "networks": [
        {
            "objects": [{"share": k, "mpjpe_mm": 50.0 + k, "ci95": [40, 60]} for k in (0, 1)],
            "patch": [{"joint": "Neck", "covered_mm": None, "elsewhere_mm": 1.5}],
        }
    ],
}


@pytest.fixture
def content(tmp_path: Path) -> Content:
    folder, attention = tmp_path / "bench", tmp_path / "attention"
    folder.mkdir()
    attention.mkdir()
    (folder / "result.json").write_text(json.dumps(result()))
    for name in ("best", "median", "worst", "joints", "pck", "distribution", "groups_heading"):
        cv2.imwrite(str(folder / f"{name}.png"), PICTURE)
    mesh = np.random.default_rng(1).normal(size=(3, 4, 3)).astype(np.float32)
    true = mesh.copy()
    true[1] = np.nan
    np.savez(
        folder / "cases.npz",
        kind=np.array(["best", "median", "worst"]),
        index=np.arange(3),
        image=np.stack([PICTURE] * 3),
        predicted=mesh,
        true=true,
        faces=np.array([[0, 1, 2], [0, 2, 3]], np.int32),
    )
    part = {"part": "head", "times_even": 3.0, "ci95": [2.875, 3.125]}
    query = {"joint": "Neck", "on_joints": 0.1, "top_joints": {"Neck": 2.0}, "top_parts": [part]}
    last = {"block": 1, "layer": 1, "share_on_joints": 0.2, "share_on_joints_if_uniform": 0.03, "queries": [query]}
    layer = {"block": 1, "layer": 1, "effective_tokens": 444.0, "same_for_all": 0.9, "lower_limbs": "Refuted here."}
    head = {"block": 1, "layer": 1, "head": 2, "effective_tokens": 440.0, "share_on_joints": 0.2, "top_parts": {}}
    facts = {"images": 4, "tokens": 445, "layers": [layer], "heads": [head], "examples": [], "last": last}
    (attention / "attention.json").write_text(json.dumps(facts))
    cv2.imwrite(str(attention / "mean.png"), PICTURE)
    (tmp_path / "occlusion").mkdir()
    (tmp_path / "occlusion/occlusion.json").write_text(json.dumps(OCCLUSION))
    cv2.imwrite(str(tmp_path / "occlusion/patch.png"), PICTURE)
    manifest = {"count": 7, "skipped": 1, "licence": "CC0", "shards": [{"bytes": 1200}], "statistics": {"has_mesh": 5}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "curves.json").write_text(json.dumps([{"step": s, "loss/total": 1.0, "lr": 1e-3} for s in range(5)]))
    (tmp_path / "study").mkdir()
    (tmp_path / "study/study.json").write_text(json.dumps(STUDY))
    cv2.imwrite(str(tmp_path / "study/study.png"), PICTURE)
    return Content(
        title="A title & more",
        lead="Lead.",
        facts={"preset": "open"},
        benchmarks={"b": folder},
        curves=tmp_path / "curves.json",
        train={"steps": 1200},
        studies={"masking": tmp_path / "study"},
        attention=attention,
        occlusion=tmp_path / "occlusion",
        datasets=[DataSet("people", tmp_path / "manifest.json", "training", None, FIT)],
        costs=COST,
        weights={"backbone": 1_250_000},
        card={"seed": "88"},
        commands={"results": ["dvc repro evaluate@b"], "photographs": ["never shown"]},
        versions={"torch": "2.0"},
        export={"bundle/bundle.json": 2345},
        runs={"train": "tags.`dvc.out` = 'abc.dir'"},
    )


class Page(HTMLParser):
    """Collects sources, links, ids, text and what concerns readers without eyes or mouse; checks that tags close."""

    VOID = frozenset({"meta", "img", "input", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.pictures: list[str | None] = []
        self.levels: list[int] = []
        self.focusable: set[str] = set()
        self.tables_in_scroll: list[bool] = []
        self.scrolls: list[bool] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.sources += [v for k, v in attrs if k == "src" and v]
        self.links += [v for k, v in attrs if k == "href" and v]
        self.ids |= {named["id"]} if named.get("id") else set()
        self.focusable |= {tag} if named.get("tabindex") == "0" else set()
        if tag == "img" and "src" in named:
            self.pictures.append(named.get("alt"))
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "table":
            self.tables_in_scroll.append(any(self.scrolls))
        if tag not in self.VOID:
            self.open.append(tag)
            self.scrolls.append(named.get("class") == "scroll" and named.get("tabindex") == "0")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.scrolls.pop()

    def handle_data(self, data: str) -> None:
        self.text += f"{data} " if not {"script", "style"} & set(self.open) else ""


def read(content: Content, path: Path) -> Page:
    """The page of the content, taken apart."""
    page = Page()
    page.feed(write_report(content, path).read_text())
    assert page.open == []
    page.text = " ".join(page.text.split())
    return page


def test_everything_is_in_one_file(content: Content, tmp_path: Path) -> None:
    path = tmp_path / "out" / "report.html"
    page = read(content, path)
    text = path.read_text()
    assert all(source.startswith("data:image/") for source in page.sources)
    assert [link for link in page.links if not link.startswith("#")] == []
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    assert {*SECTIONS} - {"photographs"} <= page.ids
    assert "A title &amp; more" in text
    assert "Open &lt;benchmark&gt;" in text
    assert not re.search(r"url\(|@import|<link", text)
    assert "<code>tags.`dvc.out` = &#39;abc.dir&#39;</code>" in text
    assert "Best in MPJPE is &lt;both&gt;." in text
    assert "both 9.0 -3.0 -4.0 – -2.0 0.02 1.25 0.50 0.12 3" in page.text
    assert "all trainings of study masking, TFLOP 12" in page.text  # two variants, two seeds
    assert "Results dvc repro evaluate@b" in page.text
    assert "never shown" not in page.text
    assert "spreads its attention almost evenly" in text


def test_the_same_content_gives_the_same_bytes(content: Content, tmp_path: Path) -> None:
    first, second = (write_report(content, tmp_path / f"{k}.html").read_bytes() for k in range(2))
    assert first == second


def test_it_can_be_read_without_eyes_or_mouse(content: Content, tmp_path: Path) -> None:
    page = read(content, tmp_path / "r.html")
    assert page.pictures
    assert all(page.pictures)  # alternative texts
    assert page.levels[0] == 1
    assert all(after <= before + 1 for before, after in zip(page.levels, page.levels[1:], strict=False))
    assert "canvas" in page.focusable
    assert page.tables_in_scroll
    assert all(page.tables_in_scroll)  # on a narrow screen the table scrolls, not the page


def test_terms_are_spelled_out_before_the_first_number(content: Content, tmp_path: Path) -> None:
    text = read(content, tmp_path / "r.html").text
    assert text.index("mean per-joint position error") < text.index("100.0 mm")
    assert "percentage of correct keypoints" in text
    assert "mean per-vertex error" not in text  # the page has no MPVE


def test_no_raw_keys_and_sizes_that_say_something(content: Content, tmp_path: Path) -> None:
    text = read(content, tmp_path / "r.html").text
    assert "people 7 5 2 no joints 0 100.0 % – 1.33 mm (2.50) –" in text
    assert "bundle/bundle.json 2.3 kB" in text
    assert "_" not in text


HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>" + "x" * 200


def test_names_are_text_whatever_they_hold(content: Content, tmp_path: Path) -> None:
    hostile = replace(
        content,
        title=HOSTILE,
        lead=HOSTILE,
        facts={HOSTILE: HOSTILE},
        train={HOSTILE: HOSTILE},
        benchmarks={HOSTILE: content.benchmarks["b"]},
        datasets=[replace(content.datasets[0], name=HOSTILE, role=HOSTILE)],
        export={HOSTILE: 3},
        runs={HOSTILE: HOSTILE},
    )
    plain, page = (read(c, tmp_path / f"{k}.html") for k, c in enumerate((content, hostile)))
    assert page.sources == plain.sources
    assert page.text.count(HOSTILE) >= 10
    scripts = [(tmp_path / f"{k}.html").read_text().count("<script") for k in range(2)]
    assert scripts[0] == scripts[1]


def test_photographs_are_shown_in_shares(content: Content, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    both = {"pck10": {"value": 61.5, "ci95": None}, "pck20": {"value": None, "ci95": None}}
    told = {
        "metrics": {"pck10": entry(71.7, "%", "PCK@0.1")}, "joint_groups": [{"group": "wrists", "joints": [], **both}],
        "samples": 38, "protocol": {"name": "photos", "description": "d"},
    }  # fmt: skip
    (tmp_path / "photos/result.json").write_text(json.dumps(told))
    cv2.imwrite(str(tmp_path / "photos/worst.png"), PICTURE)
    page = read(replace(content, benchmarks={}, photos={"street": tmp_path / "photos"}), tmp_path / "r.html")
    assert "street: 38 people" in page.text
    assert "71.7 % 69.7 – 73.7 50" in page.text
    assert "wrists 61.5 –" in page.text
    assert "photographs" in page.ids
    assert any("worst cases of street" in text for text in page.pictures)


@pytest.mark.parametrize("count", [1, 10])
def test_any_number_of_benchmarks(content: Content, tmp_path: Path, count: int) -> None:
    many = {f"benchmark-{k}": content.benchmarks["b"] for k in range(count)}
    page = read(replace(content, benchmarks=many), tmp_path / "r.html")
    assert {f"meshes-{k + 1}" for k in range(count)} == {name for name in page.ids if name.startswith("meshes-")}
    assert page.text.count("95 % interval 98.0 – 102.0") == count


def test_what_is_not_a_number_is_a_dash(content: Content, tmp_path: Path) -> None:
    unknown = result()
    nan = float("nan")
    unknown["metrics"]["mpjpe"] |= {"value": nan, "ci95": None, "n": 0}
    unknown["groups"]["heading"][0]["mpjpe"]["value"] = nan
    unknown["per_joint"][0]["mpjpe"] = nan
    for name in ("camera_mean", "canonical_mean", "canonical_true_heading"):
        unknown["baselines"][name] = {"mpjpe": {"value": nan, "ratio": nan, "ratio_ci95": None}}
    (content.benchmarks["b"] / "result.json").write_text(json.dumps(unknown))
    with np.load(content.benchmarks["b"] / "cases.npz") as arrays:
        np.savez(content.benchmarks["b"] / "cases.npz", **{**arrays, "predicted": np.full((3, 4, 3), np.nan)})
    study = json.loads(json.dumps(STUDY))
    study["variants"][1]["metrics"]["mpjpe"] |= {"value": nan, "difference": nan, "people_ci95": None}
    (content.studies["masking"] / "study.json").write_text(json.dumps(study))
    path = tmp_path / "r.html"
    page = read(content, path)
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", page.text, re.IGNORECASE)
    assert "MPJPE is not known" in page.text
    packed = re.search(r'id="meshes-1">(.*?)</script>', path.read_text(), re.S)[1]  # type: ignore[index]
    assert [case["predicted"] for case in json.loads(packed, parse_constant=pytest.fail)["cases"]] == [None] * 3


def test_meshes_survive_the_packing(content: Content, tmp_path: Path) -> None:
    text = write_report(content, tmp_path / "r.html").read_text()
    packed = json.loads(re.search(r'id="meshes-1">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    with np.load(content.benchmarks["b"] / "cases.npz") as arrays:
        for case, vertices in zip(packed["cases"], arrays["predicted"], strict=True):
            raw = np.frombuffer(base64.b64decode(case["predicted"]["data"]), "<i2").reshape(-1, 3)
            assert np.abs(raw * case["predicted"]["scale"] - vertices).max() < 1e-4
        assert [case["true"] is None for case in packed["cases"]] == [False, True, False]
        faces = np.frombuffer(base64.b64decode(packed["faces"]), "<u4")
        assert faces.tolist() == arrays["faces"].reshape(-1).tolist()


def test_parts_may_be_missing(tmp_path: Path) -> None:
    page = read(Content("Only a title"), tmp_path / "r.html")
    assert "Only a title" in page.text
    assert page.ids == {"content", "reading"}
    assert {*page.links} == {"#content", "#reading"}


def test_each_section_is_in_the_contents_and_opens_with_a_sentence(content: Content, tmp_path: Path) -> None:
    text = write_report(content, tmp_path / "r.html").read_text()
    listed = re.findall(r'href="#(\w+)"', re.search(r"<nav.*?</nav>", text, re.S)[0])  # type: ignore[index]
    assert listed == re.findall(r'<section id="(\w+)">', text)
    opened = re.findall(r'<section id="(\w+)">\s*<h2>.*</h2>\s*<p class="about">[A-Z].*\.</p>', text)
    assert opened == listed == [key for key in SECTIONS if key in listed]


def judged(content: Content, protocol: str, **metrics: dict) -> None:
    """Let the benchmark be of this protocol and have these metrics."""
    path = content.benchmarks["b"] / "result.json"
    told = json.loads(path.read_text())
    told["protocol"]["name"] = protocol
    told["metrics"] |= metrics
    path.write_text(json.dumps(told))


def test_published_numbers_stand_apart_from_those_of_rendered_people(content: Content, tmp_path: Path) -> None:
    judged(content, "3dpw", pa_mpjpe=entry(60.0, label="PA-MPJPE"))  # the protocol alone does not make the set
    page = read(replace(content, origins={"b": "synthetic"}), tmp_path / "r.html")
    head = page.text[: page.text.index("METRO as published, on other data")]
    assert "b MPJPE, mm 100.0 98.0 – 102.0 50 –" in head
    assert "Errors on rendered people are not comparable with numbers published for photographs" in head
    assert "77.1" not in head
    assert "Human3.6M, protocol 2 HRNet-W64, in the paper 54.0 36.7" in page.text
    assert "3DPW test set HRNet-W64 fine-tuned on 3DPW, in the paper 77.1 47.9" in page.text
    assert "FreiHAND" not in page.text[: page.text.index("How to read this #")]  # no metric of hands here


def test_published_numbers_stand_beside_those_of_the_same_set(content: Content, tmp_path: Path) -> None:
    judged(content, "h36m-p2")
    page = read(replace(content, origins={"b": "h36m"}), tmp_path / "r.html")
    assert "b MPJPE, mm 100.0 98.0 – 102.0 50 54.0 HRNet-W64, in the paper" in page.text
    assert "not comparable with numbers published for photographs" not in page.text
    other = page.text[page.text.index("METRO as published, on other data") : page.text.index("Results #")]
    assert "Human3.6M" not in other
    assert "3DPW" in other


def test_hands_are_told_both_published_ways(content: Content, tmp_path: Path) -> None:
    judged(content, "freihand", joints_aligned=entry(9.0, label="PA-MPJPE"))
    text = read(replace(content, origins={"b": "freihand"}), tmp_path / "r.html").text
    assert "50 6.5 HRNet-W64 with test-time augmentation, in the paper 6.6 HRNet-W64 in one pass, published" in text


def test_large_pictures_shrink_until_the_page_is_small_enough(
    content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    cv2.imwrite(str(content.benchmarks["b"] / "best.png"), noise)
    whole = write_report(content, tmp_path / "whole.html").stat().st_size
    monkeypatch.setattr(report, "LIMIT", whole - 1)
    text = write_report(content, tmp_path / "r.html").read_text()
    assert len(text.encode()) < whole
    packed = re.search(r'src="data:image/jpeg;base64,([^"]+)" alt="Images of the best', text)[1]  # type: ignore[index]
    assert cv2.imdecode(np.frombuffer(base64.b64decode(packed), np.uint8), 1).shape == (300, 300, 3)
    assert not caplog.records
    monkeypatch.setattr(report, "LIMIT", 1000)
    monkeypatch.setattr(report, "SCALES", (1.0,))
    write_report(content, tmp_path / "r.html")
    assert "more than the 1.0 kB that it should have" in caplog.text


def test_quantisation_error() -> None:
    points = np.random.default_rng(2).uniform(-1, 1, (100, 3))
    packed = _quantised(points)
    raw = np.frombuffer(base64.b64decode(packed["data"]), "<i2").reshape(-1, 3)
    assert np.abs(raw * packed["scale"] - points).max() < 2e-5  # metres


@pytest.mark.parametrize(
    ("ratio", "low", "high", "words"),
    [
        (0.7, 0.6, 0.8, "30 % below the camera-frame mean pose"),
        (0.97, 0.9, 1.04, "cannot be told apart from"),
        (1.2, 1.1, 1.3, "20 % above the camera-frame mean pose .* A pose that ignores the image does better"),
    ],
)
def test_verdicts(ratio: float, low: float, high: float, words: str) -> None:
    assert re.search(words, verdict(result(ratio, low, high), "mpjpe"))


def test_verdict_without_baseline() -> None:
    assert "no baseline to compare it with" in verdict(result() | {"baselines": {}}, "mpjpe")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bench/result.json", "[]"),
        ("bench/result.json", json.dumps(result() | {"metrics": {"mpjpe": 3}})),
        ("bench/cases.npz", "no archive"),
        ("bench/best.png", "x"),
        ("bench/best.png", "x" * 300_000),
        ("attention/attention.json", "{}"),
        ("occlusion/occlusion.json", '{"people": 3}'),
        ("occlusion/occlusion.json", json.dumps({"people": 3, "networks": [], "patch": {}, "hidden": []})),
        ("curves.json", '["step"]'),
        ("curves.json", '[{"loss/total": 1.0}]'),
        ("study/study.json", '{"variants": [{"name": 1}]}'),
        ("study/study.png", "x"),
        ("manifest.json", '{"shards": 3}'),
    ],
)
def test_a_damaged_file_is_named_in_one_line(content: Content, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(MetroError, match=rf"{re.escape(name)}: damaged.*run the stage that makes it$"):
        write_report(content, tmp_path / "r.html")


def test_a_lack_that_only_the_page_notices_is_one_line(content: Content, tmp_path: Path) -> None:
    (content.benchmarks["b"] / "result.json").write_text(json.dumps(result() | {"protocol": {}}))
    with pytest.raises(MetroError, match=r"damaged: .*title"):
        write_report(content, tmp_path / "r.html")


def test_missing_and_damaged_files(content: Content, tmp_path: Path) -> None:
    (content.benchmarks["b"] / "result.json").write_text("{")
    with pytest.raises(MetroError, match=r"result\.json: not valid JSON"):
        write_report(content, tmp_path / "r.html")
    (content.benchmarks["b"] / "result.json").unlink()
    with pytest.raises(MetroError, match=r"result\.json: missing; run the stage that makes it"):
        write_report(content, tmp_path / "r.html")
