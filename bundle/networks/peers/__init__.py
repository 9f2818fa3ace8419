"""The networks that PAN's paper compares itself with, each behind the interface of ``bundle.networks.PAN``.

Written from their publications; what those leave open is listed in ``docs/peers.md``. They take blocks of MONAI, which
the rest of ``bundle.networks`` does not import, and are therefore not imported there.
"""

from bundle.networks.peers.dual_prnet import DualPRNet
from bundle.networks.peers.transmorph import TransMorph
from bundle.networks.peers.vit_vnet import ViTVNet
from bundle.networks.peers.voxelmorph import VoxelMorph

__all__ = ["DualPRNet", "TransMorph", "ViTVNet", "VoxelMorph"]
