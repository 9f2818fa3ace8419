"""Make libcudart loadable: without it not even ``import monai`` works beside the Deploy SDK, GPU or not.

Import this before MONAI. The container's library path does the same there.
"""

import sys

try:
    from cuda.pathfinder import load_nvidia_dynamic_lib

    load_nvidia_dynamic_lib("cudart")
except Exception as error:  # of any kind: one sentence instead of a later, obscure failure
    print(f"The CUDA runtime library can't be loaded ({type(error).__name__}: {error}).", file=sys.stderr)  # noqa: T201
