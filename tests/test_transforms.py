import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.failures import bad_input
from bundle.io.images import write_image
from bundle.io.itk import linear_to_itk
from bundle.similarity import likeness
from bundle.spatial import Grid
from bundle.transforms import MatchPaird, MeasureLikenessd, RandMaskd, ReadVolumed, WarpByPredictiond, grid_of, matching
from monai.transforms import Compose
from tests.pictures import SHAPE, meta, oblique, picture, regions

# --- matching ---


def as_canonical(volume):
    """The voxels in canonical order: the second axis runs forwards there, the image's own backwards."""
    return volume.as_tensor()[0].flip(1)


def within(item, spacing_mm=None):
    """Where the network's grid holds the voxels of the fixed image's canonical one, which has no room around it."""
    grid, inner = grid_of(item["image"]), oblique().canonical(spacing_mm)
    assert np.allclose(grid.affine[:3, :3], inner.affine[:3, :3])
    first = grid.inverse[:3, :3] @ inner.origin_mm + grid.inverse[:3, 3]
    start = np.rint(first).astype(int)
    assert np.allclose(first, start, atol=1e-6)
    assert (start >= 0).all()
    assert (start + inner.shape <= grid.shape).all()
    return tuple(slice(a, a + n) for a, n in zip(start, inner.shape))


def test_a_tilted_image_is_sampled_where_its_voxels_are():
    grid = oblique((30, 34, 22))
    affine = grid.affine.copy()
    shear = 0.25 * grid.spacing_mm[2] * grid.direction[:, 1]  # 14 degrees of gantry tilt
    affine[:3, 2] += shear
    affine[:3, 3] -= shear * (grid.shape[2] - 1) / 2
    sheared = Grid(grid.shape, affine)

    def scene(points):
        return np.exp(-((points - grid.centre_mm) ** 2 @ (1 / np.array([18.0, 14, 20]) ** 2)))

    def on(which):
        return meta(scene(which.to_points(np.argwhere(np.ones(which.shape)))).reshape(which.shape), which)

    for affine_kind in ("none", "rigid"):
        item = MatchPaird(affine=affine_kind)({"moving": on(sheared), "fixed": on(grid)})
        moving, fixed = item["image"].numpy()
        inside = (slice(8, -8),) * 3
        assert np.abs(moving - fixed)[inside].max() < 0.05
    np.testing.assert_allclose(item["alignment"].numpy(), np.eye(4), atol=0.5)


def test_an_image_matched_with_itself_gives_two_equal_channels_scaled_to_one():
    item = MatchPaird(affine="none")({"moving": picture(), "fixed": picture(), "seconds": {"read": 1.0}})
    image = item["image"]
    grid, box = grid_of(image), within(item)
    padded = np.zeros(grid.shape)
    padded[box] = as_canonical(picture() - picture().min())
    low, high = np.percentile(padded, (0.5, 99.5))
    assert np.allclose(image[0], np.clip((padded - low) / (high - low), 0, 1), atol=1e-5)
    assert torch.equal(image[0], image[1])
    assert image.min() == 0
    assert image.max() == 1
    assert np.array_equal(item["alignment"], np.eye(4))
    assert set(item["seconds"]) == {"read", "align"}


def test_what_the_choice_of_weights_goes_by_is_measured_of_the_matched_images():
    matched = MatchPaird(affine="none")({"moving": picture(1), "fixed": picture(), "seconds": {"read": 1.0}})
    item, image = MeasureLikenessd()(matched), matched["image"].as_tensor()
    assert item["alike"] == matched["alike"] | likeness(image[:1], image[1:])
    assert set(item["seconds"]) == {"read", "align"}
    assert item["seconds"]["align"] > matched["seconds"]["align"]


