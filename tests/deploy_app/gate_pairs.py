"""Plausible and nonsense pairs as DICOM: what the limits of the quality gate were set on, and checked on.

    python tests/deploy_app/gate_pairs.py --half check --output FOLDER [--only NAME]

writes each pair below FOLDER, runs the application on it and prints its numbers. The two halves share no person and no
seed. Real heads are those of the validation split of ``ixi2mm`` below PAN_DATA; without them the synthetic ones remain.
"""

import argparse
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "deploy_app"), str(Path(__file__).parent)]

from bundle.phantom import make_head  # noqa: E402
from synthetic import affine_of, points_of, write_series  # noqa: E402

DATA = Path(os.environ.get("PAN_DATA", ROOT.parent / "shared" / "data"))
SEEDS = {"set": 100, "check": 200}
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

Volume = tuple[np.ndarray, np.ndarray]
"""Values [k, j, i] and affine, (i, j, k, 1) to LPS mm."""


@dataclass(frozen=True)
class Pair:
    """Two images to be made, and what the gate should say of them."""

    name: str
    plausible: bool
    moving: Callable[[], Volume]
    fixed: Callable[[], Volume]
    one_frame: bool = False  # of reference: the headers agree, and are trusted


# -------------------------------------------------------------------------------------------------------------- images
@cache
def real_head(number: int) -> Volume:
    """A head of the validation split."""
    listing = json.loads((DATA / "ixi2mm" / "dataset.json").read_text())
    image = nibabel.load(DATA / "ixi2mm" / listing["validation"][number]["image"])
    return np.asarray(image.dataobj, dtype=np.float32).T, LPS @ image.affine


@cache
def synthetic_head(seed: int, shape=(96, 112, 96), spacing_mm=2.0) -> Volume:
    image, _, affine = make_head(seed, shape, spacing_mm)
    return image.T, LPS @ affine


