"""Show a registration: of a phantom pair, or of the user's files."""

from typing import Any

from bundle.commands.register import check_affine, check_device, output_folder, register
from bundle.phantom import write_pair
from bundle.root import WEIGHTS

__all__ = ["demo"]


def demo(
    output_dir: str = "output/demo",
    moving: str | None = None,
    fixed: str | None = None,
    affine: str = "affine",
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Register two synthetic heads on different grids, the moving one oblique, or two images given.

    Args:
        output_dir: folder to write.
        moving: image to align; a synthetic head by default.
        fixed: image to align to; a synthetic head by default.
        affine: pre-alignment: none, center, rigid or affine.
        device: auto, cpu or cuda.
        seed: which synthetic heads.

    Returns:
        What registration.json holds.
    """
    if (moving is None) != (fixed is None):
        raise ValueError("Give both --moving and --fixed, or neither.")
    if moving is not None and fixed is not None:
        return register(moving, fixed, output_dir, affine=affine, device=device)
    check_affine(affine)
    check_device(device)
    paths = write_pair(output_folder(output_dir) / "images", seed=seed)
    moving_image, moving_label, fixed_image, fixed_label = (str(path) for path in paths)
    options: dict[str, Any] = {"affine": affine, "device": device, "weights": str(WEIGHTS)}  # they are of one contrast
    return register(moving_image, fixed_image, output_dir, moving_label, fixed_label, **options)