def test_the_scale_and_offset_of_intensities_do_not_matter():
    plain = MatchPaird(affine="none")({"moving": picture(1), "fixed": picture()})
    scaled = MatchPaird(affine="none")({"moving": picture(1) * 30 - 900, "fixed": picture() * 0.01})
    assert torch.allclose(plain["image"].as_tensor(), scaled["image"].as_tensor(), atol=1e-4)


def test_a_wider_spacing_gives_the_grid_of_that_spacing_over_the_fixed_image():
    item = MatchPaird(affine="none", spacing_mm=4.0)({"moving": picture(1), "fixed": picture()})
    within(item, 4.0)


def test_center_brings_a_pair_together_that_shares_no_space():
    far = oblique(centre_mm=(900.0, 400.0, -300.0))
    pair = {"moving": picture(0, far), "fixed": picture()}
    with pytest.raises(ValueError, match="share no physical space"):
        MatchPaird(affine="none")(dict(pair))
    item = MatchPaird(affine="center")(dict(pair))
    assert torch.allclose(item["image"][0], item["image"][1], atol=1e-5)


def test_an_initial_transform_takes_the_place_of_the_alignment(tmp_path):
    shift = np.eye(4)
    shift[:3, 3] = (700.0, -20.0, 35.0)
    path = tmp_path / "initial.tfm"
    sitk.WriteTransform(linear_to_itk(shift), str(path))
    moved = oblique(centre_mm=np.array((6.0, -13.0, 21.0)) + shift[:3, 3])
    item = MatchPaird(affine="none")({"moving": picture(0, moved), "fixed": picture(), "initial_transform": str(path)})
    assert np.allclose(item["alignment"], shift)
    assert torch.allclose(item["image"][0], item["image"][1], atol=1e-5)


@pytest.mark.parametrize("extra", ["moving_label", "fixed_mask"])
@pytest.mark.parametrize("other", [oblique(shape=(18, 22, 14)), oblique(centre_mm=(7.0, -13.0, 21.0))])
def test_labels_and_masks_on_another_grid_than_their_image_are_refused(extra, other):
    pair = {"moving": picture(1), "fixed": picture(), extra: regions(grid=other)}
    with pytest.raises(ValueError, match=f"The {extra.replace('_', ' ')} has .* resample one to the other's grid"):
        MatchPaird(affine="none")(pair)


def test_masks_blank_the_rest_of_their_own_image():
    masks = {f"{role}_mask": regions(seed) for role, seed in (("moving", 3), ("fixed", 4))}
    item = MatchPaird(affine="none")({"moving": picture(1), "fixed": picture(), **masks})
    for channel, mask in zip(item["image"], masks.values()):
        outside = torch.ones(channel.shape, dtype=torch.bool)
        outside[within(item)] = as_canonical(mask) == 0
        assert channel[outside].max() < 1e-4
        assert (channel[~outside] > 1e-4).float().mean() > 0.9


def test_what_is_blanked_is_as_dark_as_the_darkest_voxel_of_a_ct():
    hounsfield = (picture() - 100) * 20
    assert hounsfield.min() < -500
    pair = {"moving": hounsfield, "fixed": hounsfield.clone(), "moving_mask": regions(3)}
    blanked = MatchPaird(affine="none")(pair)["image"]
    plain = MatchPaird(affine="none")(pair | {"moving_mask": regions(3) * 0 + 1})["image"]
    assert torch.allclose(plain[0], plain[1])
    box = within({"image": blanked})
    outside = as_canonical(regions(3)) == 0
    assert blanked[0][box][outside].max() < 1e-4
    assert blanked[0][box][~outside].mean() > 0.3


