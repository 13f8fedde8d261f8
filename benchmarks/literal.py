"""METRO as the official code computes it, written down from its description: what `metro` is measured against.

Same weights (official state dict), same arithmetic, none of the shortcuts: float32; query tokens in full; the template
posed and coarsened in every forward pass; attention as softmax(QKᵀ)V with its weights in memory, and queries, keys
and values by three layers; mesh levels by sparse products, one sample at a time; rest joints likewise; samples with
labels picked out by boolean masks. What nothing reads (BERT's own embeddings, its pooler, HRNet's classifier) is left
out, which favours this side.

Shape suffixes as in `metro.model.metro`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from metro.body.arrays import BodyData
from metro.body.joints import index_map
from metro.config import ModelConfig
from metro.mesh.sampling import Level
from metro.model.backbones import build_backbone
from metro.model.official import official_keys

J17_TO_J14 = index_map("H36M17", "J14")
HIPS, PELVIS = [2, 3], 0


def sparse_tensor(matrix: sp.spmatrix) -> Tensor:
    coo = sp.coo_matrix(matrix)
    index = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    return torch.sparse_coo_tensor(
        index, torch.from_numpy(coo.data).float(), coo.shape, check_invariants=True
    ).coalesce()


class Skinning(nn.Module):
    """SMPL: rest joints per sample by a sparse regressor, then joint after joint along the chain."""

    def __init__(self, data: BodyData) -> None:
        super().__init__()
        self.parents = data.parents
        self.register_buffer("template_V3", torch.from_numpy(data.v_template).float())
        self.register_buffer("shape_V3S", torch.from_numpy(data.shapedirs).float())
        self.register_buffer("pose_V3P", torch.from_numpy(data.posedirs).float())
        self.register_buffer("weights_VJ", torch.from_numpy(data.weights).float())
        self.register_buffer("joint_regressor", sparse_tensor(sp.csr_matrix(data.J_regressor)))
        self.register_buffer("h36m_17V", torch.from_numpy(data.regressors["h36m17"].toarray()).float())

    def forward(self, pose_BP: Tensor, betas_BS: Tensor) -> Tensor:
        batch, joints = len(pose_BP), len(self.parents)
        shaped_BV3 = self.template_V3 + torch.matmul(self.shape_V3S, betas_BS[:, None, :, None]).squeeze(-1)
        rest_BJ3 = torch.stack([torch.sparse.mm(self.joint_regressor, shaped) for shaped in shaped_BV3])
        rot_BJ33 = rotations(pose_BP.reshape(-1, 3)).view(batch, joints, 3, 3)
        lrot_BP = (rot_BJ33[:, 1:] - torch.eye(3, device=pose_BP.device)).reshape(batch, -1)
        posed_BV3 = shaped_BV3 + torch.matmul(self.pose_V3P, lrot_BP[:, None, :, None]).squeeze(-1)
        bottom = torch.tensor([0.0, 0, 0, 1], device=pose_BP.device).expand(batch, joints, 1, 4)
        offset_BJ3 = rest_BJ3.clone()
        offset_BJ3[:, 1:] = offset_BJ3[:, 1:] - rest_BJ3[:, list(self.parents[1:])]
        local_BJ44 = torch.cat([torch.cat([rot_BJ33, offset_BJ3[..., None]], 3), bottom], 2)
        chain = [local_BJ44[:, 0]]
        for joint in range(1, joints):
            chain.append(torch.matmul(chain[self.parents[joint]], local_BJ44[:, joint]))
        global_BJ44 = torch.stack(chain, 1)
        rest_BJ4 = torch.cat([rest_BJ3, torch.zeros(batch, joints, 1, device=pose_BP.device)], 2)
        moved_BJ4 = torch.matmul(global_BJ44, rest_BJ4[..., None])
        global_BJ44 = global_BJ44 - torch.cat([torch.zeros_like(global_BJ44[..., :3]), moved_BJ4], 3)
        blended_BV44 = torch.matmul(self.weights_VJ, global_BJ44.reshape(batch, joints, 16)).view(batch, -1, 4, 4)
        ones = torch.ones(batch, posed_BV3.shape[1], 1, device=pose_BP.device)
        return torch.matmul(blended_BV44, torch.cat([posed_BV3, ones], 2)[..., None])[:, :, :3, 0]

    def h36m_joints(self, vertices_BV3: Tensor) -> Tensor:
        return torch.einsum("bik,ji->bjk", vertices_BV3, self.h36m_17V)


def rotations(aa_N3: Tensor) -> Tensor:
    """Axis-angle to matrices by way of quaternions, a small number added before the norm."""
    angle_N1 = torch.norm(aa_N3 + 1e-8, dim=1, keepdim=True)
    half_N1 = angle_N1 / 2
    quaternion = torch.cat([torch.cos(half_N1), torch.sin(half_N1) * aa_N3 / angle_N1], 1)
    w, x, y, z = (quaternion / quaternion.norm(dim=1, keepdim=True)).unbind(1)
    rows = [
        *(w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (w * y + x * z)),
        *(2 * (w * z + x * y), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (w * x + y * z), w * w - x * x - y * y + z * z),
    ]
    return torch.stack(rows, 1).view(-1, 3, 3)


class Mesh(nn.Module):
    """Coarsening by sparse matrices, sample by sample."""

    def __init__(self, levels: list[Level]) -> None:
        super().__init__()
        for number, level in enumerate(levels):
            ones = np.ones(len(level.indices))
            down = sp.csr_matrix((ones, (np.arange(len(ones)), level.indices)), (len(ones), level.up.shape[0]))
            self.register_buffer(f"down_{number}", sparse_tensor(down))

    def downsample(self, vertices_BV3: Tensor, level: int) -> Tensor:
        matrix = getattr(self, f"down_{level}")
        return torch.stack([torch.sparse.mm(matrix, vertices) for vertices in vertices_BV3])


class BertAttention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.self = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.output = nn.ModuleDict({"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, eps=1e-12)})
        self.dropout, self.attention_dropout = nn.Dropout(dropout), nn.Dropout(attention_dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        batch, tokens, width = x_BTD.shape

        def heads(name: str) -> Tensor:
            return self.self[name](x_BTD).view(batch, tokens, self.heads, width // self.heads).permute(0, 2, 1, 3)

        scores = torch.matmul(heads("query"), heads("key").transpose(-1, -2)) / math.sqrt(width // self.heads)
        weights = self.attention_dropout(nn.Softmax(dim=-1)(scores))
        mixed = torch.matmul(weights, heads("value")).permute(0, 2, 1, 3).contiguous().view(batch, tokens, width)
        return self.output["LayerNorm"](self.dropout(self.output["dense"](mixed)) + x_BTD)


class BertLayer(nn.Module):
    def __init__(self, width: int, ffn: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.attention = BertAttention(width, heads, dropout, attention_dropout)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, ffn)})
        self.output = nn.ModuleDict({"dense": nn.Linear(ffn, width), "LayerNorm": nn.LayerNorm(width, eps=1e-12)})
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = self.attention(x_BTD)
        h = self.intermediate["dense"](x_BTD)
        h = h * 0.5 * (1.0 + torch.erf(h / math.sqrt(2.0)))
        return self.output["LayerNorm"](self.dropout(self.output["dense"](h)) + x_BTD)


class Encoder(nn.Module):
    """A block; the linear skip goes around it."""

    def __init__(self, width_in: int, config: ModelConfig, number: int) -> None:
        super().__init__()
        block = config.blocks[number]
        layers = [
            BertLayer(block.width, block.ffn, block.heads, config.dropout, config.attention_dropout)
            for _ in range(block.layers)
        ]
        self.bert = nn.ModuleDict(
            {
                "encoder": nn.ModuleDict({"layer": nn.ModuleList(layers)}),
                "position_embeddings": nn.Embedding(512, block.width),
                "img_embedding": nn.Linear(width_in, block.width),
            }
        )
        self.cls_head = nn.Linear(block.width, block.out)
        self.residual = nn.Linear(width_in, block.out)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTI: Tensor) -> Tensor:
        position_BT = torch.arange(x_BTI.shape[1], device=x_BTI.device).expand(len(x_BTI), -1)
        h = self.dropout(self.bert["position_embeddings"](position_BT) + self.bert["img_embedding"](x_BTI))
        for layer in self.bert["encoder"]["layer"]:
            h = layer(h)
        return self.cls_head(h) + self.residual(x_BTI)


class LiteralMetro(nn.Module):
    """The body network. `load` takes a state dict in the official layout."""

    def __init__(self, config: ModelConfig, body: BodyData, levels: list[Level]) -> None:
        super().__init__()
        backbone, channels, (height, width) = build_backbone(config.backbone, image_size=config.image_size)
        self.backbone = backbone
        coarse = len(levels[-1].indices)
        self.conv_learn_tokens = nn.Conv1d(height * width, 14 + coarse, 1)
        widths = [3 + channels, *(block.out for block in config.blocks[:-1])]
        self.trans_encoder = nn.Sequential(*(Encoder(n, config, i) for i, n in enumerate(widths)))
        self.cam_param_fc = nn.Linear(3, 1)
        self.cam_param_fc2 = nn.Linear(coarse, config.camera_width)
        self.cam_param_fc3 = nn.Linear(config.camera_width, 3)
        self.upsampling = nn.Linear(coarse, len(levels[0].indices))
        self.upsampling2 = nn.Linear(len(levels[0].indices), levels[0].up.shape[0])
        self.smpl, self.mesh = Skinning(body), Mesh(levels)

    def load(self, official: Mapping[str, Tensor]) -> None:
        """Take the weights over, the backbone's too; every parameter must be given."""
        own = {name for name, _ in self.named_parameters()} | {f"backbone.{n}" for n in self.backbone.state_dict()}
        weights = {n: official[official_keys(n)[0] if n.startswith("backbone.") else n] for n in own}
        self.load_state_dict(weights, strict=False)

    def template(self) -> Tensor:
        """Joints and coarse vertices of the zero pose, turned to face the camera, pelvis at the origin."""
        device = self.cam_param_fc.weight.device
        pose, betas = torch.zeros(1, 72, device=device), torch.zeros(1, 10, device=device)
        pose[:, 0] = 3.1416
        vertices = self.smpl(pose, betas)
        coarse = self.mesh.downsample(self.mesh.downsample(vertices, 0), 1)
        joints = self.smpl.h36m_joints(vertices)
        pelvis = joints[:, [PELVIS]]
        return torch.cat([joints[:, J17_TO_J14] - pelvis, coarse - pelvis], 1)

    def forward(self, images: Tensor, keep_BT1: Tensor | None = None) -> tuple[Tensor, ...]:
        """Camera, joints and the three meshes, coarse to full; `keep_BT1` is 0 where a query is masked."""
        template = self.template().expand(len(images), -1, -1)
        cells_BPC = self.backbone(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([template, self.conv_learn_tokens(cells_BPC)], 2)
        if keep_BT1 is not None:
            keep = keep_BT1.expand(-1, -1, tokens.shape[2])
            tokens = tokens * keep + torch.ones_like(tokens) * 0.01 * (1 - keep)
        points = self.trans_encoder(tokens)
        joints, coarse = points[:, :14], points[:, 14:]
        flat = self.cam_param_fc(coarse).transpose(1, 2)
        camera = self.cam_param_fc3(self.cam_param_fc2(flat)).transpose(1, 2).squeeze(-1)
        middle = self.upsampling(coarse.transpose(1, 2))
        full = self.upsampling2(middle)
        return camera, joints, coarse, middle.transpose(1, 2), full.transpose(1, 2)


def literal_loss(model: LiteralMetro, output: tuple[Tensor, ...], batch: Mapping[str, Tensor]) -> Tensor:
    """Total loss with the official weights, on a batch of the loader."""
    camera, joints, coarse, middle, full = output
    labels = index_map("J24", "J14")
    joints_3d, joints_2d = batch["joints_3d"][:, labels], batch["joints_2d"][:, labels]
    true_full = model.smpl(batch["pose_aa"], batch["betas"])
    true_middle = model.mesh.downsample(true_full, 0)
    true_coarse = model.mesh.downsample(true_middle, 1)
    pelvis = model.smpl.h36m_joints(true_full)[:, [PELVIS]]
    mesh_joints = model.smpl.h36m_joints(full)[:, J17_TO_J14]
    zero = torch.zeros((), device=full.device)

    def vertex_loss(predicted: Tensor, true: Tensor) -> Tensor:
        predicted, true = predicted[batch["has_mesh"] == 1], (true - pelvis)[batch["has_mesh"] == 1]
        return torch.nn.functional.l1_loss(predicted, true) if len(true) else zero

    def joint_loss_3d(predicted: Tensor) -> Tensor:
        has = batch["has_3d"] == 1
        predicted, true, confidence = predicted[has], joints_3d[has][..., :3], joints_3d[has][..., 3:]
        if not len(true):
            return zero
        predicted = predicted - predicted[:, HIPS].mean(1, keepdim=True)
        true = true - true[:, HIPS].mean(1, keepdim=True)
        return (confidence * (predicted - true) ** 2).mean()

    def joint_loss_2d(predicted: Tensor) -> Tensor:
        projected = camera[:, None, :1] * (predicted[..., :2] + camera[:, None, 1:])
        return (joints_2d[..., 2:] * (projected - joints_2d[..., :2]) ** 2).mean()

    vertices = sum(
        0.33 * vertex_loss(p, t) for p, t in ((coarse, true_coarse), (middle, true_middle), (full, true_full))
    )
    return (
        1000 * (joint_loss_3d(joints) + joint_loss_3d(mesh_joints))
        + 100 * vertices
        + 100 * (joint_loss_2d(joints) + joint_loss_2d(mesh_joints))
    )
