"""The application runs as a folder: it comes first on the path, as in the container, and holds the package panreg."""

import json
import os
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "deploy_app"), str(Path(__file__).parent)]

DATA = Path(os.environ.get("PAN_DATA", ROOT.parent / "shared" / "data"))
SIEMENS_STUDY = DATA / "dicom" / "siemens_t1_two_series.zip"
HEADS = DATA / "ixi2mm"
NEEDS = {"siemens_study_folder": SIEMENS_STUDY, "head": HEADS / "dataset.json"}


@pytest.fixture(scope="session")
def siemens_study_folder(tmp_path_factory):
    """A real study: two T1 volumes of one acquisition of a test object, and scouts."""
    folder = tmp_path_factory.mktemp("siemens")
    with zipfile.ZipFile(SIEMENS_STUDY) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="session")
def siemens_study(siemens_study_folder):
    """The scan of the real study."""
    from panreg.ingest.scan import scan
    from panreg.limits import Limits

    return scan(siemens_study_folder, Limits())


@pytest.fixture(scope="session")
def head():
    """A real T1 head: its values (i, j, k) and its affine, LPS."""
    import nibabel
    import numpy as np

    listing = json.loads((HEADS / "dataset.json").read_text())
    image = nibabel.load(HEADS / listing["validation"][0]["image"])  # not one that the weights were trained on
    return np.asarray(image.dataobj, dtype=np.float32), np.diag([-1.0, -1, 1, 1]) @ image.affine


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """The semantic phantom as two studies with a segmentation of the moving one, every identifying text a canary."""
    from canaries import plant
    from segments import masks_on, write_segmentation
    from synthetic import MOVING_AFFINE, MOVING_SHAPE, stack_of, write_phantom_pair

    folder = tmp_path_factory.mktemp("phantom")
    _, moving = write_phantom_pair(folder, edit=lambda ds, k: plant(ds))
    masks = masks_on(MOVING_SHAPE, MOVING_AFFINE)
    write_segmentation(folder / "moving" / "lesions.dcm", stack_of(moving, MOVING_AFFINE), masks)
    return folder


@pytest.fixture(scope="session")
def coarse_models(tmp_path_factory):
    """The bundle as it is, but its network at twice the voxel size: for whole runs whose accuracy does not matter."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "models").mkdir()
    weights = [f"models/{name}.pt" for name in ("model", "one_person", "any_contrast")]
    for name in ("bundle", "configs", "models/any_contrast.json", *weights):
        (folder / name).symlink_to(ROOT / name)
    for name in ("models/model.json", "models/one_person.json"):
        description = json.loads((ROOT / name).read_text())
        description["spacing_mm"] *= 2
        (folder / name).write_text(json.dumps(description))
    return folder


@pytest.fixture(scope="session")
def registration(tmp_path_factory):
    """The semantic phantom, registered by the field that is known."""
    from synthetic import phantom_registration

    return phantom_registration(tmp_path_factory.mktemp("registration"))


@pytest.fixture(scope="session")
def written(registration, tmp_path_factory):
    """Its object on a grid of 3 mm: the path, and what the writer says of it."""
    from known_field import settings_of, write

    path = tmp_path_factory.mktemp("object") / "deformable.dcm"
    return path, write(registration, path, settings_of(spacing_mm=3.0))


def pytest_collection_modifyitems(config, items):
    """Leave out the tests on real images where these aren't there; the summary tells how many."""
    missing = {fixture for fixture, path in NEEDS.items() if not path.is_file()}
    absent = [item for item in items if missing.intersection(getattr(item, "fixturenames", ()))]
    if absent:
        items[:] = [item for item in items if item not in absent]
        config.hook.pytest_deselected(items=absent)
        config.stash[LEFT_OUT] = len(absent)


def pytest_terminal_summary(terminalreporter, config):
    if config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(
            f"{config.stash[LEFT_OUT]} tests left out: real images are not all below {DATA} (set PAN_DATA)"
        )


LEFT_OUT = pytest.StashKey[int]()
