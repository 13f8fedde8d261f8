"""The registry against the index lists that METRO and its dataset converters publish."""

import json

import numpy as np
import pytest

from metro.body.joints import (
    EDGES,
    FINGERTIPS,
    JOINT_GROUPS,
    JOINT_SETS,
    PARENTS,
    TIP_VERTICES,
    flip_permutation,
    group_indices,
    index_map,
    shared,
)
from metro.errors import MetroError
from tests.reference import reference

GET_JOINTS = ("SMPL24", "EXTRA14")  # METRO's get_joints stacks these and picks 24 of the 38

# Annotated joints whose place METRO takes from a kinematic joint of SMPL.
FROM_SMPL = {
    f"{side}_{joint}": f"{long}_{joint.lower()}"
    for side, long in (("R", "right"), ("L", "left"))
    for joint in ("Ankle", "Knee", "Wrist", "Elbow", "Shoulder")
}


def test_j14_of_j24():
    assert index_map("J24", "J14") == [*range(13), 18]


def test_j14_of_the_h36m_rows():
    assert index_map("H36M17", "J14") == [3, 2, 1, 4, 5, 6, 16, 15, 14, 11, 12, 13, 8, 10]


def test_j24_of_get_joints():
    stacked = JOINT_SETS["SMPL24"] + JOINT_SETS["EXTRA14"]
    names = [FROM_SMPL.get(name, name) for name in JOINT_SETS["J24"]]
    published = [8, 5, 29, 30, 4, 7, 21, 19, 17, 16, 18, 20, 31, 32, 33, 34, 35, 36, 37, 24, 26, 25, 28, 27]
    assert index_map(stacked, names) == published


def test_flip_of_j24():
    published = [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, *range(12, 20), 21, 20, 23, 22]
    assert flip_permutation("J24") == published


def test_flip_of_smpl_pose():
    published = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
    assert flip_permutation("SMPL24") == published


@pytest.mark.parametrize(
    ("dataset", "published"),
    [
        ("COCO17", [19, 20, 21, 22, 23, 9, 8, 10, 7, 11, 6, 3, 2, 4, 1, 5, 0]),
        ("MPII16", [0, 1, 2, 3, 4, 5, 14, 15, 12, 13, 6, 7, 8, 9, 10, 11]),
        ("H36M_MOCAP17", [14, 3, 4, 5, 2, 1, 0, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6]),
        ("LSP14", [*range(14)]),
    ],
)
def test_slots_of_dataset_joints_in_j24(dataset, published):
    assert index_map("J24", dataset) == published


def test_the_usual_17_of_what_human36m_stores():
    published = [11, 6, 7, 8, 1, 2, 3, 12, 24, 14, 15, 17, 18, 19, 25, 26, 27]
    assert index_map("H36M32", "H36M_MOCAP17") == published


def test_the_usual_17_of_mpi_inf_are_the_first_of_muco():
    published = [7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6]
    assert index_map("MPIINF28", JOINT_SETS["MUCO21"][:17]) == published


def test_muco_by_the_names_of_its_release():
    """As I2L-MeshNet and 3DMPPE list them; head top is `Head` here, head `Jaw`, thorax `Neck` (see the registry)."""
    limbs = [f"{side}_{joint}" for side in "RL" for joint in ("Shoulder", "Elbow", "Wrist")]
    limbs += [f"{side}_{joint}" for side in "RL" for joint in ("Hip", "Knee", "Ankle")]
    released = ["Head_top", "Thorax", *limbs, "Pelvis", "Spine", "Head", "R_Hand", "L_Hand", "R_Toe", "L_Toe"]
    ours = [{"Head_top": "Head", "Thorax": "Neck", "Head": "Jaw"}.get(name, name) for name in released]
    assert JOINT_SETS["MUCO21"] == tuple(ours)
    slots = dict(zip(*shared("MUCO21", "J24"), strict=True))
    assert [slots.get(k) for k in range(21)] == [18, 12, 8, 7, 6, 9, 10, 11, 2, 1, 0, 3, 4, 5, 14, 16, 17, *[None] * 4]


