import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from bundle.commands.phantom import phantom
from bundle.phantom import REGIONS, centred_affine, make_head, random_anatomy, sample, write_pair, write_phantoms

SHAPE, SPACING_MM = (54, 64, 56), 3.0
TINY = dict(training=2, validation=1, test=1, shape=(18, 22, 20), spacing_mm=9.0)


def unposed(seed):
    """A subject without the part that an affine alignment could undo."""
    return replace(random_anatomy(seed), pose=np.eye(4))


def mean_dice(a, b):
    return np.mean([2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum()) for k in REGIONS])


def centroids_mm(label, affine, regions=REGIONS):
    return {k: affine[:3, :3] @ np.argwhere(label == k).mean(0) + affine[:3, 3] for k in regions}


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def unposed_labels():
    affine = centred_affine(SHAPE, SPACING_MM)
    return [sample(unposed(seed), SHAPE, affine)[1] for seed in range(4)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("tiny"), **TINY)


@pytest.mark.parametrize("contrast", ["t1", "random"])
def test_the_same_seed_gives_the_same_bits(contrast):
    first, second = (make_head(7, (30, 36, 28), 5.0, contrast) for _ in range(2))
    other = make_head(8, (30, 36, 28), 5.0, contrast)
    assert all(np.array_equal(a, b) for a, b in zip(first, second))
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[1], other[1])


def test_image_and_labels_have_the_promised_shape_and_type():
    image, label, affine = make_head(0, (30, 36, 28), (5.0, 4.5, 6.0))
    assert image.shape == label.shape == (30, 36, 28)
    assert (image.dtype, label.dtype) == (np.float32, np.uint8)
    np.testing.assert_allclose(np.diag(affine), (5.0, 4.5, 6.0, 1))
    assert image.min() >= 0


@pytest.mark.parametrize("seed", range(4))
def test_every_subject_has_every_region(seed):
    _, label, _ = make_head(seed, (80, 96, 80), 2.0)
    assert set(np.unique(label)) == {0, *REGIONS}
    assert np.bincount(label.ravel()).min() >= 40
    assert not label[[0, -1]].any()  # and a brain that its field of view does not cut
    assert not label[:, [0, -1]].any()
    assert not label[:, :, [0, -1]].any()


def test_without_the_affine_part_brains_overlap_and_regions_do_not(unposed_labels):
    pairs = list(itertools.combinations(unposed_labels, 2))
    assert 0.35 < np.mean([mean_dice(a, b) for a, b in pairs]) <= 0.60
    assert min(2 * ((a > 0) & (b > 0)).sum() / ((a > 0).sum() + (b > 0).sum()) for a, b in pairs) > 0.85


def test_undoing_the_smooth_warp_brings_the_regions_together(unposed_labels):
    affine = centred_affine(SHAPE, SPACING_MM)
    aligned = sample(replace(unposed(1), warps=unposed(0).warps), SHAPE, affine)[1]
    assert mean_dice(unposed_labels[0], aligned) > mean_dice(unposed_labels[0], unposed_labels[1]) + 0.2
    assert mean_dice(unposed_labels[0], aligned) > 0.78


@pytest.mark.parametrize("seed", range(4))
def test_the_map_to_the_template_never_folds(seed):
    affine = centred_affine((40, 48, 44), 4.0)
    world = affine[:3, :3] @ np.indices((40, 48, 44)).reshape(3, -1) + affine[:3, 3:]
    template = random_anatomy(seed).to_template(world.astype(np.float32)).reshape(3, 40, 48, 44).astype(np.float64)
    jacobian = np.stack(np.gradient(template, 4.0, axis=(1, 2, 3)), axis=1)
    determinant = np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1)))
    assert determinant.min() > 0.2
    assert determinant.std() > 0.1  # and it is no affine map


def test_regions_lie_at_the_same_millimetres_on_an_oblique_anisotropic_grid():
    anatomy = random_anatomy(5)
    plain, oblique = centred_affine((68, 80, 68), 2.5), centred_affine((100, 84, 60), (-1.8, 2.6, 3.2), (14, -11, 8))
    _, on_plain = sample(anatomy, (68, 80, 68), plain)
    _, on_oblique = sample(anatomy, (100, 84, 60), oblique)
    expected, found = centroids_mm(on_plain, plain), centroids_mm(on_oblique, oblique)
    for region in REGIONS:
        np.testing.assert_allclose(found[region], expected[region], atol=2.0, err_msg=REGIONS[region])


