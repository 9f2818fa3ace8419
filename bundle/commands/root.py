"""Print where the bundle's files are."""

from bundle.root import ROOT

__all__ = ["root"]


def root() -> str:
    """Print the bundle root, the folder with configs and models, for MONAI's ``--bundle_root``; and return it."""
    print(ROOT)
    return str(ROOT)