@pytest.mark.parametrize("channel", [0, 1])
def test_a_bright_lesion_that_does_not_count_does_not_darken_what_does(channel):
    role = ("moving", "fixed")[channel]
    pair, mask = {"moving": picture(1), "fixed": picture()}, picture() * 0
    mask[:, 8:14, 9:15, 6:11] = 1
    assert float(mask.mean()) > 0.01  # the upper percentile is among them
    spoiled = pair[role].clone()
    spoiled[mask > 0] = 1.2 * spoiled.max()
    clean, found = (
        MatchPaird(affine="none")(pair | {role: image, f"{role}_cost_mask": mask})["image"][channel].as_tensor()
        for image in (pair[role], spoiled)
    )
    assert float((found - clean).abs().median()) < 1e-6
    assert float((found - clean).abs().quantile(0.95)) < 1e-3


@pytest.mark.parametrize("role", ["moving", "fixed"])
def test_a_mask_that_leaves_nothing_is_refused_by_name(role):
    pair = {"moving": picture(1), "fixed": picture(), f"{role}_mask": regions() * 0}
    with pytest.raises(ValueError, match=f"The {role} mask leaves nothing"):
        MatchPaird(affine="none")(pair)


@pytest.mark.parametrize("role", ["moving", "fixed"])
@pytest.mark.parametrize("covered", [lambda image: image > -1e9, lambda image: image > image.min()])
def test_a_cost_mask_over_all_that_the_image_shows_is_refused_by_name(role, covered):
    pair = {"moving": picture(1), "fixed": picture()}
    pair[f"{role}_cost_mask"] = covered(pair[role]).to(torch.int64)
    with pytest.raises(ValueError, match=f"The {role} cost mask leaves nothing of the {role} image: there is nothing"):
        MatchPaird(affine="none")(pair)


def test_an_unknown_alignment_is_refused_when_the_workflow_is_built():
    with pytest.raises(ValueError, match="none, center, rigid, affine, not 'syn'"):
        MatchPaird(affine="syn")


# --- training ---


def test_both_images_of_a_pair_are_masked_or_neither():
    transform = RandMaskd(keys=["moving", "fixed"], label_keys=["moving_label", "fixed_label"], prob=0.5)
    transform.set_random_state(seed=0)
    pair = {"moving": picture(1), "fixed": picture(), "moving_label": regions(3), "fixed_label": regions(4)}
    outcomes = []
    for _ in range(40):
        item = transform(pair)
        masked = [torch.equal(item[r], pair[r] * (pair[f"{r}_label"] > 0)) for r in ("moving", "fixed")]
        whole = [torch.equal(item[r], pair[r]) for r in ("moving", "fixed")]
        assert masked == [not w for w in whole]
        assert masked[0] == masked[1]
        outcomes.append(masked[0])
    assert 8 <= sum(outcomes) <= 32


def test_masking_needs_labels_unless_it_never_happens():
    pair = {"moving": picture(1), "fixed": picture(), "moving_label": regions(3)}
    keys = dict(keys=["moving", "fixed"], label_keys=["moving_label", "fixed_label"])
    with pytest.raises(ValueError, match="Masking fixed needs a label map"):
        RandMaskd(**keys, prob=1.0)(pair)
    assert torch.equal(RandMaskd(**keys, prob=0.0)(pair)["fixed"], pair["fixed"])


def test_a_pair_of_which_one_image_has_no_region_is_not_masked():
    masking = RandMaskd(keys=["moving", "fixed"], label_keys=["moving_label", "fixed_label"], prob=1.0)
    pair = {"moving": picture(1), "fixed": picture(), "moving_label": regions(3), "fixed_label": regions(4) * 0}
    item = masking(pair)
    assert all(torch.equal(item[role], pair[role]) for role in ("moving", "fixed"))


def test_labels_are_pulled_by_the_field_of_the_prediction():
    label = regions().as_tensor()
    ddf = torch.zeros(3, *SHAPE)
    ddf[1] = 2.0
    warp_by = WarpByPredictiond(keys=["moving_label", "absent"], warped_keys=["warped_label", "warped_absent"])
    item = warp_by({"pred": torch.cat([torch.full((1, *SHAPE), 0.25), ddf]), "moving_label": label})
    assert torch.equal(item["ddf"], ddf)
    assert (item["warped"] == 0.25).all()
    assert torch.equal(item["warped_label"][:, :, :-2], label[:, :, 2:])
    assert (item["warped_label"][:, :, -2:] == 0).all()
    assert "warped_absent" not in item


