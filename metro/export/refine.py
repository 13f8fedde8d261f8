"""Meshes that sit on the person: fits to 2D joints, from a network's prediction on or without one.

The fit is that of `metro.fitting.fit`. It sees the whole image through a pinhole camera whose axis goes through the
image's middle; where the focal length is not known, it is the image's diagonal, as for placing people in a scene. A
person whose fit comes no nearer to the joints than the prediction did keeps the prediction.

Shape legend: N person, J joint of J24, V vertex.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike

from metro.body.arrays import BodyData
from metro.body.figure import BODY
from metro.body.joints import JOINT_SETS
from metro.body.model import BodyModel
from metro.config import CROP_PX, FitConfig
from metro.data.crop import apply, crop_affine
from metro.errors import MetroError
from metro.export.folder import CONTEXT
from metro.export.parameters import Parameters
from metro.export.predictor import LARGEST, Photo, Placement, Prediction, assumed_focal, check_focal
from metro.fitting import fit, from_mesh
from metro.fitting.gate import Reason
from metro.viz import camera

LEAST_CONFIDENCE = 0.2
"""Below, a detector has guessed where a joint is that it does not see."""
NO_NEARER = "the fit comes no nearer to the joints"
_BOX = 1.1
"""Side of a person's box over that of the joints, which lie within head, hands and feet."""


def refine(
    people: Sequence[Prediction],
    joints_2d_NJ3: ArrayLike,
    body: BodyData,
    focal: float | None = None,
    config: FitConfig | None = None,
    device: str = "cpu",
) -> list[Prediction]:
    """Fit predicted people to the 2D joints that a detector saw, all at once.

    Poses start from the predicted meshes and stay near them (`config.sigma_start`); shape, position and what the joints
    show follow the joints. A refined person has a `placement` and `parameters`; one that is left as it was says why in
    `kept`.

    Parameters
    ----------
    people
        Predictions of a network that was trained on `body`.
    joints_2d_NJ3
        (N, 24, 3) joints of J24 in image pixels, and their confidence; those below `LEAST_CONFIDENCE` do not count.
    body
        The body, with SMPL's joints.
    focal
        Focal length of the camera in pixels; none: each image's diagonal.
    config
        Settings of the fit.
    device
        Where to compute.

    Raises
    ------
    MetroError
        The joints are not such an array, the body or the focal length is none to fit with, or the meshes are not of
        this body.
    """
    start = from_mesh(np.stack([person.vertices for person in people]), body, device=device).pose_aa if people else None
    return fit_people(people, joints_2d_NJ3, body, focal, config, device, start=start)


def fit_keypoints(
    photo: Photo,
    joints_2d_NJ3: ArrayLike,
    body: BodyData,
    focal: float | None = None,
    config: FitConfig | None = None,
    device: str = "cpu",
) -> list[Prediction]:
    """Fit a body to the 2D joints of each person of an image, without a network.

    Parameters are those of `refine`, beside the image. A person who cannot be fitted is the body at rest in the box of
    the joints, and says why in `kept`.

    Raises
    ------
    MetroError
        As `refine`, or a person's joints lie outside of the image.
    """
    joints_NJ3 = np.asarray(joints_2d_NJ3, np.float64)
    people = [_at_rest(photo, box, body) for box in joint_boxes(joints_NJ3, photo)]
    return fit_people(people, joints_NJ3, body, focal, config, device)


