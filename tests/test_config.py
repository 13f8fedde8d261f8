"""Parameters and presets: mistakes are named, presets are whole and what is committed is one of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import annotated_types
import pytest
import yaml

from metro import presets
from metro.config import FitConfig, Params, Section, load_params
from metro.errors import MetroError
from metro.options import OPTIONS

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = {"labels": "a.json", "images": "a"}
NAMES = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"trian": {}}, "'trian'; did you mean 'train'"),
        ({"train": {"stpes": 3}}, "'train.stpes'; did you mean 'steps'"),
        ({"model": {"blocks": [{"width": 8, "out": 3, "layer": 1}]}}, "did you mean 'layers'"),
        ({"model": {"neck": {"witdh": 8}}}, "unknown key 'model.neck.witdh'; did you mean 'width'"),
        ({"model": {"neck": 8}}, "model.neck: takes values by name, squeeze, width, out, dropout (got 8)"),
        ({"datasets": {"a": {"suorce": "coco"}}}, "'datasets.a.suorce'; did you mean 'source'"),
        ({"train": {"steps": 0}}, "train.steps"),
        ({"train": {"optimizer": "sgd"}}, "train.optimizer: no 'sgd'; known: adam, adamw"),
        ({"datasets": {"a": {"source": "synthetik"}}}, "datasets.a.source: no 'synthetik'; did you mean 'synthetic'?"),
        ({"datasets": {"a": {"source": "pw3"}}}, "did you mean 'pw3d'?"),
        ({"datasets": {"a": {"source": "3DPW"}}}, "datasets.a.source: no '3DPW'; did you mean 'pw3d'?"),
        ({"datasets": {"a": {"source": "Human3.6M"}}}, "did you mean 'h36m'?"),
        (
            {"datasets": {"a": {"options": {"cuont": 3}}}},
            "unknown key 'datasets.a.options.cuont'; did you mean 'count'?",
        ),
        (
            {"datasets": {"a": {"source": "coco", "options": {"count": 3}}}},
            "unknown key 'datasets.a.options.count'; known: fits, keep, max_beta, min_joints, year",
        ),
        ({"datasets": {"a": {"source": "coco", "options": {"year": 2015}}}}, "datasets.a.options.year: "),
        ({"datasets": {"a": {"source": "coco", "options": 3}}}, "datasets.a.options: "),
        ({"body": {"kind": "open_hand"}}, "model.joint_set=J14 does not go with body.kind=open_hand"),
        ({"model": {"joint_set": "HAND21"}}, "model.joint_set=HAND21 does not go with body.kind=open"),
        ({"train": {"datasets": ["synth"]}, "datasets": {"synt": {}}}, "did you mean 'synt'"),
        ({"fit": {"datasets": ["x"]}}, "fit.datasets: no dataset 'x'"),
        ({"benchmarks": {"b": {"dataset": "x"}}}, "benchmarks.b.dataset: no dataset 'x'"),
        ({"photos": {"p": {"labels": "a.json"}}}, "photos.p.images: "),
        (
            {"datasets": {"a": {}}, "benchmarks": {"p": {"dataset": "a"}}, "photos": {"p": PHOTOS}},
            "photos: 'p' is a benchmark already",
        ),
    ],
)
def test_a_mistake_is_named(given: dict, said: str) -> None:
    with pytest.raises(MetroError) as caught:
        load_params(given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["a;touch x", "../x", "a b", "", ".a", "-a", "a@b", "a/b", "A", "ä", "a\n", "$a", "a'"]
)
def test_names_that_are_no_folder_or_need_quotes_are_refused(name: str) -> None:
    for given in ({"datasets": {name: {}}}, {"datasets": {"a": {}}, "benchmarks": {name: {"dataset": "a"}}}):
        with pytest.raises(MetroError) as caught:
            load_params(given)
        assert f"{[*given][-1]}: {name!r} cannot be a name" in str(caught.value)


def leaves(kind: Any, rules: tuple[Any, ...] = (), path: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """(path, type, rules, may be none) of every value that ``params.yaml`` may hold."""
    if isinstance(kind, type) and issubclass(kind, Section):
        for name, field in kind.model_fields.items():
            if name == "options":
                for source, options in OPTIONS.items():
                    yield from leaves(options, (), (*path, f"options of {source}"))
                continue
            yield from leaves(field.annotation, tuple(field.metadata), (*path, name))
    elif get_origin(kind) in (tuple, dict):
        key, item = (0, get_args(kind)[0]) if get_origin(kind) is tuple else ("a", get_args(kind)[1])
        inner = getattr(item, "__metadata__", ())
        rules = tuple(rule for field in inner for rule in getattr(field, "metadata", ()))
        yield from leaves(get_args(item)[0] if inner else item, rules, (*path, key))
    elif isinstance(kind, UnionType):
        (only,) = (k for k in get_args(kind) if k is not type(None))
        yield path, only, rules, True
    else:
        yield path, kind, rules, False


LEAVES = list(leaves(Params))
NUMBERS = [(path, kind, rules) for path, kind, rules, _ in LEAVES if kind in (int, float)]
NEEDED = {
    "blocks": {"width": 8, "out": 3, "heads": 1},
    "benchmarks": {"dataset": "a"},
    "photos": PHOTOS,
    "studies": {"benchmark": "a", "reference": "b", "variants": {"b": {}, "c": {}}},
    "study_runs": {"study": "a", "variant": "b", "seed": 1, "benchmark": "a", "dataset": "a"},
}


def holding(path: tuple[str | int, ...], value: Any) -> Any:
    """Parameters with one value set."""
    if not path:
        return value
    key, *rest = path
    inner = holding(tuple(rest), value)
    if str(key).startswith("options of "):
        return {"source": str(key).split()[-1], "options": inner}
    if key == 0:
        return [inner]
    if key in NEEDED and isinstance(inner, list | dict):
        inner = [NEEDED[key] | inner[0]] if isinstance(inner, list) else {"a": NEEDED[key] | inner["a"]}
    if key == "studies":
        return {key: inner, "benchmarks": {"a": {"dataset": "a"}}, "datasets": {"a": {"split": "test"}}}
    return {key: inner}


def named(path: tuple[str | int, ...]) -> str:
    return ".".join(str(key).partition(" of ")[0] for key in path)


def test_every_section_is_walked() -> None:
    assert len(NUMBERS) > 70
    assert ("fit", "yaws_deg", 0) in {path for path, *_ in NUMBERS}
    assert ("train", "mixture", "a") in {path for path, *_ in NUMBERS}
    assert ("model", "blocks", 0, "ffn") in {path for path, *_ in NUMBERS}
    assert ("datasets", "a", "options of mpi_inf_3dhp", "cameras", 0) in {path for path, *_ in NUMBERS}


@pytest.mark.parametrize(("path", "kind", "rules"), NUMBERS, ids=lambda x: named(x) if isinstance(x, tuple) else "")
def test_every_number_has_bounds_and_no_odd_value_passes(path: Any, kind: type, rules: Any) -> None:
    low, high = (annotated_types.Gt, annotated_types.Ge), (annotated_types.Lt, annotated_types.Le)
    assert any(isinstance(rule, low) for rule in rules)
    assert any(isinstance(rule, high) for rule in rules)
    absurd = [float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 10**400, -(10**400), 16**5000, "nan", "1e999"]
    for value in [*absurd, "many", "", True, False, [], {}, "1" * 5000]:
        with pytest.raises(MetroError) as caught:
            load_params(holding(path, value))
        # A switch among numbers is refused with all of them.
        assert named(path[:-1] if path[-1] in (0, "a") else path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "given",
    [
        {"sampling": {"sizes": [431, 1723]}},
        {"sampling": {"sizes": []}},
        {"sampling": {"sizes": [431, 431]}},
        {"fit": {"yaws_deg": []}},
        {"model": {"blocks": []}},
        {"model": {"blocks": [{"width": 8, "out": 4}]}},
        {"model": {"blocks": [{"width": 10, "out": 3, "heads": 4}]}},
        {"datasets": {"a": {}}, "train": {"loss": {"level_weights": [1.0]}}},
        {"datasets": {"a": {}}, "train": {"datasets": ["a", "a"]}},
        {"datasets": {"a": {}}, "fit": {"datasets": ["a", "a"]}},
        {"datasets": {"a": {}}, "body": {"kind": "open_hand"}, "model": {"joint_set": "HAND21"},
         "train": {"augment": {"flip": 0.5}}},
        {"train": {"batch_size": 6, "accumulate": 4}},
        {"train": {"steps": 5, "warmup_steps": 6}},
        {"preset": ""},
        {"body": {"path": ""}},
        {"body": {"path": "a\0b"}},
        {"train": {"init": "\ud800"}},
    ],
)  # fmt: skip
def test_values_that_do_not_go_together_are_refused(given: dict) -> None:
    with pytest.raises(MetroError) as caught:
        load_params(given)
    assert "\n" not in str(caught.value)


def test_none_leaves_a_value_out_where_one_may_be_left_out() -> None:
    optional = [path for path, *_, may in LEAVES if may]
    assert {"clip", "spike", "ema", "threads", "validation", "robust", "axis"} < {path[-1] for path in optional}
    for path in optional:
        assert load_params(holding(path, "none")) == load_params(holding(path, None)), path
    assert load_params({"train": {"init": "none"}, "model": {"backbone_weights": "none"}}).train.init == "none"
    with pytest.raises(MetroError, match=r"train\.lr: .*number"):
        load_params({"train": {"lr": "none"}})


def test_numbers_are_read_as_they_are_written() -> None:
    train = load_params(yaml.safe_load("train: {lr: 1e-3, steps: 2_000, batch_size: 8.0, ema: .5, clip: 1e0}")).train
    assert (train.lr, train.steps, train.batch_size, train.ema, train.clip) == (1e-3, 2000, 8, 0.5, 1.0)
    for wrong in ({"train": {"steps": 1.5}}, {"train": {"compile": 1}}, {"export": {"onnx": "yes"}}):
        with pytest.raises(MetroError):
            load_params(wrong)


def test_plain_names_are_taken() -> None:
    names = ("synth-mesh", "3dpw", "h36m_p2", "a-b", "0")
    assert tuple(load_params({"datasets": {name: {} for name in names}}).datasets) == names


def test_a_missing_or_broken_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(MetroError, match=r"params\.yaml: missing; run from the project root, or"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("train: [unclosed")
    with pytest.raises(MetroError, match="not valid YAML"):
        load_params(tmp_path / "params.yaml")


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in pairwise("abcdefgh")
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 10)}]}}\n" for a, b in pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("preset: öpen".encode("latin-1"), r"not UTF-8 text \(line 1\)"),
        (b"preset: open\n# caf\xe9\n", r"not UTF-8 text \(line 2\)"),
        (b"train: {steps: !!int x}", "not valid YAML: invalid literal"),
        (b"train: {steps: !!timestamp x}", "not valid YAML"),
        (b"train: !!python/object/apply:os.getcwd []", "not valid YAML: could not determine a constructor"),
        (b"a: &a [*a]", "not valid YAML: its aliases"),
        (BOMB.encode(), "not valid YAML: its aliases"),
        (MERGED.encode(), "not valid YAML: its aliases"),
        (b"[" * 5000, "not valid YAML: nested too deeply"),
        (b"preset: 0x" + b"f" * 9000, "preset: .*got a number of thousands of digits"),
        (b"train: {lr: [*x]}", "not valid YAML: found undefined alias"),
        (b"a\x00b", "not valid YAML"),
    ],
)
def test_what_is_no_parameters_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(MetroError, match=said) as caught:
        load_params(path)
    assert len(str(caught.value).splitlines()) == 1
    presets.apply("open", path)
    assert load_params(path).preset == "open"


def test_a_folder_is_no_parameters(tmp_path: Path) -> None:
    with pytest.raises(MetroError, match="is a folder; run from the project root"):
        load_params(tmp_path)


def test_aliases_are_read(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(
        "datasets: {a: &set {split: test, shard_size: 9}, b: {<<: *set, shard_size: 8}}"
    )
    found = load_params(tmp_path / "params.yaml").datasets
    assert [(d.split, d.shard_size) for d in found.values()] == [("test", 9), ("test", 8)]


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_valid_and_survives_being_written(name: str) -> None:
    written = load_params(yaml.safe_load(presets.render(name)))
    assert written == load_params(presets.resolve(name))
    assert written.preset == name
    assert written.train_sets()
    assert written.benchmarks


def test_committed_params_are_the_open_preset() -> None:
    assert load_params(ROOT / "params.yaml") == load_params(presets.resolve("open")), "run: metro preset apply open"


def test_values_of_a_preset_replace_those_of_its_ancestors_and_collections_as_a_whole() -> None:
    debug, base = load_params(presets.resolve("debug")), load_params(presets.resolve("open"))
    assert debug.model.backbone == base.model.backbone
    assert debug.train.steps < base.train.steps
    assert set(debug.datasets) < set(base.datasets)


def test_applying_a_preset_tells_what_changed_and_forgets_edits(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    assert "written" in presets.apply("open", path)
    path.write_text(path.read_text().replace("seed: 88", "seed: 5"))
    said = presets.apply("debug", path)
    assert "preset: open → debug" in said
    assert "train.seed: 5 → 88" in said
    assert "- datasets.synth-2d" in said


def test_merging_a_preset_keeps_edits(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    presets.apply("open", path)
    path.write_text(path.read_text().replace("seed: 88", "seed: 5"))
    presets.apply("debug", path, merge=True)
    assert load_params(path).train.seed == 5
    assert load_params(path).train.steps == load_params(presets.resolve("debug")).train.steps


def test_a_broken_file_is_mended_by_applying_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("trian: {}")
    presets.apply("open", path)
    assert load_params(path).preset == "open"


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(MetroError, match="did you mean 'open-hand'"):
        presets.written("open-hnd")


def test_fits_depend_on_all_of_their_settings_but_the_list_of_sets() -> None:
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["fit"]["params"]
    assert set(declared) == {"body", *(f"fit.{name}" for name in FitConfig.model_fields if name != "datasets")}


def test_a_mixture_names_the_training_sets() -> None:
    sets = {"a": {}, "b": {}, "held-out": {"split": "test"}}
    mixed = load_params({"datasets": sets, "train": {"mixture": {"b": 2, "a": 1}}})
    assert mixed.train.mixture == {"a": 1.0, "b": 2.0}
    for wrong in ({"a": 1}, {"a": 1, "b": 1, "c": 1}, {"a": 1, "held-out": 1}):
        with pytest.raises(MetroError, match=r"train\.mixture.* the training sets are a, b"):
            load_params({"datasets": sets, "train": {"mixture": wrong}})
    with pytest.raises(MetroError, match=r"train\.mixture\.a"):
        load_params({"datasets": sets, "train": {"mixture": {"a": 0, "b": 1}}})


@pytest.mark.parametrize("preset", NAMES)
def test_a_preset_takes_the_levels_of_the_weights_it_starts_from_and_of_no_others(preset: str) -> None:
    params = load_params(presets.resolve(preset))
    shipped = [str(name) for name in (params.train.init, params.sampling.checkpoint) if str(name) == "open"]
    assert len(shipped) in (0, 2)


STUDY = {"benchmark": "b", "reference": "plain", "seeds": [3, 4], "variants": {"plain": {}, "less": {"train.lr": 1e-5}}}
BASE = {"datasets": {"d": {"split": "test"}, "t": {}}, "benchmarks": {"b": {"dataset": "d"}}}


def studying(name: str = "rate", **changes: Any) -> dict[str, Any]:
    """Parameters with one study."""
    return BASE | {"studies": {name: STUDY | changes}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"benchmark": "c"}, "studies.rate.benchmark: no benchmark 'c'; known: b"),
        ({"reference": "les"}, "reference: no variant 'les'; did you mean 'less'?"),
        ({"seeds": []}, "studies.rate.seeds: "),
        ({"seeds": [3, 3]}, "seeds [3, 3] name one more than once"),
        ({"people": "("}, "people: '(' is no regular expression"),
        ({"variants": {"plain": {}}}, "studies.rate.variants: "),
        ({"variants": {"plain": {}, "a/b": {}}}, "variants: 'a/b' cannot be a name"),
        ({"variants": {"plain": {}, False: {}}}, "YAML does not take False for a word; put the name of the variant in"),
        ({"settings": {"train.stpes": 3}}, "studies.rate.settings: unknown key 'train.stpes'; did you mean 'steps'?"),
        (
            {"variants": {"plain": {}, "less": {"train": {"mask": {"joint": 0.3}}}}},
            "studies.rate.variants.less: unknown key 'train.mask.joint'; did you mean 'joints'?",
        ),
        (
            {"variants": {"plain": {}, "less": {"train.datasets": ["x"]}}},
            "studies.rate.variants.less: train.datasets: no dataset 'x'",
        ),
        ({"settings": {"fit.iterations": 3}}, "studies.rate.settings: 'fit' cannot differ between runs"),
        ({"settings": {"train": 3}}, "studies.rate.settings: train is a section"),
    ],
)
def test_a_mistake_in_a_study_is_named_with_its_place(changes: dict, said: str) -> None:
    with pytest.raises(MetroError) as caught:
        load_params(studying(**changes))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a/b", "../x", "a;b", "a-b"])
def test_the_name_of_a_study_ends_where_that_of_its_variant_begins(name: str) -> None:
    with pytest.raises(MetroError, match=r"studies: .* cannot be a name"):
        load_params(studying(name))


def test_a_run_has_the_parameters_of_the_file_then_of_the_study_then_of_its_variant() -> None:
    given = studying(
        settings={"train.steps": 7, "train.mask": {"joints": 0.1}, "model.dropout": 0.2},
        variants={"plain": {}, "masked": {"train": {"mask.joints": 0.4, "channels_last": False}}},
    )
    params = load_params(given | {"train": {"batch_size": 6, "mask": {"vertices": 0.5}}})
    params = params.model_copy(update={"study_runs": params.planned_runs()})
    assert [*params.study_runs] == ["rate-plain-3", "rate-plain-4", "rate-masked-3", "rate-masked-4"]
    plain, masked = params.of_run("rate-plain-4"), params.of_run("rate-masked-3")
    assert (plain.train.seed, plain.train.steps, plain.train.batch_size, plain.model.dropout) == (4, 7, 6, 0.2)
    assert (plain.train.mask.joints, plain.train.mask.vertices, plain.train.channels_last) == (0.1, 0.5, True)
    assert (masked.train.mask.joints, masked.train.mask.vertices, masked.train.channels_last) == (0.4, 0.5, False)
    assert masked.alone().studies == masked.alone().study_runs == {}


def test_a_list_of_runs_that_is_not_that_of_the_studies_names_the_command() -> None:
    params = load_params(studying())
    for runs in ({}, {"rate-plain-3": params.planned_runs()["rate-plain-3"]}):
        with pytest.raises(MetroError, match=r"^study_runs: .*`metro study plan`"):
            params.model_copy(update={"study_runs": runs}).require_plan()
    params.model_copy(update={"study_runs": params.planned_runs()}).require_plan()


def test_planning_changes_the_list_of_runs_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    rest = "# mine\npreset: a  # kept\n" + yaml.safe_dump(studying())
    for before in ("", "study_runs: {}\n", "study_runs:\n  gone-x-1: {study: gone}\n"):
        path.write_text(before + rest)
        assert "+ rate-less-4" in presets.plan(path)
        text = path.read_text()
        assert rest.strip() in text
        assert "gone" not in text
        assert text.count("\n") <= rest.count("\n") + 2 + 4  # a heading and a line for each run
        load_params(path).require_plan()
        assert presets.plan(path).splitlines() == [f"{path}: 4 runs in 1 studies"]
        assert path.read_text() == text


def test_a_plan_of_broken_parameters_is_refused_and_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    for text in (yaml.safe_dump(studying(benchmark="c")), "- 1\n", "studies: ["):
        path.write_text(text)
        with pytest.raises(MetroError) as caught:
            presets.plan(path)
        assert "\n" not in str(caught.value)
        assert path.read_text() == text


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_lists_the_runs_of_its_studies(name: str, tmp_path: Path) -> None:
    presets.apply(name, tmp_path / "params.yaml")
    load_params(tmp_path / "params.yaml").require_plan()
