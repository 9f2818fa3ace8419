"""What a command may not import, since its start would take twice as long."""

import json
import os
import subprocess
import sys

import pytest

FORBIDDEN = (
    *("IPython", "fastapi", "h5py", "itk", "jsonschema", "matplotlib", "mlflow", "pandas", "pydicom", "requests"),
    *("skimage", "sklearn", "sympy", "tensorboard", "torchvision", "yaml"),
    *("scipy.io", "scipy.linalg", "scipy.optimize", "scipy.signal", "scipy.sparse", "scipy.spatial", "scipy.stats"),
    *("torch._dynamo", "torch.distributed.fsdp", "torch.distributed.optim", "torch.distributed.tensor"),
)
LOADED = "print(json.dumps(sorted(sys.modules)))"


def modules_after(lines, *arguments):
    """The names of the modules that a fresh process has loaded after some lines of Python."""
    program = "import json, sys\n" + lines + "\n" + LOADED
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", program, *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def register(tmp_path_factory):
    """The modules of a whole run of ``register`` as from the command line, and what it has written."""
    folder = tmp_path_factory.mktemp("start")
    lines = "from bundle.__main__ import run\nrun('phantom', ['--output_dir', sys.argv[1], '--size', '32,32,32',"
    lines += "'--training', '0', '--validation', '0', '--test', '2'])"
    modules_after(lines, str(folder / "heads"))
    first, second = sorted((folder / "heads" / "images").glob("*.nii.gz"))
    arguments = ["--moving", str(first), "--fixed", str(second), "--output_dir", str(folder / "out")]
    loaded = modules_after("from bundle.__main__ import run\nrun('register', sys.argv[1:])", *arguments)
    return loaded, folder / "out"


def test_register_imports_nothing_that_it_does_not_need(register):
    loaded, written = register
    assert (written / "report.html").is_file()
    assert {"torch", "monai.engines.evaluator", "ignite.engine"} <= loaded
    ours = loaded - modules_after("import scipy.ndimage")  # the SciPy of Python 3.10 loads more of itself
    assert ours.isdisjoint(FORBIDDEN)
    assert not any(name.startswith(tuple(f"{top}." for top in FORBIDDEN)) for name in ours)


@pytest.mark.slow
def test_what_monai_went_without_can_be_imported_afterwards():
    lines = "from bundle.start import load_monai\nload_monai()\nimport itk, scipy.signal, matplotlib.pyplot\n"
    lines += "from torch.distributed.optim import ZeroRedundancyOptimizer\n"
    lines += "assert issubclass(ZeroRedundancyOptimizer, __import__('torch').optim.Optimizer)\n"
    lines += "from monai.networks.nets import UNet"
    assert {"itk", "scipy.signal", "matplotlib.pyplot"} <= modules_after(lines)


@pytest.mark.slow
def test_monai_that_is_there_already_stays_as_it_is():
    lines = "import monai, scipy.signal\nbefore = set(sys.modules)\nfrom bundle.start import load_monai\nload_monai()\n"
    lines += "assert set(sys.modules) - before == {'bundle', 'bundle.start'}"
    assert "torch.distributed.optim" in modules_after(lines)


@pytest.mark.parametrize(
    ("command", "chosen", "found"),
    [
        ("root", {}, "1000 1"),
        ("root", {"GOMP_SPINCOUNT": "5", "OPENBLAS_NUM_THREADS": "2"}, "5 2"),
        ("root", {"OMP_WAIT_POLICY": "active"}, "None 1"),
        ("benchmark", {}, "None None"),
    ],
)
def test_before_numpy_and_torch_are_there_waiting_threads_are_told_to_sleep_soon_but_in_benchmarks(
    command, chosen, found
):
    program = "import os, sys; from bundle.__main__ import load; assert not {'numpy', 'torch'} & {*sys.modules}"
    program += "; load(sys.argv[1]); print(*(os.environ.get(n) for n in ('GOMP_SPINCOUNT', 'OPENBLAS_NUM_THREADS')))"
    names = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS"
    own = {k: v for k, v in os.environ.items() if k not in names}
    line = [sys.executable, "-W", "ignore", "-c", program, command]
    run = subprocess.run(line, capture_output=True, text=True, env=own | chosen, check=True)
    assert run.stdout.strip() == found