def test_the_image_follows_the_labels_on_an_oblique_grid():
    anatomy = random_anatomy(5)
    image, label = sample(anatomy, (60, 70, 50), centred_affine((60, 70, 50), (-2.8, 2.6, 3.4), (14, -11, 8)))
    white, ventricle = (np.median(image[np.isin(label, k)]) for k in ((9, 10), (11, 12)))
    cortex = np.median(image[(label > 0) & (label < 9)])
    assert ventricle < 0.6 * cortex
    assert cortex < 0.8 * white


def test_left_regions_are_left_in_ras_even_where_the_array_runs_the_other_way():
    affine = centred_affine((64, 72, 60), (-2.5, 2.6, 2.7), (5, 5, -8))
    _, label = sample(unposed(2), (64, 72, 60), affine)
    centroid = centroids_mm(label, affine)
    for left in range(1, 23, 2):
        assert REGIONS[left].split(" ", 1) == ["left", REGIONS[left + 1].split(" ", 1)[1]]
        assert centroid[left][0] < 0 < centroid[left + 1][0]
    names = {name: centroid[k] for k, name in REGIONS.items()}
    assert names["left frontal cortex"][1] > names["left parietal cortex"][1] > names["left occipital cortex"][1]
    assert names["left parietal cortex"][2] > names["left temporal cortex"][2] > names["left cerebellum"][2]


def test_random_contrast_changes_the_intensities_and_not_the_shape():
    grid = (40, 48, 40), centred_affine((40, 48, 40), 4.0)
    orders = set()
    for seed in range(4):
        image, label = sample(random_anatomy(seed, "random"), *grid)
        np.testing.assert_array_equal(label, sample(random_anatomy(seed, "t1"), *grid)[1])
        orders.add(tuple(np.argsort([np.median(image[np.isin(label, k)]) for k in ((9, 10), (11, 12), (21, 22))])))
    assert len(orders) > 1


def test_write_phantoms_lays_out_a_decathlon_data_set(tiny):
    data = json.loads((tiny / "dataset.json").read_text())
    assert data["name"] == "phantom"
    assert data["licence"] == "CC0-1.0"
    assert data["spacing_mm"] == [9, 9, 9]
    assert data["labels"] == {"0": "background", **{str(k): v for k, v in REGIONS.items()}}
    assert data["training"][1] == {"image": "images/phantom_001.nii.gz", "label": "labels/phantom_001.nii.gz"}
    listed = [case[kind] for part in ("training", "validation", "test") for case in data[part] for kind in case]
    assert sorted([*listed, "dataset.json"]) == sorted(files_of(tiny))
    assert len(listed) == len(set(listed)) == 8


def test_written_volumes_carry_their_grid_and_match_the_generator(tiny):
    image, label = (nibabel.load(tiny / kind / "phantom_001.nii.gz") for kind in ("images", "labels"))
    affine = centred_affine(TINY["shape"], TINY["spacing_mm"])
    expected_image, expected_label = sample(random_anatomy((0, 1)), TINY["shape"], affine)
    assert label.get_data_dtype() == np.uint8
    assert image.header["sform_code"] > 0
    assert image.header["qform_code"] > 0
    np.testing.assert_allclose(image.affine, affine)
    np.testing.assert_allclose(image.get_qform(), affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(label.dataobj), expected_label)
    np.testing.assert_allclose(image.get_fdata(), expected_image, atol=0.5001)


def test_a_whole_data_set_is_left_alone_and_an_interrupted_one_is_finished(tmp_path, tiny):
    write_phantoms(tmp_path, **TINY)
    assert files_of(tmp_path) == files_of(tiny)
    image = tmp_path / "images" / "phantom_000.nii.gz"
    image.write_bytes(b"touched")
    write_phantoms(tmp_path, **TINY)
    assert image.read_bytes() == b"touched"
    (tmp_path / "dataset.json").unlink()
    write_phantoms(tmp_path, **TINY)
    assert files_of(tmp_path) == files_of(tiny)


