"""Apply a Deformable Spatial Registration object, ours or another's, to the series that it moves.

    python deploy_app/apply_registration.py --registration X.dcm --moving SERIES --output OUT [--fixed SERIES]

With ``--fixed``, a series in the object's frame of reference (the fixed images, or an earlier registered series), the
result lies on that series' voxels; where its slices are sheared, on a straight grid of the same planes unless ``--grid
original`` is given. Without it, the result lies on the object's own grid, its voxels the points at which
the object stores displacements. The result is a registered series in ``OUT/registered/``: complete, or not there.
The settings are the application's (``app.yaml``, PANREG_…): padding, patient check, label, series number.
"""

import sys

from panreg.runtime import scratch  # noqa: F401  isort: skip - before any library that caches
from panreg.apply.command import main

if __name__ == "__main__":
    sys.exit(main())