# --- headers, outliers and alignments that make things worse ---


def written(volume, path):
    write_image(volume.as_tensor(), grid_of(volume), path)
    return str(path)


def test_what_a_header_leaves_open_is_noted_for_each_file(tmp_path):
    odd = nibabel.Nifti1Image(picture()[0].numpy(), None)
    odd.header["qform_code"] = odd.header["sform_code"] = 0
    nibabel.save(odd, tmp_path / "odd.nii.gz")
    paths = {"moving": written(picture(), tmp_path / "plain.nii.gz"), "fixed": str(tmp_path / "odd.nii.gz")}
    (note,) = ReadVolumed(["moving", "fixed"])(paths)["notes"].split("\n")
    assert note.startswith(f"fixed ({paths['fixed']}): its header has no orientation")


def test_a_sheared_fixed_image_and_its_labels_come_onto_a_straight_grid_that_is_named(tmp_path):
    grid = oblique((12, 14, 11))
    sheared = grid.affine.copy()
    sheared[:3, 2] += 0.25 * grid.affine[:3, 1]
    sheared = Grid(grid.shape, sheared)
    image, label = picture(0, sheared), regions(0, sheared)
    for name, volume in (("image", image), ("label", label)):
        nifti = nibabel.Nifti1Image(volume[0].numpy(), volume.affine.numpy())
        nibabel.save(nifti, tmp_path / f"{name}.nii.gz")
    paths = {"fixed": str(tmp_path / "image.nii.gz"), "fixed_label": str(tmp_path / "label.nii.gz")}
    item = ReadVolumed(["fixed", "fixed_label"], ["fixed_label"])(paths)
    straight = grid_of(item["fixed"])
    assert straight.is_close(sheared.orthogonal())
    assert "×".join(map(str, straight.shape)) in item["notes"]
    assert grid_of(item["fixed_label"]).is_close(straight)
    assert set(item["fixed_label"].unique().tolist()) == set(label.unique().tolist())
    assert float(item["fixed"].min()) == pytest.approx(float(image.min()))  # no darker where there was no voxel
    write_image(item["fixed"].as_tensor(), straight, tmp_path / "straight.nii.gz")
    assert sitk.ReadImage(str(tmp_path / "straight.nii.gz")).GetSize() == straight.shape


def wrong_alignment(*_, **__):
    matrix = np.eye(4)
    matrix[:3, 3] = 9, -6, 12
    return matrix


def test_an_alignment_that_makes_the_images_less_alike_is_dropped_if_asked_and_told(monkeypatch):
    monkeypatch.setattr(matching, "align", wrong_alignment)
    pair = {"moving": picture(), "fixed": picture()}
    kept = MatchPaird(affine="affine")(dict(pair))
    dropped = MatchPaird(affine="affine", never_worse=True)(dict(pair))
    assert kept["alike"]["similarity_aligned"] < kept["alike"]["similarity_before"]
    assert "alignment_dropped" not in kept["alike"]
    assert np.array_equal(dropped["alignment"], np.eye(4))
    assert dropped["alike"]["alignment_dropped"] == 1
    assert dropped["alike"]["similarity_aligned"] == dropped["alike"]["similarity_before"]
    monkeypatch.undo()
    assert torch.equal(dropped["image"], MatchPaird(affine="none")(dict(pair))["image"])


@pytest.mark.parametrize("misled", [False, True])
def test_an_alignment_that_helps_is_kept(misled, monkeypatch):
    """Whatever the images tell of each other as a whole: windows that are more alike are enough."""
    monkeypatch.setattr(matching, "is_misled", lambda *_: misled)
    far = oblique(centre_mm=(15.0, -19.0, 33.0))
    item = MatchPaird(affine="center", never_worse=True)({"moving": picture(0, far), "fixed": picture()})
    assert item["alike"]["alignment_dropped"] == 0
    assert item["alike"]["similarity_aligned"] > item["alike"]["similarity_before"]


