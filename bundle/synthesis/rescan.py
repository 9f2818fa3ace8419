"""One person scanned twice: one anatomy in two poses, changed by a small deformation or not; the field is known."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from bundle.fields import identity_grid, jacobian_determinant, warp
from bundle.shapes import DDF
from bundle.similarity import SHOWN
from bundle.synthesis.acquisition import blur, smooth_noise
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

__all__ = ["RandRescand", "draw_change", "draw_pose", "draw_region", "region_change", "region_shift", "rescan_field"]

Item = dict[Hashable, Any]

SQUEEZED = 0.3  # share of its volume that is left of a voxel where a field is shortened that squeezes it along one axis
WIDTH = 1.5, 5.0  # of the border along which a region grows or shrinks, voxels
BALL = 2.0, 7.0  # radius of a lesion, voxels


class RandRescand(RandomizableTransform, MapTransform):
    """Make a pair of two persons one of a single person: the fixed one, scanned twice.

    Adds ``known``, a bool tensor without dimensions, whether the pair became one; and ``known_ddf``, (3, H, W, L), the
    field between the two in voxels, fixed to moving as every field: ``warp(moving, known_ddf)`` is ``fixed``. 0 if the
    pair is left as it is.

    Args:
        keys: the images, moving then fixed, (1, H, W, L); both are replaced.
        label_keys: their label maps, in the same order, replaced too, and dropped where the fixed image has none; or
            none at all.
        prob: share of pairs to make one person.
        changed_share: of these, how many are changed between the scans: in the others nothing moved, but the head.
        posed_share: of these, how many have the head lie otherwise in the second scan.
        peak: least and largest displacement of a change at its peak, voxels.
        shift: largest shift of the head along each axis, voxels: what an alignment leaves.
        rotation: its largest rotation about each axis, radians.
        regions: of a changed pair, how many regions grow or shrink at most.
        common_pose: largest shift (voxels) and rotation (radians) of both scans together. Interpolation blurs; without
            this, only what changed is blurred.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_keys: Sequence[str],
        prob: float = 0.2,
        changed_share: float = 0.5,
        posed_share: float = 0.5,
        peak: Sequence[float] = (0.5, 2.0),
        shift: float = 0.4,
        rotation: float = 0.01,
        regions: int = 1,
        common_pose: Sequence[float] = (0.0, 0.0),
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.label_keys = tuple(label_keys)
        self.changed_share, self.posed_share = changed_share, posed_share
        (self.least, self.most), self.shift, self.rotation = peak, shift, rotation
        self.regions, (self.common_shift, self.common_rotation) = regions, common_pose

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        """Draw, and scan the fixed anatomy twice or leave the pair as it is."""
        item = dict(data)
        self.randomize(None)
        fixed = item[self.keys[1]]
        still, pose, common = torch.zeros(1, 3, *fixed.shape[1:]), torch.eye(4), torch.eye(4)
        change = still
        item["known"] = torch.tensor(bool(self._do_transform) and not bool(item.get("synthetic_anatomy", False)))
        if not item["known"]:
            return item | {"known_ddf": change[0]}
        labels = item.get(self.label_keys[1]) if self.label_keys else None
        if self.R.rand() < self.changed_share:
            change = draw_change(self.R, fixed, labels, self.least, self.most, self.regions)
        if self.R.rand() < self.posed_share:
            pose = draw_pose(self.R, self.shift, self.rotation, fixed.shape[1:])
        if self.common_shift or self.common_rotation:
            common = draw_pose(self.R, self.common_shift, self.common_rotation, fixed.shape[1:])
        fields = pose_field(common @ pose, still), pose_field(common, change)
        for group, anatomy, mode in ((self.keys, fixed, "bilinear"), (self.label_keys, labels, "nearest")):
            if anatomy is None:  # nor is the other person's anatomy any longer in the pair
                item = {key: value for key, value in item.items() if key not in group}
                continue
            pair = (warp(anatomy[None].float(), u, mode, "border")[0] if u.any() else anatomy for u in fields)
            item |= {key: image.to(anatomy.dtype) for key, image in zip(group, pair)}
        return item | {"known_ddf": rescan_field(change, pose)[0]}


def rescan_field(change: DDF, pose: torch.Tensor) -> DDF:
    """Find the field between two scans of one anatomy, exactly and without inverting a field.

    With the moving image anatomy(P x) and the fixed image anatomy(x + c(x)), moving(x + u(x)) equals fixed(x) for
    u(x) = P⁻¹(x + c(x)) − x. So it does if both lie in one pose more, anatomy(Q P x) and anatomy(Q(x + c(x))).

    Args:
        change: c, (1, 3, H, W, L), voxels.
        pose: P, 4×4, voxels to voxels.

    Returns:
        u, (1, 3, H, W, L), voxels, fixed to moving.
    """
    return pose_field(torch.linalg.inv(pose.double()).float(), change)


def pose_field(pose: torch.Tensor, change: DDF) -> DDF:
    """Write x ↦ P(x + c(x)) as a field, P(x + c(x)) − x: a pose P, 4×4, after a change c, (1, 3, H, W, L), voxels."""
    grid = identity_grid(change)
    moved = torch.einsum("ij,bjhwl->bihwl", pose[:3, :3], grid + change) + pose[:3, 3].view(1, 3, 1, 1, 1)
    return moved - grid


