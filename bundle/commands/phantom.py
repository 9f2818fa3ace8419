"""``python -m bundle phantom``: make the synthetic data set."""

from collections.abc import Sequence

from bundle.phantom import write_phantoms

__all__ = ["phantom"]


def phantom(
    output_dir: str,
    training: int = 16,
    validation: int = 4,
    test: int = 4,
    size: Sequence[int] = (80, 96, 80),
    spacing: float = 2.0,
    seed: int = 0,
    contrast: str = "t1",
) -> str:
    """Make a small data set of synthetic labelled heads, with no download.

    The folder gets ``images``, ``labels`` and ``dataset.json``, as in the Medical Segmentation Decathlon. The same
    arguments make the same data set, and a second call with them returns at once.

    Args:
        output_dir: Folder of the data set, made if need be.
        training: Number of heads to train on.
        validation: Number of heads to validate on.
        test: Number of heads to test on.
        size: Voxels along the three axes, for example 80,96,80.
        spacing: Size of a voxel in mm.
        seed: Another seed gives other heads.
        contrast: t1 for T1-like intensities, random for other ones with each head.

    Returns:
        The folder.
    """
    folder = write_phantoms(output_dir, training, validation, test, size, spacing, seed, contrast)
    print(f"The data set is in {folder}: {training} training, {validation} validation and {test} test heads")
    return str(folder)