def test_coco_joints_of_openpose():
    published = [0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10]
    assert index_map("OPENPOSE18", "COCO17") == published
    assert JOINT_SETS["OPENPOSE18"][1] == "Thorax"


def test_the_twelve_limb_joints_of_coco_follow_the_face():
    """The rule of METRO's COCO keeps people with joints 5 to 16."""
    assert set(JOINT_SETS["COCO17"][5:]) == set(JOINT_SETS["LSP14"][:12])


def test_mpi_inf_joints_that_feed_j24():
    published = dict(
        zip(
            [4, 18, 19, 20, 23, 24, 25, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16],
            [14, 3, 4, 5, 2, 1, 0, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6],
            strict=True,
        )
    )
    source, target = shared("MPIINF28", "J24")
    assert dict(zip(source, target, strict=True)) == published


def test_hand_order():
    stacked = JOINT_SETS["MANO16"] + FINGERTIPS
    published = [0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20]
    assert index_map(stacked, "HAND21") == published


def test_smpl_and_mano_trees():
    assert PARENTS["SMPL24"] == (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
    assert PARENTS["MANO16"] == (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)


@pytest.mark.parametrize("name", JOINT_SETS)
def test_sets_are_sound(name):
    joints = JOINT_SETS[name]
    assert len(set(joints)) == len(joints)
    assert name.endswith(str(len(joints)))
    flip = flip_permutation(name)
    assert [flip[flip[i]] for i in range(len(joints))] == list(range(len(joints)))
    reached = {0}
    for _ in joints:  # every joint hangs on the skeleton
        reached |= {j for edge in EDGES[name] if reached & set(edge) for j in edge}
    assert reached == set(range(len(joints)))


@pytest.mark.parametrize("name", [n for n in JOINT_SETS if n not in ("SMPL24", "SMPLX55", "MANO16", "HAND21")])
def test_skeletons_are_mirror_symmetric(name):
    flip = flip_permutation(name)
    edges = {frozenset(e) for e in EDGES[name]}
    assert {frozenset(flip[j] for j in e) for e in edges} == edges


def test_groups_cover_the_annotation_joints_once():
    positions = sorted(i for members in group_indices("J24").values() for i in members)
    assert positions == list(range(24))
    assert group_indices("J14")["head"] == [12, 13]
    assert set(JOINT_GROUPS) == {"head", "torso", "shoulders", "elbows", "wrists", "hips", "knees", "ankles"}


def test_tip_conventions_differ_where_they_are_known_to():
    assert TIP_VERTICES["layer"][2] == 444
    assert TIP_VERTICES["regressor"] == (745, 317, 445, 556, 673)
    assert TIP_VERTICES["freihand"] == (744, 333, 444, 555, 672)


def test_tips_of_freihand_are_those_it_annotates():
    """Sample 0 of the training set: its 21 points against its mesh."""
    sample = json.loads(reference("real/true_values.json").read_text())["freihand"]
    points, vertices = np.array(sample["xyz_m"]), np.array(sample["verts_m"])
    tips = points[index_map("HAND21", FINGERTIPS)]
    assert np.abs(vertices[list(TIP_VERTICES["freihand"])] - tips).max() < 1e-9
    toolkit = np.linalg.norm(vertices[[744, 320, 443, 555, 672]] - tips, axis=1)
    assert (toolkit > 1e-3).tolist() == [False, True, True, False, False]
    root, next_ = points[JOINT_SETS["HAND21"].index("Middle1")], points[JOINT_SETS["HAND21"].index("Middle2")]
    assert np.linalg.norm(root - next_) == pytest.approx(sample["scale"], abs=1e-6)


def test_root_and_scale_of_freihand_are_keypoints_9_and_10():
    assert JOINT_SETS["HAND21"][9:11] == ("Middle1", "Middle2")


def test_missing_joint_and_unknown_set_are_named():
    with pytest.raises(MetroError, match=r"COCO17 has no Neck, Head, which J14 needs"):
        index_map("COCO17", "J14")
    with pytest.raises(MetroError, match="no joint set 'J15'"):
        index_map("J15", "J14")