def draw_pose(state: np.random.RandomState, shift: float, rotation: float, size: Sequence[int]) -> torch.Tensor:
    """Draw a small rigid motion about the middle of the grid: 4×4, float32, voxels."""
    x, y, z = state.uniform(-rotation, rotation, 3)
    turn = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    pose = torch.eye(4)
    pose[:3, :3] = torch.linalg.matrix_exp(turn)
    centre = (torch.tensor(list(size), dtype=torch.float32) - 1) / 2
    pose[:3, 3] = centre - pose[:3, :3] @ centre + torch.from_numpy(state.uniform(-shift, shift, 3)).float()
    return pose


def draw_change(
    state: np.random.RandomState,
    image: torch.Tensor,
    labels: torch.Tensor | None,
    least: float,
    most: float,
    regions: int = 1,
) -> DDF:
    """Draw a small smooth change of an anatomy: regions that grow or shrink, or all of it at random.

    Args:
        state: source of randomness.
        image: in [0, 1], (1, H, W, L); what is as dark as noise in air is not the place of a lesion.
        labels: its regions; None if there are none.
        least: smallest displacement at the peak, voxels; where regions meet, theirs add up.
        most: largest.
        regions: how many at most.

    Returns:
        (1, 3, H, W, L), voxels; shortened where it would flatten a voxel, so that hardly any folds.
    """
    if state.rand() < 0.2:
        peak, generator = state.uniform(least, most), torch.Generator().manual_seed(int(state.randint(2**31)))
        return _scaled(blur(smooth_noise(image.shape[1:], int(state.randint(4, 8)), generator, 3), 2.0), peak)
    change = torch.zeros(1, 3, *image.shape[1:])
    for _ in range(state.randint(1, regions + 1)):
        peak, width = state.uniform(least, most), state.uniform(*WIDTH)
        region = draw_region(state, image, labels)
        change += region_change(region, width, peak if state.rand() < 0.5 else -peak)
    return _unflattened(change)


def region_change(region: torch.Tensor, width: float, peak: float) -> DDF:
    """Let a region grow or shrink by a smooth field: the gradient of the blurred region.

    Args:
        region: (1, H, W, L) of bool, on the fixed image's grid.
        width: of the border along which it moves, voxels; that of the peak at least.
        peak: largest displacement, voxels. Above 0 the field points into the region, fixed to moving: the region is
            smaller in the moving image; below 0 it is larger.

    Returns:
        (1, 3, H, W, L), voxels; shortened where it would flatten a voxel. What shrinks along several axes at once may
        keep less than ``SQUEEZED`` of its volume all the same.
    """
    potential = blur(region.float(), max(width, abs(peak)))[0]
    return _scaled(torch.stack(torch.gradient(potential)), peak)


def region_shift(region: torch.Tensor, width: float, peak: float, direction: Sequence[float]) -> DDF:
    """Shift a region, and what is around it by less: a smooth field of one direction, the blurred region.

    Args:
        region: (1, H, W, L) of bool, on the fixed image's grid.
        width: of the border along which it moves, voxels; that of the peak at least.
        peak: largest displacement, voxels.
        direction: of the field, along the three axes; the opposite for a peak below 0.

    Returns:
        (1, 3, H, W, L), voxels; no volume falls below ``SQUEEZED`` of what it was.
    """
    share = blur(region.float(), max(width, abs(peak)))
    return _scaled(torch.tensor(list(direction), dtype=torch.float32).view(3, 1, 1, 1) * share, peak)


def _scaled(field: torch.Tensor, peak: float) -> DDF:
    """Bring the largest displacement of (3, H, W, L) to ``peak``, or to less where it would flatten a voxel."""
    return _unflattened((field * (peak / field.norm(dim=0).max().clamp(min=1e-6)))[None])


def _unflattened(ddf: DDF) -> DDF:
    """Shorten a field, (1, 3, H, W, L), as if volumes changed in proportion to it, until all keep ``SQUEEZED``.

    So they do where all is displaced along one axis. Elsewhere the determinant is a polynomial of the field's length,
    and what shrinks along three axes may end anywhere between flat and that: next to no voxel folds, though.
    """
    least_volume = float(jacobian_determinant(ddf).min())
    return ddf * min(1.0, (1 - SQUEEZED) / max(1 - least_volume, 1e-6))


def draw_region(state: np.random.RandomState, image: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
    """Pick what grows or shrinks, (1, H, W, L) of bool: a labelled region, or a ball in what is shown, a lesion say."""
    present = [] if labels is None else torch.unique(labels)[1:]
    if labels is None or len(present) == 0:
        return _draw_ball(state, image > SHOWN)
    if state.rand() < 0.6:
        return torch.eq(labels, present[state.randint(len(present))])
    return _draw_ball(state, labels > 0)


def _draw_ball(state: np.random.RandomState, inside: torch.Tensor) -> torch.Tensor:
    """Draw a ball about a voxel of ``inside``, (1, H, W, L) of bool; about the middle of the grid if there is none."""
    places = inside[0].nonzero()
    if len(places) > 0:
        centre = places[state.randint(len(places))]
    else:
        centre = torch.tensor(inside.shape[1:]) // 2
    offset = identity_grid(torch.zeros(1, 3, *inside.shape[1:])) - centre.view(1, 3, 1, 1, 1)
    return offset.square().sum(1) <= state.uniform(*BALL) ** 2