@cache
def bottle(series_number: int) -> Volume:
    """The test object of the Siemens study, without (5001) or with (6001) the scanner's intensity normalisation."""
    import pydicom

    with zipfile.ZipFile(DATA / "dicom" / "siemens_t1_two_series.zip") as archive:
        read = (pydicom.dcmread(archive.open(name)) for name in archive.namelist() if name.endswith(".dcm"))
        slices = [ds for ds in read if ds.get("SeriesNumber") == series_number]
    axes = np.array(slices[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    slices.sort(key=lambda ds: np.cross(*axes) @ np.array(ds.ImagePositionPatient, dtype=float))
    first, last = (np.array(ds.ImagePositionPatient, dtype=float) for ds in (slices[0], slices[-1]))
    step, (rows, columns) = (last - first) / (len(slices) - 1), map(float, slices[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3] = np.column_stack([axes[0] * columns, axes[1] * rows, step, first])
    return np.stack([ds.pixel_array for ds in slices]).astype(np.float32), affine


def moved(volume: Volume, turn=(0, 0, 0), shift=(0, 0, 0), scale=(1, 1, 1), size=(112, 124, 112), **options) -> Volume:
    """Turn, scale, deform and shift what an image shows, about its middle, and take it on another grid.

    Args:
        volume: the image.
        turn: degrees about x, y, z.
        shift: mm.
        scale: along x, y, z.
        size: voxels along the new grid's axes (i, j, k).
        options: ``spacing`` (2 mm) and ``oblique`` (degrees) of the grid; ``field``, mm at points about the middle.
    """
    values, affine = volume
    middle = (affine @ [*(np.array(values.shape[::-1]) - 1) / 2, 1])[:3]
    direction = Rotation.from_euler("xyz", options.get("oblique", (0, 0, 0)), degrees=True).as_matrix()
    spacing = options.get("spacing", (2.0, 2.0, 2.0))
    corner = middle - direction @ (np.array(spacing) * (np.array(size) - 1) / 2)
    grid = affine_of(direction, spacing, corner)
    back = np.linalg.inv(Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ np.diag(scale))
    points = (points_of(size[::-1], grid) - middle) @ back.T
    if "field" in options:
        points = points + options["field"](points)
    inverse = np.linalg.inv(affine)
    index = (points + middle) @ inverse[:3, :3].T + inverse[:3, 3]
    grid[:3, 3] += shift
    return map_coordinates(values, np.moveaxis(index[..., ::-1], -1, 0), order=1), grid


def smooth_field(seed: int, amount_mm: float = 5.0):
    """A small deformation, centimetres wide."""
    chance = np.random.default_rng(seed)
    phase, length = chance.uniform(0, 6, 6), chance.uniform(24, 34, 6)

    def field(points):
        x, y, z = np.moveaxis(points, -1, 0)
        waves = [(y, z), (x, z), (x, y)]
        return amount_mm * np.stack(
            [
                np.sin(a / length[2 * n] + phase[2 * n]) * np.cos(b / length[2 * n + 1] + phase[2 * n + 1])
                for n, (a, b) in enumerate(waves)
            ],
            -1,
        )

    return field


def noisy(volume: Volume, seed: int, share: float = 0.03) -> Volume:
    """Add noise as a magnitude image has it, of a share of the 99th percentile."""
    values, affine = volume
    real, imaginary = (
        share * np.percentile(values, 99) * np.random.default_rng(seed).standard_normal((2, *values.shape))
    )
    return np.hypot(values + real, imaginary), affine


def shuffled(volume: Volume, axis: int, seed: int) -> Volume:
    """Put the planes along an axis into another order."""
    values, affine = volume
    return np.take(values, np.random.default_rng(seed).permutation(values.shape[axis]), axis), affine


def _about_zero(shape, spacing_mm: float) -> np.ndarray:
    return affine_of(np.eye(3), (spacing_mm,) * 3, -spacing_mm * (np.array(shape[::-1]) - 1) / 2)


def noise(seed: int, sigma: float = 0.0, shape=(100, 120, 110)) -> Volume:
    """Noise, of a grain of sigma voxels."""
    values = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma)
    return (values - values.min()) * 1000 / np.ptp(values), _about_zero(shape, 2.0)


def _ellipsoid(xyz, centre, radii):
    return sum(((v - c) / r) ** 2 for v, c, r in zip(xyz, centre, radii)) < 1


def knee(seed: int, shape=(110, 100, 90), spacing_mm=2.0) -> Volume:
    """A knee of cylinders and ellipsoids: skin, muscle, two bones with marrow and condyles, the patella."""
    affine = _about_zero(shape, spacing_mm)
    x, y, z = xyz = np.moveaxis(points_of(shape, affine), -1, 0)
    size = 1 + 0.1 * np.random.default_rng(seed).standard_normal()
    width = 55 * size * (1 + 0.15 * np.abs(z) / 100)
    image = np.where(np.hypot(x, y) < width, np.where(np.hypot(x, y) < width - 8, 350.0, 900.0), 0.0)
    for side, radius in ((1, 16), (-1, 15)):
        for value, inner in ((80, 0), (800, 4)):
            image[(np.hypot(x, y + 5) < (radius - inner) * size) & (side * z > 5)] = value
    for centre in ((18, -3, 22), (-18, -3, 22), (17, -3, -20), (-17, -3, -20)):
        for value, radii in ((90, (22, 26, 17)), (780, (20, 24, 15))):
            image[_ellipsoid(xyz, np.array(centre) * size, np.array(radii) * size)] = value
    image[_ellipsoid(xyz, (0, 38 * size, 12), (18, 7, 20))] = 760
    return noisy((gaussian_filter(image, 0.6), affine), seed, 0.02)


def cylinder(seed: int, shape=(110, 96, 96), spacing_mm=2.0) -> Volume:
    """A filled bottle with its neck."""
    affine = _about_zero(shape, spacing_mm)
    x, y, z = np.moveaxis(points_of(shape, affine), -1, 0)
    inside = (np.hypot(x, y) < 60) & (np.abs(z) < 85) | (np.hypot(x, y) < 20) & (z > 60) & (z < 95)
    return noisy((gaussian_filter(800.0 * inside, 0.6), affine), seed, 0.02)


def torso(seed: int, shape=(96, 72, 96), spacing_mm=4.0) -> Volume:
    """A trunk of ellipsoids: fat, muscle, lungs, heart, liver, spleen, kidneys, spine."""
    affine = _about_zero(shape, spacing_mm)
    x, y, _ = xyz = np.moveaxis(points_of(shape, affine), -1, 0)
    size = 1 + 0.08 * np.random.default_rng(seed).standard_normal()
    image = np.where((x / (170 * size)) ** 2 + (y / (115 * size)) ** 2 < 1, 800.0, 0.0)
    image[(x / (152 * size)) ** 2 + (y / (98 * size)) ** 2 < 1] = 320
    organs = [(20, (-75, 5, 70), (55, 75, 95)), (20, (75, 5, 70), (55, 75, 95)), (500, (20, 20, 40), (55, 50, 55))]
    organs += [(560, (60, 10, -60), (90, 75, 60)), (470, (-90, -10, -70), (35, 40, 45))]
    organs += [(430, (side * 60, -45, -120), (25, 22, 45)) for side in (-1, 1)]
    for value, centre, radii in organs:
        image[_ellipsoid(xyz, centre, radii)] = value
    image[np.hypot(x, y + 70) < 22], image[np.hypot(x, y + 70) < 8] = 250, 650
    return noisy((gaussian_filter(image, 0.6), affine), seed, 0.02)


# --------------------------------------------------------------------------------------------------------------- pairs
def pairs(half: str) -> Iterator[Pair]:
    """Yield the pairs of one half, ``set`` or ``check``."""
    yield from plausible_pairs(half)
    yield from nonsense_pairs(half)


def _heads(half: str) -> Callable[[int], Callable[[], Volume]]:
    first = 0 if half == "set" else 3
    return lambda n: partial(real_head, first + n % 3)


def plausible_pairs(half: str) -> Iterator[Pair]:
    """Twenty: two people, known deformations, noise alone, tilted heads, thick slices, the bottle, synthetic heads."""
    head, seed, series = _heads(half), SEEDS[half], (5001, 6001) if half == "set" else (6001, 5001)
    for a, b in ((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)):
        yield Pair(f"two_people_{a}{b}", True, head(a), head(b))
    for k in range(3):
        there = {"turn": (6, -4, 8), "shift": (12, -7, 5), "size": (100, 110, 92), "spacing": (2.1, 2, 2.3)}
        here = {"size": (104, 112, 100), "spacing": (1.9, 2.2, 2.1), "oblique": (10, -5, 4)}
        yield Pair(
            f"known_field_{k}",
            True,
            lambda k=k, there=there: moved(head(k)(), oblique=(-4, 6, -8), **there),
            lambda k=k, here=here: moved(head(k)(), field=smooth_field(seed + k), **here),
        )
    for k in range(2):
        first, second = (lambda k=k, n=n: noisy(head(k)(), seed + 10 * n + k) for n in range(2))
        yield Pair(f"follow_up_{k}", True, first, second, one_frame=True)
    tilt = 25 if half == "set" else -22
    yield Pair("tilted", True, lambda: moved(head(0)(), turn=(tilt, 0, 10), shift=(60, -40, 90)), head(0))
    yield Pair("tilted_other", True, lambda: moved(head(1)(), turn=(-15, 5, -12), shift=(-40, 30, 20)), head(2))
    yield Pair("bottle", True, partial(bottle, series[0]), partial(bottle, series[1]), one_frame=True)
    yield Pair("bottle_aligned", True, partial(bottle, series[0]), partial(bottle, series[1]))
    yield Pair("thick", True, lambda: moved(head(0)(), size=(220, 220, 36), spacing=(1, 1, 5)), head(1))
    sagittal = {"size": (40, 220, 200), "spacing": (5, 1, 1), "oblique": (0, 3, 5)}
    yield Pair("thick_fixed", True, head(2), lambda: moved(head(0)(), **sagittal))
    for k in range(3):
        yield Pair(f"synthetic_{k}", True, partial(synthetic_head, seed + k), partial(synthetic_head, seed + 20 + k))


def nonsense_pairs(half: str) -> Iterator[Pair]:
    """Twenty: other objects and body parts, noise, shuffled planes, heads scaled by 1.3 and turned by 90 degrees."""
    head, seed, other = _heads(half), SEEDS[half], int(half == "check")
    yield Pair("head_onto_bottle", False, head(0), partial(bottle, 5001))
    yield Pair("bottle_onto_head", False, partial(bottle, 6001), head(1))
    yield Pair("head_onto_cylinder", False, head(2), partial(cylinder, seed))
    yield Pair("white_noise", False, partial(noise, seed), partial(noise, seed + 1))
    yield Pair("smooth_noise", False, partial(noise, seed + 2, 3), partial(noise, seed + 3, 3))
    yield Pair("noise_onto_head", False, partial(noise, seed + 4, 2 - 2 * other), head(0))
    yield Pair("head_onto_noise", False, head(1), partial(noise, seed + 5, 1))
    yield Pair("knee_onto_head", False, partial(knee, seed), head(2))
    yield Pair("head_onto_knee", False, head(2), partial(knee, seed + 1))
    yield Pair("torso_onto_head", False, partial(torso, seed + 1), head(1))
    yield Pair("head_onto_torso", False, head(0), partial(torso, seed))
    yield Pair("shuffled_moving", False, lambda: shuffled(head(0)(), 1, seed), head(1))
    yield Pair("shuffled_fixed", False, head(1), lambda: shuffled(head(2)(), 2 * other, seed))
    yield Pair("shuffled_itself", False, lambda: shuffled(head(2)(), 2 - 2 * other, seed), head(2))
    for k, axis in enumerate("xyz"):
        scale = tuple(1.3 if n == k else 1 for n in range(3))
        larger = partial(lambda k, scale: moved(head(k)(), scale=scale, size=(130, 140, 130)), k, scale)
        yield Pair(f"scaled_{axis}", False, larger, head(k + other))
        turn = tuple((90 - 180 * other) if n == k else 0 for n in range(3))
        turned = partial(lambda k, turn: moved(head(k)(), turn=turn, size=(120, 120, 120)), k, turn)
        yield Pair(f"turned_{axis}", False, turned, head(k + other))


# ------------------------------------------------------------------------------------------------------------ as DICOM
def write_pair(pair: Pair, folder: Path) -> None:
    """Write a pair as two MR series of one patient, in ``fixed/`` and ``moving/``."""
    for role, make, date in (("fixed", pair.fixed, "20240110"), ("moving", pair.moving, "20230105")):
        values, affine = make()
        stored = np.clip(values * 2000 / np.percentile(values, 99.5), 0, 32767)
        write_series(
            folder / role, stored, affine, role, date=date, frame_of_reference="one" if pair.one_frame else role
        )


NUMBERS = ("similarity_before", "similarity_aligned", "similarity_after", "foreground_similarity", "foreground_dice")
NUMBERS += ("common_view_percent", "rotation_degrees", "stretch", "volume_ratio", "foreground_log_jacobian_sd")
NUMBERS += ("mean_nonrigid_displacement_mm", "max_nonrigid_displacement_mm", "max_displacement_mm", "folding_percent")


def main() -> None:
    """Run the application on the pairs of one half; print a row a pair, and how many the gate judged rightly."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=SEEDS, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", default="", help="names of pairs, or parts of them, with commas between")
    options = parser.parse_args()
    print("pair," + ",".join(NUMBERS) + ",plausible,passed,limits missed")  # noqa: T201
    right = []
    for pair in pairs(options.half):
        if not any(name in pair.name for name in options.only.split(",")):
            continue
        folder = options.output / pair.name
        if not (folder / "out" / "run_manifest.json").is_file():
            write_pair(pair, folder / "in")
            line = [sys.executable, ROOT / "deploy_app", "-i", folder / "in", "-o", folder / "out", "-m", ROOT]
            subprocess.run([*map(str, line)], capture_output=True, check=False)
        manifest = json.loads((folder / "out" / "run_manifest.json").read_text())
        missed = [w.removeprefix("Quality: ") for w in manifest["warnings"] if w.startswith("Quality: ")]
        passed = manifest["status"] == "ok" and not missed
        right.append(passed == pair.plausible)
        numbers = ",".join(f"{manifest['quality'].get(name) or 0:.3f}" for name in NUMBERS)
        reasons = " ".join([*missed, manifest["message"] or ""])
        print(f"{pair.name},{numbers},{pair.plausible},{passed},{reasons}", flush=True)  # noqa: T201
    print(f"{sum(right)} of {len(right)} judged rightly")  # noqa: T201


if __name__ == "__main__":
    main()
