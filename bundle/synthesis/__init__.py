"""Training pairs whose contrast is made up: what the network sees, while the loss sees the anatomy behind it.

``shapes`` and ``rescan`` replace the anatomy of a pair, ``lesions`` changes it; ``contrast`` gives it an appearance,
which may be one of ``sequences``, and ``acquisition`` a scanner.
"""

from bundle.synthesis.contrast import RandContrastd
from bundle.synthesis.rescan import RandRescand
from bundle.synthesis.shapes import RandShapesd

__all__ = ["RandContrastd", "RandRescand", "RandShapesd"]