def joint_boxes(joints_2d_NJ3: np.ndarray, photo: Photo) -> list[tuple[float, float, float, float]]:
    """Tight box x, y, width, height of each person: around the joints that count, with room for head, hands and feet.

    Raises
    ------
    MetroError
        A person's joints lie outside of the image.
    """
    height, width = photo.pixels.shape[:2]
    boxes = []
    for number, joints_J3 in enumerate(joints_2d_NJ3):
        seen_K2 = joints_J3[joints_J3[:, 2] >= LEAST_CONFIDENCE, :2]
        if not len(seen_K2):
            boxes.append((0.0, 0.0, float(width), float(height)))
            continue
        inside = ((seen_K2 > -0.5) & (seen_K2 < [width - 0.5, height - 0.5])).all(1)
        if not inside.any() or np.abs(seen_K2).max() > LARGEST * max(width, height):
            x, y = seen_K2[~inside][0]
            raise MetroError(
                f"{photo.source or 'image'}: person {number} has a joint at {x:.4g}, {y:.4g}, outside of the image of "
                f"{width}×{height} pixels; are the keypoints of this image?"
            )
        low, high = seen_K2.min(0), seen_K2.max(0)
        pad = (_BOX - 1) / 2 * max((high - low).max(), 1.0)
        boxes.append((*(low - pad).tolist(), *(high - low + 2 * pad).tolist()))
    return boxes


def with_parameters(people: Sequence[Prediction], body: BodyData) -> list[Prediction]:
    """The same people, each with the parameters of the body (or hand) that is nearest to the mesh.

    The meshes stay as they are; `metro.fitting.from_mesh` tells how far from a body they may be. Left hands get none.

    Raises
    ------
    MetroError
        The meshes are not of this body.
    """
    # The faces of a left hand, which no parameters of the hand model make, are turned round.
    unknown = [k for k, p in enumerate(people) if p.parameters is None and np.array_equal(p.faces, body.faces)]
    results = list(people)
    if unknown:
        found = from_mesh(np.stack([people[k].vertices for k in unknown]), body)
        for k, parameters in zip(unknown, _parameters(body, found.pose_aa, found.betas, found.transl), strict=True):
            results[k] = replace(people[k], parameters=parameters)
    return results


def fit_people(
    people: Sequence[Prediction],
    joints_2d_NJ3: ArrayLike,
    body: BodyData,
    focal: float | None = None,
    config: FitConfig | None = None,
    device: str = "cpu",
    *,
    start: np.ndarray | None = None,
) -> list[Prediction]:
    """Fit a body to 2D joints in the images and crops of predictions, from poses (N, 3 J) or from nothing.

    Parameters are those of `refine`. With a start, a mesh that the fit brings no nearer to the joints is kept.

    Raises
    ------
    MetroError
        As `refine`.
    """
    check_focal(focal)
    joints_NJ3 = np.array(joints_2d_NJ3, np.float64)
    expected = (len(people), len(JOINT_SETS["J24"]), 3)
    if joints_NJ3.shape != expected:
        raise MetroError(
            f"2D joints have shape {joints_NJ3.shape}; {len(people)} people need {expected}, joints of J24"
        )
    if not people:
        return []
    joints_NJ3[joints_NJ3[..., 2] < LEAST_CONFIDENCE] = 0
    focals = [focal or assumed_focal(person.image_size) for person in people]
    fits = fit(_labels(people, joints_NJ3, focals), body, config, start=start, device=device)
    model = BodyModel(body)
    arguments = [torch.from_numpy(array) for array in (fits.pose_aa, fits.betas, fits.transl)]
    with torch.inference_mode():
        vertices_NV3 = model(*arguments).vertices.numpy()
    rows = body.regressors[BODY.regressor]
    root_N3 = np.stack([rows[:1] @ vertices_V3 for vertices_V3 in vertices_NV3])[:, 0]
    parameters = _parameters(body, fits.pose_aa, fits.betas, fits.transl - root_N3)
    results = []
    for k, person in enumerate(people):
        if fits.reason[k] not in (Reason.NONE, Reason.ERROR_2D):
            results.append(replace(person, kept=str(fits.reason[k])))
            continue
        vertices_V3 = vertices_NV3[k] - root_N3[k]
        fitted = replace(
            person,
            vertices=vertices_V3,
            joints=(rows[BODY.token_rows] @ vertices_V3).astype(np.float32),
            placement=Placement(focals[k], root_N3[k].astype(np.float64), float(fits.error_2d[k])),
            parameters=parameters[k],
        )
        if start is not None and _off(fitted, body, joints_NJ3[k]) >= _off(person, body, joints_NJ3[k]):
            results.append(replace(person, kept=NO_NEARER))
        else:
            results.append(replace(fitted, camera=_nearest_camera(fitted)))
    return results


