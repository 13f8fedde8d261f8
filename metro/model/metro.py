"""METRO: one image to 3D joints and mesh vertices, by a transformer over joint and vertex queries.

Lin, Wang, Liu, "End-to-End Human Pose and Mesh Reconstruction with Transformers", CVPR 2021. Body and hand are two
configurations of this file. Every query is a token: the template position of a joint or coarse vertex (3 numbers)
joined with an image feature (C numbers). Three encoder blocks narrow the tokens down to 3 numbers, their position;
the mesh is then upsampled level by level, and a weak-perspective camera is read from the positions.

Frame: camera axes (x right, y down, z forward), metres, relative to the root (pelvis or wrist).

Shape suffixes: B image, T token (J joints, then V coarse vertices), P cell of the feature map, C its channels,
D hidden width, O width a block hands on, N head, E head width, V vertex of the level at hand, 3 xyz.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from metro.body.arrays import BodyData
from metro.body.figure import FIGURES
from metro.body.joints import JOINT_SETS
from metro.config import BlockConfig, ModelConfig, NeckConfig
from metro.errors import MetroError
from metro.mesh.sampling import Level, compose_indices, compose_up
from metro.model.backbones import build_backbone
from metro.model.masking import MASK_VALUE
from metro.model.template import template_mesh, template_tokens
from metro.model.upsampling import FixedUpsampling, RigidUpsampling

CAMERA_SCALE = 0.8  # of `template` init: a standing person about fills the crop


class MetroOutput(NamedTuple):
    """What the network predicts (camera axes, metres, root-relative).

    `attention[i][l]` is (B, N, T, T), the attention of layer l of block i, and None unless asked for.
    """

    camera: Tensor
    """(B, 3): s, tx, ty. A point projects to s (xy + t) in the crop, whose sides are -1 and 1."""
    joints: Tensor | None
    """(B, J, 3): joint tokens; none where vertices alone are asked about (`model.queries`)."""
    vertices: tuple[Tensor, ...]
    """Mesh levels, coarse to full, each (B, V, 3)."""
    mesh_joints: Tensor | None
    """(B, J, 3): the same joints regressed from the full mesh, which is what METRO is judged by."""
    attention: tuple[tuple[Tensor, ...], ...] | None


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Switch mixed precision off: bfloat16 would round positions of a metre to 4 mm."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


class ExactLinear(nn.Linear):
    """Linear layer that gives positions, hence always in float32."""

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x):
            return super().forward(x.float())


class EncoderLayer(nn.Module):
    """BERT layer: attention, then feed-forward, each followed by residual and LayerNorm (post-LN)."""

    def __init__(self, config: BlockConfig, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_dropout = attention_dropout
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.attention_out = nn.Linear(config.width, config.width)
        self.attention_norm = nn.LayerNorm(config.width, eps=1e-12)
        self.expand = nn.Linear(config.width, config.ffn)
        self.contract = nn.Linear(config.ffn, config.width)
        self.ffn_norm = nn.LayerNorm(config.width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, need_attention: bool) -> tuple[Tensor, Tensor | None]:
        q_BNTE, k_BNTE, v_BNTE = self.qkv(x_BTD).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.attention_dropout if self.training else 0.0
        if need_attention:
            weights_BNTT = ((q_BNTE * q_BNTE.shape[-1] ** -0.5) @ k_BNTE.mT).softmax(-1)
            mixed_BNTE = F.dropout(weights_BNTT, dropout) @ v_BNTE
        else:
            weights_BNTT = None
            mixed_BNTE = F.scaled_dot_product_attention(q_BNTE, k_BNTE, v_BNTE, dropout_p=dropout)
        mixed_BTD = mixed_BNTE.transpose(1, 2).flatten(2)
        x_BTD = self.attention_norm(x_BTD + self.dropout(self.attention_out(mixed_BTD)))
        ffn_BTD = self.contract(F.gelu(self.expand(x_BTD)))
        return self.ffn_norm(x_BTD + self.dropout(ffn_BTD)), weights_BNTT


class EncoderBlock(nn.Module):
    """Embed, add learned positions, encode, project; a linear skip goes around all of it.

    The caller applies `embed` and `skip` to the block's input, since the first block has a cheaper way to do so.
    """

    def __init__(self, width_in: int, tokens: int, config: BlockConfig, model: ModelConfig) -> None:
        super().__init__()
        self.embed = nn.Linear(width_in, config.width)
        self.position_TD = nn.Parameter(torch.empty(tokens, config.width))
        self.dropout = nn.Dropout(model.dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(config, model.dropout, model.attention_dropout) for _ in range(config.layers)
        )
        self.head = ExactLinear(config.width, config.out)
        self.skip = ExactLinear(width_in, config.out)

    def forward(
        self, embedded_BTD: Tensor, skipped_BTO: Tensor, need_attention: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        x_BTD = self.dropout(embedded_BTD + self.position_TD)
        attention = []
        for layer in self.layers:
            x_BTD, weights_BNTT = layer(x_BTD, need_attention)
            if weights_BNTT is not None:
                attention.append(weights_BNTT)
        return self.head(x_BTD) + skipped_BTO, tuple(attention)


class Neck(nn.Module):
    """A feature map with fewer channels: some of each cell alone, some that a perceptron makes from all cells.

    Queries are linear in the feature map, in the width of the first block; what a frozen backbone knows of a pose is
    not linear in its map. A backbone that learns has no need of it.
    """

    def __init__(self, channels: int, cells: int, config: NeckConfig) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, config.squeeze)
        self.dropout = nn.Dropout(config.dropout)
        width_in = channels + cells * config.squeeze
        self.layers = nn.ModuleList(nn.Linear(n, config.width) for n in (width_in, config.width))
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in self.layers)
        self.out = nn.Linear(config.width, cells * config.out)

    def forward(self, features_BPC: Tensor) -> Tensor:
        """(B, P, squeeze + out)."""
        features_BPC = self.dropout(features_BPC)
        alone_BPC = self.squeeze(features_BPC)
        x_BD = torch.cat([features_BPC.mean(1), alone_BPC.flatten(1)], 1)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x_BD = self.dropout(norm(F.gelu(layer(x_BD))))
        return torch.cat([alone_BPC, self.out(x_BD).unflatten(1, (features_BPC.shape[1], -1))], 2)


class Camera(nn.Module):
    """Weak-perspective camera, an affine function of the token positions."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.flatten = ExactLinear(3, 1)
        self.hidden = ExactLinear(tokens, width)
        self.out = ExactLinear(width, 3)

    def forward(self, points_BT3: Tensor) -> Tensor:
        return self.out(self.hidden(self.flatten(points_BT3).squeeze(-1)))


