"""Start quickly: load MONAI and ignite without what only others of their users need."""

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["UNUSED", "load_monai", "spin_briefly", "without_collections"]

UNUSED = (
    *("IPython", "clearml", "cucim", "cupy", "einops", "fastapi", "gdown", "h5py", "huggingface_hub", "itk"),
    *("jsonschema", "lmdb", "mlflow", "nni", "onnx", "onnxruntime", "openslide", "optuna", "pandas", "psutil"),
    *("pydicom", "pynvml", "requests", "sklearn", "skimage", "tensorboard", "tensorboardX", "tensorrt", "torchvision"),
    *("transformers", "yaml", "zarr"),
    *("matplotlib", "mpl_toolkits", "scipy.optimize", "scipy.signal", "scipy.sparse", "scipy.spatial"),
    "torch.utils.tensorboard",
)
"""Modules that MONAI imports where they are installed, and does without where they are not."""

SHARDED = "torch.distributed.optim"  # ignite names one class of it, whose module loads FSDP and sympy


class _NotInstalled(MetaPathFinder):
    """Say of some modules that they are not installed."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Refuse those; leave the others to the finders that follow."""
        if fullname in self.names:
            raise ModuleNotFoundError(f"No module named '{fullname}'", name=fullname)
        return None


def load_monai() -> None:
    """Import MONAI and ignite as if ``UNUSED`` were not installed; what is loaded already stays as it is.

    For a process that runs one of our commands: what MONAI makes of those modules (readers of DICOM or whole slides,
    experiment trackers, Jupyter's plots) says that they are missing when it is used. Anyone else can still import them.
    """
    if "monai" in sys.modules:
        return
    import torch.distributed

    finder = _NotInstalled(UNUSED)
    sys.meta_path.insert(0, finder)
    placeholder = SHARDED not in sys.modules and torch.distributed.is_available()
    if placeholder:
        sys.modules[SHARDED] = ModuleType(SHARDED)
        # nothing is an instance of it: no process of ours shards its optimiser
        sys.modules[SHARDED].ZeroRedundancyOptimizer = type("ZeroRedundancyOptimizer", (), {})  # type: ignore[attr-defined]
    try:
        import ignite.engine  # noqa: F401
        import monai
        import monai.bundle
        import monai.handlers  # noqa: F401
    finally:
        sys.meta_path.remove(finder)
        if placeholder:
            del sys.modules[SHARDED]


def spin_briefly() -> None:
    """Let threads that wait for work go to sleep soon; before numpy and torch are imported, which bring them.

    GNU's OpenMP has them spin for milliseconds, and a command that runs once makes them wait more often than they
    work, while one of them reads files or builds kernels. numpy and scipy start spinning threads of their own for
    matrices of a size that no command has. A user's own choice of a variable goes first.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@contextmanager
def without_collections() -> Iterator[None]:
    """Keep Python from looking for garbage: thousands of modules are loaded, and none of them is thrown away."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