def _labels(people: Sequence[Prediction], joints_NJ3: np.ndarray, focals: Sequence[float]) -> dict[str, np.ndarray]:
    """The arrays that a fit reads; the crops of the predictions are what 2D errors are shares of."""
    count = len(people)
    middle_N2 = (np.array([person.image_size for person in people]) - 1) / 2
    intrinsics_N33 = np.zeros((count, 3, 3))
    intrinsics_N33[:, 0, 0] = intrinsics_N33[:, 1, 1] = focals
    intrinsics_N33[:, :2, 2], intrinsics_N33[:, 2, 2] = middle_N2, 1
    return {
        "joints_2d": joints_NJ3,
        "joints_3d": np.zeros((count, len(JOINT_SETS["J24"]), 4)),
        "has_2d": np.ones(count, bool),
        "has_3d": np.zeros(count, bool),
        "center": np.array([person.to_image([[(person.crop_size - 1) / 2] * 2])[0] for person in people]),
        "scale": np.array([person.crop_size / person.affine[0, 0] / 200 for person in people]),
        "intrinsics": intrinsics_N33,
    }


def _parameters(body: BodyData, pose_NP: np.ndarray, betas_NS: np.ndarray, transl_N3: np.ndarray) -> list[Parameters]:
    with torch.inference_mode():
        placed = BodyModel(body)(*map(torch.from_numpy, (pose_NP, betas_NS, transl_N3))).joints[:, 0].numpy()
    return [
        Parameters(pose, betas, transl, root - transl, body.kind, body.gender)
        for pose, betas, transl, root in zip(pose_NP, betas_NS, transl_N3, placed, strict=True)
    ]


def _off(person: Prediction, body: BodyData, joints_J3: np.ndarray) -> float:
    """Median distance in pixels of the mesh's joints from those that were seen: no single outlier decides."""
    seen = joints_J3[:, 2] > 0
    found_J2 = person.to_pixels(body.regressors["j24"] @ person.vertices)
    return float(np.median(np.linalg.norm(found_J2 - joints_J3[:, :2], axis=1)[seen]))


def _nearest_camera(person: Prediction) -> np.ndarray:
    """Weak-perspective camera (3,) of the crop that shows the joints nearest to where the pinhole camera does."""
    crop_J2 = apply(person.affine, person.joints_2d)
    return camera.fit(person.joints, (2 * crop_J2 + 1) / person.crop_size - 1).astype(np.float32)


def _at_rest(photo: Photo, box: tuple[float, float, float, float], body: BodyData) -> Prediction:
    """The mean body at rest, in the middle of a box."""
    height, width = photo.pixels.shape[:2]
    x, y, w, h = box
    rows = body.regressors[BODY.regressor]
    vertices_V3 = (body.v_template - rows[:1] @ body.v_template) * [1, -1, -1]  # y down, facing the camera
    side = max(w, h) * CONTEXT
    return Prediction(
        vertices=vertices_V3.astype(np.float32),
        joints=(rows[BODY.token_rows] @ vertices_V3).astype(np.float32),
        camera=np.array([1 / CONTEXT / np.abs(vertices_V3).max(), 0, 0], np.float32),
        affine=crop_affine(np.array([[x + w / 2, y + h / 2]]), np.array([side]), CROP_PX)[0],
        crop_size=CROP_PX,
        image_size=(width, height),
        box=box,
        faces=np.asarray(body.faces, np.int32),
        joint_set=BODY.joint_set,
        joint_names=JOINT_SETS[BODY.joint_set],
        picture=0,
        source=photo.source,
    )