def test_two_calls_at_once_make_one_data_set(tmp_path, tiny):
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(write_phantoms, tmp_path, **TINY) for _ in range(2)]
    assert [call.result() for call in calls] == [tmp_path, tmp_path]
    assert files_of(tmp_path) == files_of(tiny)


def test_an_interruption_leaves_no_dataset_json(tmp_path, monkeypatch):
    def interrupted(image, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(nibabel, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_phantoms(tmp_path, **TINY)
    assert files_of(tmp_path) == {}


@pytest.mark.parametrize("change", [{"seed": 1}, {"training": 3}, {"contrast": "random"}, {"spacing_mm": 8.0}])
def test_another_data_set_is_refused_and_kept(tmp_path, tiny, change):
    (tmp_path / "dataset.json").write_text((tiny / "dataset.json").read_text())
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match="another data set"):
        write_phantoms(tmp_path, **{**TINY, **change})
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("text", ['{"name": "OASIS", "training": []}', "[1, 2]", "not json"])
def test_a_foreign_dataset_json_is_refused_and_kept(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match="give another output folder"):
        write_phantoms(tmp_path, **TINY)
    assert files_of(tmp_path) == {"dataset.json": text.encode()}


def test_the_pair_is_two_subjects_on_two_grids(tmp_path):
    paths = write_pair(tmp_path)
    assert [p.name for p in paths] == ["moving.nii.gz", "moving_label.nii.gz", "fixed.nii.gz", "fixed_label.nii.gz"]
    moving, moving_label, fixed, fixed_label = (nibabel.load(p) for p in paths)
    assert moving.shape == moving_label.shape != fixed.shape == fixed_label.shape
    np.testing.assert_array_equal(moving.affine, moving_label.affine)
    spacing = moving.header.get_zooms()
    assert max(spacing) > 1.5 * min(spacing)
    assert nibabel.affines.obliquity(moving.affine).max() > np.radians(5)
    assert nibabel.aff2axcodes(moving.affine) != nibabel.aff2axcodes(fixed.affine)
    sizes = [
        np.bincount(np.asarray(v.dataobj).ravel()) * abs(np.linalg.det(v.affine)) for v in (moving_label, fixed_label)
    ]
    assert min(sizes[0].min(), sizes[1].min()) > 0
    assert np.abs(sizes[0][1:] / sizes[1][1:] - 1).max() > 0.1  # mm³ of a region: two subjects, not one seen twice


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda d: random_anatomy(-1), "seed must be"),
        (lambda d: random_anatomy(0, "t2"), "contrast must be"),
        (lambda d: make_head(0, (8, 8)), "shape must be"),
        (lambda d: make_head(0, (8, 8, 0)), "shape must be"),
        (lambda d: make_head(0, (8, 8, 8), 0.0), "spacing must be"),
        (lambda d: sample(random_anatomy(0), (8, 8, 8), np.eye(3)), "affine must be 4×4"),
        (lambda d: sample(random_anatomy(0), (8, 8, 8), np.diag([1, 0, 1, 1])), "affine must be invertible"),
        (lambda d: write_phantoms(d, training=-1), "numbers of heads"),
        (lambda d: write_phantoms(d, 0, 0, 0), "numbers of heads"),
        (lambda d: write_phantoms(d, spacing_mm=-2.0), "spacing_mm must be"),
        (lambda d: write_phantoms(d, contrast="t2"), "contrast must be"),
        (lambda d: write_pair(d, seed=-3), "seed must be"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_written(tmp_path, call, words):
    with pytest.raises(ValueError, match=words):
        call(tmp_path)
    assert files_of(tmp_path) == {}


def test_the_command_makes_the_data_set_and_says_where(tmp_path, capsys, tiny):
    phantom(str(tmp_path), training=2, validation=1, test=1, size=(18, 22, 20), spacing=9.0)
    assert str(tmp_path) in capsys.readouterr().out
    assert files_of(tmp_path) == files_of(tiny)
