"""What the comparison's tests share: two pairs, options, one whole run, and methods run in this process."""

import pytest
from bundle.benchmark import accuracy, worker
from bundle.benchmark.measure import measure
from bundle.commands.benchmark import accuracy as run
from bundle.data import draw_pairs, open_dataset
from tests import forked

METHODS = "identity,affine,pan"


@pytest.fixture(scope="module")
def pairs(small_dataset):
    return draw_pairs(open_dataset(str(small_dataset), "test"), 2)


@pytest.fixture(scope="module")
def options(small_dataset, shifting_weights):
    return dict(dataset=str(small_dataset), methods=METHODS, affine="center", weights=shifting_weights, threads=1)


@pytest.fixture(scope="module")
def benchmark(options, tmp_path_factory):
    """One whole run of two pairs, its folder and summary."""
    folder = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "get_context", lambda _: forked.context())
        return folder, run(**options, output_dir=str(folder), pairs=2, spacing_mm=5.0)


@pytest.fixture
def in_this_process(monkeypatch):
    """Run the methods here, where tests see and replace what they do; returns the (pair, method's name) measured."""
    measured = []

    class Here:
        def __init__(self, method, common):
            self.method, self.common, self.register = method, common, method.load()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def __call__(self, pair, alignment):
            measured.append(pair["name"])
            return measure(pair, alignment, self.common, self.method, self.register)

    monkeypatch.setattr(accuracy, "worker", Here)
    return measured
