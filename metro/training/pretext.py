"""A first lesson for a backbone that starts from random weights: where are the joints?

METRO starts from ImageNet features. Where those cannot be had, regressing a mesh from noise stays at the mean mesh for
tens of thousands of images. A map of where each joint is gives the backbone an answer at every place of the picture
instead, is learned sooner and costs a third of a METRO step. The head is dropped afterwards; the paper's presets do not
use any of this.

Shape suffixes: B image, J joint, P place of the joint map (row by row).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from metro.body.figure import FIGURES
from metro.body.joints import JOINT_SETS
from metro.config import Params, TrainConfig
from metro.data.augment import normalise
from metro.data.loader import Loader
from metro.files import atomic_file
from metro.model.metro import Metro
from metro.training.schedule import learning_rate

PLACES = 4
"""Places of the joint map along one side of a feature cell."""
DEPTH_WEIGHT = 5.0
"""Of the mean depth error (metres) against the cross-entropy of the places (nats)."""


class JointMaps(nn.Module):
    """From a feature map (B, C, h, w), where each joint is: logits (B, J, P) and depth behind the root (B, J, P)."""

    def __init__(self, channels: int, joints: int) -> None:
        super().__init__()
        self.joints = joints
        self.out = nn.Conv2d(channels, 2 * joints * PLACES**2, 1)
        nn.init.normal_(self.out.weight, 0, 0.01)  # near-uniform maps at first

    def forward(self, features_BChw: Tensor) -> tuple[Tensor, Tensor]:
        maps = F.pixel_shuffle(self.out(features_BChw), PLACES).flatten(2)
        logits_BJP, depth_BJP = maps.split(self.joints, 1)
        return logits_BJP, depth_BJP


def location_loss(
    logits_BJP: Tensor, depth_BJP: Tensor, joints_2d_BJ3: Tensor, joints_3d_BJ4: Tensor, root: int
) -> Tensor:
    """Cross-entropy of the joints' places in a square map, and error of their depths.

    A joint counts where its confidence is not 0 and it lies in the crop. Its depth is read where it is and where the
    network believes it to be, half and half.

    Parameters
    ----------
    joints_2d_BJ3
        x and y in [-1, 1] of the crop, confidence.
    joints_3d_BJ4
        Metres, camera axes, confidence.
    root
        Joint that depth is relative to.
    """
    side = math.isqrt(logits_BJP.shape[-1])
    centres = (torch.arange(side, device=logits_BJP.device) + 0.5) * (2 / side) - 1
    x_BJ, y_BJ, known_BJ = joints_2d_BJ3.nan_to_num().unbind(-1)
    near_x, near_y = (torch.exp(-0.5 * ((at[..., None] - centres) * (side / 2)) ** 2) for at in (x_BJ, y_BJ))
    near_BJP = (near_y[..., None] * near_x[..., None, :]).flatten(2)  # a Gaussian of one place's width
    mass_BJ = near_BJP.sum(-1)
    inside_BJ = known_BJ * (mass_BJ > 1e-3)
    target_BJP = near_BJP / mass_BJ.clamp(min=1e-6)[..., None]
    log_belief_BJP = F.log_softmax(logits_BJP, -1)
    surprise_BJ = -(target_BJP * log_belief_BJP).sum(-1)

    depth_BJ = joints_3d_BJ4[..., 2] - joints_3d_BJ4[:, root, None, 2]
    deep_BJ = inside_BJ * joints_3d_BJ4[..., 3] * joints_3d_BJ4[:, root, None, 3]
    read_BJ = (depth_BJP * (target_BJP + log_belief_BJP.exp().detach()) / 2).sum(-1)
    error_BJ = (read_BJ - depth_BJ.nan_to_num()).abs()
    places = (surprise_BJ * inside_BJ).sum() / inside_BJ.sum().clamp(min=1)
    return places + DEPTH_WEIGHT * (error_BJ * deep_BJ).sum() / deep_BJ.sum().clamp(min=1)


class Lesson(nn.Module):
    """A backbone and the head that it learns with."""

    def __init__(self, backbone: nn.Module, joints: int, image_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        with torch.no_grad():
            channels = backbone.eval()(torch.zeros(1, 3, image_size, image_size)).shape[1]
        self.maps = JointMaps(channels, joints)

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        logits_BJP, depth_BJP = self.maps(self.backbone(images_B3HW))
        return logits_BJP, depth_BJP


def teach_backbone(
    metro: Metro, params: Params, batches: Callable[[TrainConfig, int], Loader], work: Path, fabric: Fabric
) -> None:
    """Train the backbone of `metro` for `params.train.pretext.steps` steps, or go on where `work` was left.

    `batches` gives this process's training stream under some settings from some step on.
    """
    taught, unfinished = work / "pretext.safetensors", work / "pretext.pt"
    if not taught.is_file():
        config = params.train.model_copy(update=params.train.pretext.model_dump())
        figure = FIGURES[params.model.joint_set]
        joints = JOINT_SETS[figure.labels]
        root = joints.index(figure.pelvis)
        torch.manual_seed(config.seed)
        lesson = Lesson(metro.backbone, len(joints), params.model.image_size)
        if config.channels_last:
            lesson.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(lesson.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
        start = 0
        if unfinished.is_file():
            state = torch.load(unfinished, map_location="cpu", weights_only=True)
            start = state["step"]
            lesson.load_state_dict(state["lesson"])
            optimizer.load_state_dict(state["optimizer"])
        network: Any
        network, optimizer = fabric.setup(lesson, optimizer)
        network.train()
        quiet = not (fabric.is_global_zero and sys.stderr.isatty())
        bar = tqdm(total=config.steps, initial=start, desc="pretext", unit="step", disable=quiet)
        seen: list[Tensor] = []
        for step, batch in zip(range(start, config.steps), batches(config, start), strict=False):
            batch = {k: v.to(fabric.device, non_blocking=True) for k, v in batch.items()}
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config)
            logits_BJP, depth_BJP = network(normalise(batch["image"], batch["colour"]))
            loss = location_loss(logits_BJP.float(), depth_BJP.float(), batch["joints_2d"], batch["joints_3d"], root)
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(loss)
            nn.utils.clip_grad_norm_(lesson.parameters(), config.clip or math.inf)
            optimizer.step()
            seen.append(loss.detach())
            bar.update()
            if (step + 1) % config.log_every == 0:
                mean = float(torch.stack(seen).mean())
                seen.clear()
                bar.set_postfix(loss=f"{mean:.3g}")
                if bar.disable and fabric.is_global_zero:
                    print(f"pretext step {step + 1}/{config.steps}  loss {mean:.4g}", flush=True)
            if (step + 1) % config.save_every == 0 and fabric.is_global_zero:
                state = {"step": step + 1, "lesson": lesson.state_dict(), "optimizer": optimizer.state_dict()}
                with atomic_file(unfinished) as temporary:
                    torch.save(state, temporary)
        bar.close()
        if fabric.is_global_zero:
            with atomic_file(taught) as temporary:
                save_file({k: v.cpu().contiguous() for k, v in lesson.backbone.state_dict().items()}, temporary)
            unfinished.unlink(missing_ok=True)
        fabric.barrier()
    metro.backbone.load_state_dict(load_file(taught))