class LearnedUpsampling(ExactLinear):
    """Dense layer over the vertex axis, shared by x, y and z."""

    def __init__(self, up: sparse.csr_matrix) -> None:
        super().__init__(up.shape[1], up.shape[0])

    def forward(self, coarse_BV3: Tensor) -> Tensor:
        return super().forward(coarse_BV3.mT.contiguous()).mT  # strided, one image takes twice the time


class Metro(nn.Module):
    """The network.

    Parameters
    ----------
    config
        Sizes and choices.
    template_T3
        Query positions: joints, if they are asked about, then coarse vertices, root-relative (see
        `metro.model.template`).
    levels
        Mesh levels, fine to coarse. Learned upsampling takes only their sizes.
    regressor
        (J, V) matrix that reads the joints off the full mesh; None: `mesh_joints` is not predicted.
    mesh
        Vertices (V, 3) and faces (F, 3) of the full template, which rigid upsampling moves.

    Raises
    ------
    MetroError
        Template, joint set and mesh levels disagree, the blocks do not fit, or rigid upsampling has no `mesh`.
    """

    template_T3: Tensor
    regressor_JV: Tensor | None
    coarse_JV: Tensor | None
    blocks: Sequence[EncoderBlock]

    def __init__(
        self,
        config: ModelConfig,
        template_T3: Tensor | np.ndarray,
        levels: Sequence[Level],
        regressor: sparse.csr_matrix | None = None,
        mesh: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.num_joints = len(JOINT_SETS[config.joint_set]) if config.queries == "both" else 0  # of the queries
        self.num_vertices = levels[0].up.shape[0]  # of the full mesh
        tokens = self.num_joints + levels[-1].up.shape[1]
        if tuple(template_T3.shape) != (tokens, 3):
            raise MetroError(
                f"model: the template has shape {tuple(template_T3.shape)}, but queries for {self.num_joints} joints "
                f"and the coarsest mesh level need ({tokens}, 3); use the template and `sampling.sizes` that the model "
                "was made with"
            )
        self.register_buffer("template_T3", torch.as_tensor(template_T3, dtype=torch.float32), persistent=False)

        self.backbone, channels, (height, width) = build_backbone(
            config.backbone, config.backbone_weights, config.image_size
        )
        side = config.cells
        if side and (height % side or width % side):
            raise MetroError(
                f"model.cells: {config.backbone} gives {height} × {width} cells at {config.image_size} px, which do "
                f"not make {side} a side"
            )
        self.pool = nn.AvgPool2d((height // side, width // side)) if side else None
        height, width = (side, side) if side else (height, width)
        self.neck = Neck(channels, height * width, config.neck) if config.neck else None
        channels = config.neck.squeeze + config.neck.out if config.neck else channels
        self.mix = nn.Linear(height * width, tokens) if config.token_source == "grid" else None
        widths_in = [3 + channels, *(block.out for block in config.blocks[:-1])]
        blocks = [EncoderBlock(n, tokens, block, config) for n, block in zip(widths_in, config.blocks, strict=True)]
        self.blocks = cast("Sequence[EncoderBlock]", nn.ModuleList(blocks))
        seen = tokens if config.camera_from == "all" else tokens - self.num_joints
        self.camera = Camera(seen, config.camera_width)
        if config.upsampling == "rigid":
            if mesh is None:
                raise MetroError("model.upsampling: rigid upsampling needs the template at full resolution")
            self.upsampling: RigidUpsampling | nn.ModuleList = RigidUpsampling(*mesh, compose_indices(levels))
        else:
            upsampling = LearnedUpsampling if config.upsampling == "learned" else FixedUpsampling
            self.upsampling = nn.ModuleList(upsampling(level.up) for level in reversed(levels))
        by_full = by_coarse = None
        if regressor is not None:
            by_full = None if config.upsampling == "fixed" else regressor
            # Joints are linear in an interpolated mesh's coarse one, so training can stop there.
            by_coarse = None if config.upsampling == "learned" else regressor @ compose_up(levels)[-1]
        self.register_buffer("regressor_JV", _dense(by_full), False)
        self.register_buffer("coarse_JV", _dense(by_coarse), False)
        self._init_weights(levels)

    def forward(
        self,
        images: Tensor,
        mask_BT: Tensor | None = None,
        need_attention: bool = False,
        full: bool = True,
    ) -> MetroOutput:
        """Predict from normalised images.

        Parameters
        ----------
        images
            (B, 3, H, W) RGB crops, ImageNet mean and standard deviation removed; or (B, F), what `backbone.features`
            has given of them.
        mask_BT
            Masked vertex modelling (`metro.model.masking`): True hides a query, position and image feature alike.
        need_attention
            Also return attention maps, by the explicit formula instead of the fused kernel.
        full
            False stops at the coarsest mesh unless upsampling is learned; `mesh_joints` are then those of the
            interpolated mesh.
        """
        map_BChw = self.backbone.cells(images) if images.ndim == 2 else self.backbone(images)
        if self.pool is not None:
            map_BChw = self.pool(map_BChw)
        features_BPC = map_BChw.flatten(2).mT
        if self.neck is not None:
            features_BPC = self.neck(features_BPC)
        if self.mix is None:
            features_BPC = features_BPC.mean(1, keepdim=True)
        first, *rest = self.blocks
        # The queries: template position joined with image feature (section 3.2), then masked (3.3).
        embedded_BTD = self._project_queries(first.embed, features_BPC, mask_BT)
        skipped_BTO = self._project_queries(first.skip, features_BPC, mask_BT)
        x_BTO, maps = first(embedded_BTD, skipped_BTO, need_attention)
        attention = [maps]
        for block in rest:
            x_BTO, maps = block(block.embed(x_BTO), block.skip(x_BTO), need_attention)
            attention.append(maps)
        points_BT3 = x_BTO

        joints_BJ3 = points_BT3[:, : self.num_joints] if self.num_joints else None
        vertices_BV3 = points_BT3[:, self.num_joints :]
        camera_B3 = self.camera(points_BT3 if self.config.camera_from == "all" else vertices_BV3)
        meshes = [vertices_BV3]
        with full_precision(points_BT3):
            if isinstance(self.upsampling, RigidUpsampling):
                meshes += self.upsampling(vertices_BV3) if full else []
            else:
                for up in self.upsampling if full or self.config.upsampling == "learned" else ():
                    meshes.append(up(meshes[-1]))
            mesh_joints_BJ3 = None
            if self.regressor_JV is not None and len(meshes) > 1:
                mesh_joints_BJ3 = self.regressor_JV @ meshes[-1]
            elif self.coarse_JV is not None:
                mesh_joints_BJ3 = self.coarse_JV @ vertices_BV3
        return MetroOutput(
            camera_B3, joints_BJ3, tuple(meshes), mesh_joints_BJ3, tuple(attention) if need_attention else None
        )

    def _project_queries(self, linear: nn.Linear, features_BPC: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Join template position and image feature, mask, and apply a linear layer.

        That is, with one feature for every token (hands repeat their only one)::

            tokens_BTX = torch.cat([template_BT3, self.mix(features_BPC.mT).mT], -1)
            tokens_BTX = torch.where(mask_BT[..., None], MASK_VALUE, tokens_BTX)
            return linear(tokens_BTX)

        Token k is [xyz_k, sum_p a_kp f_p + b_k], so the layer gives W_xyz xyz_k + sum_p a_kp (W_img f_p) + b_k W_img 1
        + c: projecting the few cells first and mixing afterwards, in the narrower width, is the same sum and several
        times cheaper. Hands are the case a = 1, b = 0 of a single cell. A masked token gives MASK_VALUE (W 1) + c.
        """
        with full_precision(features_BPC):
            xyz_D3, image_DC = linear.weight.split([3, features_BPC.shape[-1]], dim=1)
            tokens_BTD = F.linear(features_BPC.float(), image_DC)  # of P cells, not yet of T tokens
            fixed_TD = F.linear(self.template_T3, xyz_D3, linear.bias)
            if self.mix is not None:
                tokens_BTD = torch.einsum("tp,bpd->btd", self.mix.weight, tokens_BTD)
                fixed_TD = fixed_TD + self.mix.bias[:, None] * image_DC.sum(1)
            tokens_BTD = tokens_BTD + fixed_TD
            if mask_BT is None:
                return tokens_BTD
            masked_D = MASK_VALUE * linear.weight.sum(1) + linear.bias
            return torch.where(mask_BT[..., None], masked_D, tokens_BTD)

    @torch.no_grad()
    def _init_weights(self, levels: Sequence[Level]) -> None:
        """N(0, 0.02) in the blocks, PyTorch's defaults elsewhere (official).

        `template` scales the layers inside of a block as if it were 1024 wide, the width that 0.02 belongs to (else
        narrow blocks start with even attention), and edits the paths of xyz.
        """
        template = self.config.init == "template"
        for block in self.blocks:
            block.position_TD.normal_(0, 0.02)
            for module in block.modules():
                if isinstance(module, nn.Linear):
                    module.weight.normal_(0, 0.02)
                    module.bias.zero_()
            for module in block.layers.modules():
                if template and isinstance(module, nn.Linear):
                    module.weight *= (1024 / block.position_TD.shape[1]) ** 0.5
        if not template:
            return
        for block in self.blocks:
            block.skip.weight[:3] = torch.eye(3, block.skip.in_features)
            block.head.weight[:3] *= 0.02
        self.camera.out.weight *= 0.1
        self.camera.out.bias.copy_(torch.tensor([CAMERA_SCALE, 0.0, 0.0]))
        for up, level in zip(self.upsampling.children(), reversed(levels), strict=False):
            if isinstance(up, LearnedUpsampling):
                up.weight.copy_(torch.from_numpy(level.up.toarray()))
                up.bias.zero_()


def _dense(matrix: sparse.csr_matrix | None) -> Tensor | None:
    return None if matrix is None else torch.from_numpy(matrix.toarray()).float()


def build_model(config: ModelConfig, body: BodyData, levels: Sequence[Level]) -> Metro:
    """Network for a body model and its mesh levels, freshly initialised.

    Raises
    ------
    MetroError
        The sizes disagree or backbone weights cannot be had.
    """
    figure = FIGURES[config.joint_set]
    regressor = body.regressor(figure.regressor)[figure.token_rows]
    mesh = template_mesh(config, body)
    tokens_T3 = template_tokens(config, mesh, levels)
    return Metro(config, tokens_T3, levels, regressor, (mesh[0].numpy(), body.faces))
