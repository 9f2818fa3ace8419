"""Contrasts that scanners make: the signal of each tissue in a random spin-echo or inversion-recovery sequence."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from bundle.intensity import quantiles

__all__ = ["ScannerSequence", "Tissue", "anchors", "draw_sequence", "signal"]

ENTRIES = 1024
RIM = 3  # voxels: width of the window by which fluid around the brain is found
VARIATION = 0.12, 0.12, 0.03  # standard deviations of the logarithms of T1, T2 and density from person to person
SUPPRESSED, LEFT = 0.3, 0.4  # share of sequences without the signal of fat, and the most that is left of it
AIR = 0.08  # intensity below which nothing, or bone, is seen outside the brain
OUTER = 0.25, 0.85  # quantiles of what is brighter there: muscle, fat
FALLBACK = 0.2, 0.52, 0.9  # anchors of an image without regions


@dataclass(frozen=True)
class Tissue:
    """What a sequence makes its signal of.

    Args:
        t1: longitudinal relaxation time, ms.
        t2: transverse relaxation time, ms.
        density: of protons, relative to water.
    """

    t1: float
    t2: float
    density: float


# at 3 T: Wansapura et al. 1999 (grey and white matter), Stanisz et al. 2005 (muscle), de Bazelaire et al. 2004 (fat)
FLUID, GREY, WHITE = Tissue(4200, 1900, 1.0), Tissue(1330, 110, 0.82), Tissue(830, 80, 0.7)
MUSCLE, FAT = Tissue(1410, 50, 0.75), Tissue(380, 70, 0.9)
LESION = Tissue(1500, 190, 0.88)  # of white matter, by small vessel disease
TISSUES = FLUID, GREY, WHITE, MUSCLE, FAT, LESION


def signal(tissue: Tissue, repetition: float, echo: float, inversion: float | None = None) -> float:
    """Compute the magnitude of a spin-echo signal, or of one after an inversion: 0 up to the tissue's density.

    Args:
        tissue: what is measured.
        repetition: TR, ms.
        echo: TE, ms; short beside ``repetition``.
        inversion: TI, ms; None for a plain spin echo.

    Source:
        Bernstein, King, Zhou: Handbook of MRI Pulse Sequences, 2004, inversion recovery with a spin echo.
    """
    recovered = 1 - math.exp(-repetition / tissue.t1)
    if inversion is not None:
        recovered = 1 - 2 * math.exp(-inversion / tissue.t1) + math.exp(-repetition / tissue.t1)
    return tissue.density * abs(recovered) * math.exp(-echo / tissue.t2)


@dataclass(frozen=True)
class ScannerSequence:
    """One contrast, as two curves of a T1-weighted image's intensities.

    Args:
        brain: what becomes of intensities in and around the brain, a table over [0, 1].
        outside: of those of the rest of the head.
        lesion: what a lesion of white matter looks like.
    """

    brain: torch.Tensor
    outside: torch.Tensor
    lesion: float

    def __call__(self, image: torch.Tensor, labels: torch.Tensor, lesions: torch.Tensor) -> torch.Tensor:
        """Show an image in [0, 1] with its labels and lesions, all (1, H, W, L); what is exactly 0 stays 0."""
        entries = (image.clamp(0, 1) * (ENTRIES - 1)).round().int()
        near = F.max_pool3d((labels > 0).to(image.dtype)[None], RIM, 1, RIM // 2)[0] > 0
        seen = torch.where(near, self.brain[entries], self.outside[entries])
        seen = seen.lerp(torch.full_like(seen, self.lesion), lesions.to(seen.dtype))
        return seen.clamp_(min=1e-4).masked_fill_(image == 0, 0.0)


def draw_sequence(state: np.random.RandomState, image: torch.Tensor, labels: torch.Tensor) -> ScannerSequence:
    """Draw a sequence and the tissues it meets at random: T1, proton density, T2, or FLAIR.

    In the brain the intensities of the T1-weighted image tell which two of fluid, grey and white matter a voxel holds
    and how much of each; the signal of the mixture is the mixture of their signals. Outside, they tell muscle and fat.

    Args:
        state: source of randomness.
        image: T1-weighted, in [0, 1], (1, H, W, L).
        labels: its regions.
    """
    tissues = [_vary(state, tissue) for tissue in TISSUES]
    timing = _draw_timing(state, tissues[0])
    signals = [signal(tissue, **timing) for tissue in tissues]
    fluid, grey, white, muscle, fat, lesion = (value / max(signals[1:3]) for value in signals)
    if state.rand() < SUPPRESSED:
        fat *= state.uniform(0, LEFT)
    x = np.linspace(0, 1, ENTRIES)
    brain = np.interp(x, anchors(image, labels), [fluid, grey, white])
    outside = np.interp(x, outer_anchors(image, labels), [0, muscle, fat])
    return ScannerSequence(torch.from_numpy(brain).float(), torch.from_numpy(outside).float(), lesion)


def anchors(image: torch.Tensor, labels: torch.Tensor) -> tuple[float, float, float]:
    """Find the intensities of fluid, grey and white matter in a T1-weighted image, rising."""
    if not bool((labels > 0).any()):
        return FALLBACK
    index = labels.flatten().long()
    count = torch.bincount(index)
    mean = torch.bincount(index, weights=image.flatten().double()) / count.clamp(min=1)
    means = mean[1:][count[1:] > 0]
    found = [*quantiles(image[labels > 0][::7], [0.02]), *quantiles(means, [0.3, 0.92])]
    return max(found[0], 0.02), max(found[1], found[0] + 0.05), max(found[2], found[1] + 0.05, found[0] + 0.1)


def outer_anchors(image: torch.Tensor, labels: torch.Tensor) -> tuple[float, float, float]:
    """Find the intensities of air or bone, muscle and fat outside the brain in a T1-weighted image, rising."""
    values = image[(labels == 0) & (image > AIR)]
    if len(values) < 1000:  # a masked brain
        return AIR, FALLBACK[1], FALLBACK[2]
    muscle, fat = quantiles(values[:: len(values) // 1000].double(), OUTER)
    return AIR, max(muscle, AIR + 0.05), max(fat, AIR + 0.1)


def _vary(state: np.random.RandomState, tissue: Tissue) -> Tissue:
    t1, t2, density = np.exp(state.normal(0, VARIATION))
    return Tissue(tissue.t1 * t1, tissue.t2 * t2, tissue.density * density)


def _draw_timing(state: np.random.RandomState, fluid: Tissue) -> dict[str, float]:
    """Draw a sequence's times, ms: FLAIR in half of the draws, else T2, proton density or T1."""
    kind = state.rand()
    if kind < 0.5:
        repetition = state.uniform(5000, 11000)
        null = fluid.t1 * math.log(2 / (1 + math.exp(-repetition / fluid.t1)))
        return {"repetition": repetition, "echo": state.uniform(80, 140), "inversion": null * state.uniform(0.9, 1.05)}
    if kind < 0.75:
        return {"repetition": state.uniform(3000, 6000), "echo": state.uniform(70, 120)}
    if kind < 0.87:
        return {"repetition": state.uniform(2000, 5000), "echo": state.uniform(10, 30)}
    return {"repetition": state.uniform(350, 700), "echo": state.uniform(8, 20)}
