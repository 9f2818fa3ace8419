"""Accuracy against regularity: a point for each strength of smoothing."""

import numpy as np
import pytest
import torch
from bundle.benchmark import accuracy
from bundle.benchmark.curve import CURVES, curve_methods, write_curve
from bundle.benchmark.measure import measure
from bundle.benchmark.methods import Network, Options
from bundle.commands.equal_terms import curve
from bundle.io.tables import read_csv
from bundle.smoothing import smooth
from bundle.spatial import Grid
from matplotlib.image import imread


def test_pans_field_is_smoothed_after_it_is_found(shifting_weights):
    image, grid = torch.rand(1, 2, 32, 33, 34), Grid((32, 33, 34), np.eye(4))
    methods = curve_methods(["pan"], Options(shifting_weights))
    plain = methods["pan at 0"].load()(image, grid)
    assert torch.equal(plain, Network(shifting_weights).load()(image, grid))
    for sigma in (0.5, 2):
        found = methods[f"pan at {sigma}"].load()(image, grid)
        torch.testing.assert_close(found, smooth(plain[None], sigma)[0])
        assert not torch.allclose(found, plain, atol=1e-3)
    settings = [method.settings() for method in methods.values()]
    assert settings[0] == Network(shifting_weights).settings()  # looked up where accuracy has found it
    assert all(settings.count(one) == 1 for one in settings)
    folding = curve_methods(["pan"], Options(shifting_weights, remove_folds=False))["pan at 2"]
    assert folding.settings() == methods["pan at 2"].settings() | {"remove_folds": False}


@pytest.mark.slow
def test_a_curve_is_a_table_and_a_figure(small_dataset, shifting_weights, tmp_path, monkeypatch):
    class Here:
        """The worker, in this process."""

        def __init__(self, method, common):
            self.method, self.common = method, common

        def __enter__(self):
            return lambda pair, alignment: measure(pair, alignment, self.common, self.method, self.method.load())

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(accuracy, "worker", Here)
    options = dict(affine="center", spacing_mm=5.0, weights=shifting_weights, threads=1)
    points = curve(str(small_dataset), str(tmp_path), "test", 1, methods="pan", **options)
    rows = read_csv(tmp_path / "curve.csv")
    assert [(row["method"], float(row["smoothing"])) for row in rows] == [("pan", sigma) for sigma in CURVES["pan"][0]]
    spread = [point["log_jacobian_sd_mean"] for point in points]
    assert spread == sorted(spread, reverse=True)  # the smoother the field, the more even
    assert spread[0] > 1.2 * spread[-1]
    assert imread(tmp_path / "curve.png").std() > 0


def test_what_failed_is_left_out_of_the_figure(tmp_path):
    rows = [{"pair": "a", "method": f"pan at {sigma}", "error": "no field"} for sigma in (0, 1)]
    points = write_curve(rows, tmp_path)
    assert [point["failed"] for point in points] == [1, 1]
    assert (tmp_path / "curve.png").is_file()


def test_methods_without_a_curve_are_refused():
    for names in ([], ["pan", "pan"], ["elastix"]):
        with pytest.raises(ValueError, match="--methods takes some of pan,greedy,syn-mi,syn-cc"):
            curve_methods(names, Options("unused.pt"))
