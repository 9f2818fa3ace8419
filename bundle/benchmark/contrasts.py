"""Give the images of a pair synthetic contrasts, the same ones whenever it is read."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from bundle.intensity import percentile_range, scale_between
from bundle.synthesis import RandContrastd
from monai.data import MetaTensor

__all__ = ["CONTRASTS", "with_synthetic_contrasts"]

CONTRASTS = "real", "synthetic"
ROLES = "moving", "fixed"
SEQUENCES = 0.5  # share of contrasts that are those of a scanner's sequence


def with_synthetic_contrasts(item: Mapping[Any, Any], name: str) -> dict[Any, Any]:
    """Replace both images of a pair by what two other scanners, or nobody, would have made of them.

    Args:
        item: ``moving`` and ``fixed``, (1, H, W, L), ``moving_label`` and ``fixed_label`` on their grids; masks, if
            there are any, blank their images first.
        name: of the pair: what is drawn at random depends on nothing else.

    Returns:
        The same with other images, in [0, 1].
    """
    pair: dict[Any, torch.Tensor] = {}
    for role in ROLES:
        image = item[role].as_tensor().float().clone()
        image = scale_between(image, *percentile_range(image))
        if f"{role}_mask" in item:
            image = image * (item[f"{role}_mask"].as_tensor() > 0)
        pair |= {role: image, f"{role}_label": item[f"{role}_label"].as_tensor().float()}
    labels = [f"{role}_label" for role in ROLES]
    draw = RandContrastd(ROLES, labels, real_share=0.0, alike_share=0.0, one_real_share=0.0, sequence_share=SEQUENCES)
    draw.set_random_state(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"))
    drawn = draw(pair)
    return dict(item) | {role: MetaTensor(drawn[role], meta=item[role].meta) for role in ROLES}
