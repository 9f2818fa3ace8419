"""The Model Zoo's unit test of this bundle, in the zoo's form: ``ci/unit_tests/test_pan_registration.py`` there."""

import json
import os
import shutil
import sys
import tempfile
import unittest

import nibabel as nib
import numpy as np
from monai.bundle import ConfigWorkflow
from parameterized import parameterized

IN_ZOO = "models/pan_registration"
BUNDLE_ROOT = IN_ZOO if os.path.isdir(IN_ZOO) else os.path.join(os.path.dirname(__file__), "..", "..")

TEST_CASE_TRAIN = [{"bundle_root": BUNDLE_ROOT, "epochs": 1, "cache_rate": 0.0, "val_pairs": 1}]
TEST_CASE_EVALUATE = [{"bundle_root": BUNDLE_ROOT, "affine": "none", "surfaces": False, "spacing_mm": None}]
TEST_CASE_INFER = [
    {
        "bundle_root": BUNDLE_ROOT,
        "affine": "center",
        "spacing_mm": None,
        "handlers#0#_disabled_": True,  # do not load weights
    }
]


def produce_fake_dataset(folder):
    shape = (32, 35, 33)
    splits = {"training": [0, 1], "validation": [2, 3], "test": [4, 5]}
    rng = np.random.default_rng(0)
    for i in range(6):
        label = np.zeros(shape, np.uint8)
        corner = rng.integers(4, 12, 3)
        label[tuple(slice(c, c + 16) for c in corner)] = 1
        image = (200 * label + rng.integers(0, 50, shape)).astype(np.int16)
        nib.save(nib.Nifti1Image(image, np.eye(4)), os.path.join(folder, f"image_{i}.nii.gz"))
        nib.save(nib.Nifti1Image(label, np.eye(4)), os.path.join(folder, f"label_{i}.nii.gz"))
    listing = {
        split: [{"image": f"image_{i}.nii.gz", "label": f"label_{i}.nii.gz"} for i in cases]
        for split, cases in splits.items()
    }
    with open(os.path.join(folder, "dataset.json"), "w") as file:
        json.dump(listing, file)


def check_workflow(workflow):
    workflow.initialize()
    check_result = workflow.check_properties()
    if check_result is not None and len(check_result) > 0:
        raise ValueError(f"check properties for workflow failed: {check_result}")
    workflow.run()
    workflow.finalize()


class TestPANRegistration(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        produce_fake_dataset(self.folder)
        self.path = sys.path
        sys.path = [BUNDLE_ROOT, *sys.path]  # the bundle has code of its own

    def tearDown(self):
        sys.path = self.path
        shutil.rmtree(self.folder)

    def workflow(self, workflow_type, names, override):
        configs = os.path.join(override["bundle_root"], "configs")
        return ConfigWorkflow(
            workflow_type=workflow_type,
            config_file=[os.path.join(configs, f"{name}.json") for name in names],
            logging_file=os.path.join(configs, "logging.conf"),
            meta_file=os.path.join(configs, "metadata.json"),
            dataset_dir=self.folder,
            output_dir=os.path.join(self.folder, "output"),
            **override,
        )

    @parameterized.expand([TEST_CASE_TRAIN])
    def test_train_config(self, override):
        check_workflow(self.workflow("train", ["train"], override))
        assert os.path.isfile(os.path.join(self.folder, "output", "models", "model.pt"))

    @parameterized.expand([TEST_CASE_EVALUATE])
    def test_evaluate_config(self, override):
        check_workflow(self.workflow("train", ["train", "evaluate"], override))
        assert os.path.isfile(os.path.join(self.folder, "output", "summary.csv"))

    @parameterized.expand([TEST_CASE_INFER])
    def test_infer_config(self, override):
        check_workflow(self.workflow("infer", ["inference"], override))
        for pair in ("image_4_to_image_5", "image_5_to_image_4"):
            assert os.path.isfile(os.path.join(self.folder, "output", pair, "transform.h5"))


if __name__ == "__main__":
    unittest.main()