def test_how_alike_swapped_images_are_does_not_depend_on_which_is_which(monkeypatch):
    near = picture(1, oblique(centre_mm=(13.0, -21.0, 33.0)))
    images = {"moving": near, "fixed": picture()}
    swapped = {"moving": picture(), "fixed": near}
    for pair, matrix in ((images, wrong_alignment()), (swapped, np.linalg.inv(wrong_alignment()))):
        monkeypatch.setattr(matching, "align", lambda *_, matrix=matrix, **__: matrix)
        monkeypatch.setattr(matching, "geometric_mean", lambda one, _: one)
        pair["found"] = MatchPaird(affine="affine", symmetric=True)(dict(pair))["alike"]
    assert images["found"]["similarity_before"] == pytest.approx(swapped["found"]["similarity_before"], rel=1e-3)
    assert images["found"]["similarity_aligned"] == pytest.approx(swapped["found"]["similarity_aligned"], rel=1e-3)


def test_an_initial_transform_that_makes_things_worse_is_kept_and_noted(tmp_path):
    path = str(tmp_path / "initial.tfm")
    sitk.WriteTransform(linear_to_itk(wrong_alignment()), path)
    pair = {"moving": picture(), "fixed": picture(), "initial_transform": path}
    item = MatchPaird(affine="none", never_worse=True)(pair)
    assert np.allclose(item["alignment"], wrong_alignment())
    assert "less alike" in item["notes"]


@pytest.mark.parametrize("value", [60000.0, -32768.0])
@pytest.mark.parametrize("role", ["moving", "fixed"])
def test_one_outlying_voxel_changes_nothing_that_the_network_or_the_alignment_sees_but_itself(role, value, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        matching, "align", lambda moving, *rest, **masks: seen.update(range=np.ptp(moving)) or np.eye(4)
    )
    pair = {"moving": picture(1), "fixed": picture()}
    spoiled = pair | {role: pair[role].clone()}
    spoiled[role][0, 9, 11, 7] = value
    plain, clipped = (MatchPaird("affine")(dict(p)) for p in (pair, spoiled))
    assert seen["range"] < 200
    assert ((plain["image"] - clipped["image"]).abs() > 0.05).sum() <= 27  # the voxel and what is interpolated from it
    assert clipped["alike"]["similarity_aligned"] == pytest.approx(plain["alike"]["similarity_aligned"], abs=0.02)


def test_large_labels_are_pulled_exactly():
    ids = torch.tensor([0, 614454277, 2**53 + 1, 7])
    small = regions().as_tensor().long()
    pred = torch.cat([torch.zeros(1, *SHAPE), torch.full((3, *SHAPE), 1.3)])
    pull = WarpByPredictiond(keys="moving_label", warped_keys=["warped_label"])
    expected = pull({"pred": pred, "moving_label": small})["warped_label"]
    found = pull({"pred": pred, "moving_label": ids[small]})["warped_label"]
    assert torch.equal(found, ids[expected])
    assert len(found.unique()) == len(ids)


@pytest.mark.parametrize("wrong", [torch.nan, -torch.inf])
def test_a_validation_ends_in_a_sentence_where_the_weights_in_training_diverged(wrong):
    pred = torch.rand(4, *SHAPE)
    pred[2, 1, 2, 3] = wrong
    postprocess = Compose([WarpByPredictiond(keys="moving_label", warped_keys=["warped_label"])])
    with pytest.raises(RuntimeError) as caught:
        postprocess({"pred": pred, "moving_label": regions().as_tensor()})
    assert bad_input(caught.value).endswith("Train anew with a lower --learning_rate, or with --amp False.")
