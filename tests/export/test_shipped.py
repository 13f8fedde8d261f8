"""What ships is what its model card says, on every kind of processor: same numbers, same vertices, smooth meshes."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import pytest

from metro.config import load_params
from metro.presets import resolve
from metro.shipped import SHIPPED
from metro.sources.prepare import prepare
from metro.training.checkpoint import CARD, load_checkpoint
from tests.processors import PROCESSORS, run_on


class Claim(NamedTuple):
    """Which people the model card speaks of: the first ones of a set."""

    preset: str
    dataset: str
    people: int
    scores: dict[str, str]
    """What the card calls them."""


CLAIMS = {
    "open": Claim("open-people", "synth-val", 100, {"mpjpe": "MPJPE", "pa_mpjpe": "PA-MPJPE", "mpve": "MPVE"}),
    "open-hand": Claim("open-hand", "hand-test", 50, {"joints_aligned": "PA-MPJPE", "vertices_aligned": "PA-MPVE"}),
}

JUDGE = """
import sys
import numpy as np
import torch
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.data.shards import ShardDataset
from metro.evaluation.measure import measure
from metro.evaluation.protocols import validation_protocol
from metro.export.load import open_bundle
from metro.export.networks import TorchNetwork
from metro.export.predictor import Predictor
from metro.mesh.sampling import compose_indices

torch.set_num_threads(1)
name, kind, shards, people, out = sys.argv[1:]
bundle = open_bundle(name)
dataset, body, levels = ShardDataset(shards).first(int(people)), load_body(kind), bundle.levels
protocol = validation_protocol(bundle.model.config.joint_set)
scores = measure(bundle.model, dataset, BodyModel(body), protocol).values
pictures = [dataset.image(i) for i in range(min(len(dataset), 40))]
vertices = np.stack([p.vertices for p in Predictor(TorchNetwork(bundle, "cpu"))(pictures)])
coarse, (first, second) = vertices[:, compose_indices(levels)[-1]], levels[-1].edges.T
rest = body.v_template[compose_indices(levels)[-1]]
def lengths(mesh):
    return np.linalg.norm(mesh[..., first, :] - mesh[..., second, :], axis=-1)
stretch = lengths(coarse) / lengths(rest)
scores_mm = {f"{name}_mm": 1000 * of_people for name, of_people in scores.items()}
np.savez(out, vertices=vertices, stretch=stretch, **scores_mm)
"""


@pytest.fixture(scope="module", params=SHIPPED)
def shipped(request: pytest.FixtureRequest) -> str:
    """Name of a network that ships."""
    name: str = request.param
    return name


REFERENCE, FEW = "HASWELL", 12
"""The processor that all people are judged on, and how many are on the others: the oldest takes seconds for each."""


@pytest.fixture(scope="module")
def found(shipped: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    """What the network gives on each kind of processor: scores (mm) of people, vertices, stretched edges of meshes."""
    claim, folder, results = CLAIMS[shipped], tmp_path_factory.mktemp(shipped), {}
    params = load_params(resolve(claim.preset))
    held_out = params.datasets[claim.dataset]
    some = held_out.model_copy(update={"options": held_out.options.model_copy(update={"count": claim.people})})
    manifest = prepare(claim.dataset, some, params.body, folder / "set", workers=1, progress=False)
    assert manifest["count"] == claim.people
    for processor in PROCESSORS:
        people, out = claim.people if processor == REFERENCE else FEW, folder / f"{processor}.npz"
        run_on(processor, JUDGE, shipped, params.body.kind, str(folder / "set"), str(people), str(out))
        with np.load(out) as arrays:
            results[processor] = dict(arrays)
    return results


def claimed(shipped: str, pattern: str) -> list[float]:
    """Numbers of the model card in the place that a pattern describes, `#` standing for one."""
    text = (load_checkpoint(shipped).folder / CARD).read_text()
    match = re.search(re.escape(pattern).replace(r"\#", r"([\d.]+)"), text)
    assert match, f"the model card does not say {pattern!r}"
    return [float(number) for number in match.groups()]


def test_errors_are_those_of_the_model_card(shipped, found):
    names = CLAIMS[shipped].scores
    claims = claimed(shipped, ", ".join(f"{called} # mm" for called in names.values()))
    assert [np.nanmean(found[REFERENCE][f"{name}_mm"]) for name in names] == pytest.approx(claims, rel=0.02)


def test_meshes_are_as_smooth_as_the_model_card_says(shipped, found):
    spread = np.quantile(found[REFERENCE]["stretch"], (0.05, 0.5, 0.95))
    assert spread == pytest.approx(claimed(shipped, "# (5 %), # (median) and # (95 %)"), rel=0.02)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_errors_are_the_same_to_a_tenth_of_a_millimetre(shipped, found, processor):
    for name in CLAIMS[shipped].scores:
        theirs, ours = (found[one][f"{name}_mm"][:FEW] for one in (processor, REFERENCE))
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=0.1)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_vertices_are_the_same_to_a_tenth_of_a_millimetre(found, processor):
    theirs, ours = found[processor]["vertices"][:FEW], found[REFERENCE]["vertices"][:FEW]
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4)
