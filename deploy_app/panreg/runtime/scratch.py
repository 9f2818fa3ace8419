"""Give the libraries a folder for caches and temporary files where a container's root is read-only.

Import this before them: CuPy, which the Deploy SDK imports, must make its cache, and Matplotlib asks for one.
"""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

from panreg.failures import Code

__all__ = ["provide"]

SHARED_MEMORY = "/dev/shm"  # container engines keep it writable


def provide() -> None:
    """Name a folder that can be written in the environment, for this process and its children; removed at the end.

    Raises:
        SystemExit: there is none.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        if not os.access(SHARED_MEMORY, os.W_OK):
            sentence = f"{Code.E_OUTPUT.value}: no folder takes temporary files: mount one (docker run --tmpfs /tmp)."
            print(sentence, file=sys.stderr)  # noqa: T201
            raise SystemExit(Code.E_OUTPUT.exit_code) from None
        os.environ["TMPDIR"] = tempfile.tempdir = SHARED_MEMORY
    if os.access(Path.home(), os.W_OK):
        return
    folder = tempfile.mkdtemp(prefix="panreg-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("CUPY_CACHE_DIR", "MPLCONFIGDIR"):
        os.environ.setdefault(name, folder)


provide()
