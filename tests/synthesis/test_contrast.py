import numpy as np
import pytest
import torch
from bundle.labels import consecutive
from bundle.synthesis import RandContrastd, contrast
from bundle.synthesis.contrast import class_map, draw_appearance, draw_curve

SIZE = (24, 34, 20)


@pytest.fixture
def head():
    """A head in [0, 1] with six regions in its brain, air (dark, not 0) around it and a blank border: image, labels."""
    axes = [torch.linspace(-1, 1, n).abs() for n in SIZE]
    distance = torch.stack(torch.meshgrid(*axes, indexing="ij")).amax(0)[None]
    image = torch.where(distance < 0.8, 0.5 + 0.3 * torch.sin(6 * distance), 0.02)
    image += 0.01 * torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
    labels = torch.where(distance < 0.6, 1 + (10 * distance).floor().clamp(max=5) * 7, 0.0)  # 1, 8, … 36
    image[:, :2] = 0
    labels[:, :2] = 0
    return image, labels


def contrasted(pair, seed=0, **shares):
    transform = RandContrastd(["moving", "fixed"], ["moving_label", "fixed_label"], **shares)
    transform.set_random_state(seed)
    return transform(pair)


@pytest.fixture
def pair(head):
    image, labels = head
    return {"moving": image, "fixed": image.clone(), "moving_label": labels, "fixed_label": labels.clone()}


TWO = {"real_share": 0.0, "alike_share": 0.0, "one_real_share": 0.0}


def correlation(a, b, where):
    return np.corrcoef(a[where].numpy(), b[where].numpy())[0, 1]


def test_a_class_map_keeps_regions_whole_and_splits_the_outside_by_intensity(head):
    image, labels = head
    tissue = torch.ones(37, dtype=torch.int32)
    tissue[[8, 22]] = 2
    classes = class_map(image, labels, tissue, 4, torch.Generator().manual_seed(0))
    for region in labels.unique()[1:]:
        assert classes[labels == region].unique().tolist() == [2 if region in (8, 22) else 1]
    assert (classes[image == 0] == 0).all()
    outside = (labels == 0) & (image > 0)
    air, head_voxels = classes[outside & (image < 0.1)], classes[outside & (image > 0.1)]
    assert air.unique().tolist() == [3]
    assert head_voxels.min() > 3
    brightness = [image[outside & (classes == c)].mean() for c in head_voxels.unique()]
    assert len(brightness) >= 2
    assert brightness == sorted(brightness)


def test_painted_classes_differ_as_their_means_say(head):
    image, labels = head
    appearance = draw_appearance(np.random.RandomState(1), image, labels, curve_share=0.0)
    painted = type(appearance)(**{**vars(appearance), "texture": 0.0})(image, labels, torch.Generator().manual_seed(0))
    classes = class_map(image, labels, appearance.tissue, appearance.clusters, torch.Generator().manual_seed(0))
    present = [c for c in classes.unique().tolist() if c > 0]
    assert len(present) >= 4
    for c in present:
        seen, expected = painted[classes == c], appearance.mean[c]
        standard_error = float(appearance.spread[c]) / len(seen) ** 0.5
        assert abs(float(seen.mean() - expected)) < 5 * standard_error + 0.02  # values below 0 are cut off
    means = torch.stack([painted[classes == c].mean() for c in present])
    assert means.max() - means.min() > 0.3


def test_air_is_dark_and_calm_where_tissues_may_be_mottled(head):
    drawn = [draw_appearance(np.random.RandomState(seed), *head, curve_share=0.0) for seed in range(30)]
    air = [len(appearance.mean) - appearance.clusters for appearance in drawn]  # the darkest cluster
    assert max(one.mean[at] for one, at in zip(drawn, air)) < 0.08
    assert max(one.spread[at] for one, at in zip(drawn, air)) < 0.02
    assert min(one.spread.max() for one in drawn) > 0.05


@pytest.mark.parametrize("painted", [True, False])
def test_the_jagged_borders_of_what_is_painted_are_blurred_and_a_real_texture_is_not(pair, painted, monkeypatch):
    least = []
    monkeypatch.setattr(
        contrast, "draw_acquisition", lambda _, blur=0.0: least.append(blur) or (lambda image, _: image)
    )
    contrasted(pair, **TWO, curve_share=0.0 if painted else 1.0)
    assert [blur > 0.2 for blur in least] == [painted] * 2


def test_a_contrast_of_its_own_changes_how_tissues_compare(pair):
    inside = pair["fixed_label"] > 0
    found = [contrasted(pair, seed, **TWO) for seed in range(12)]
    likeness = [abs(correlation(item["moving"], item["fixed"], inside)) for item in found]
    assert np.median(likeness) < 0.7
    negative = [correlation(item["fixed"], pair["fixed"], inside) < 0 for item in found]
    assert 2 <= sum(negative) <= 10


def test_one_contrast_for_both_leaves_equal_images_alike_but_for_the_scan(pair):
    inside = pair["fixed_label"] > 0
    likeness = []
    for seed in range(8):
        item = contrasted(pair, seed, real_share=0.0, alike_share=1.0)
        assert not torch.equal(item["moving"], item["fixed"])
        likeness.append(correlation(item["moving"], item["fixed"], inside))
    assert np.median(likeness) > 0.8


@pytest.mark.parametrize("lacking", ["moving", "fixed"])
def test_one_contrast_for_both_paints_a_region_alike_where_another_is_in_one_map_alone(pair, lacking, monkeypatch):
    monkeypatch.setattr(contrast, "draw_acquisition", lambda *_: lambda image, _: image)
    label, regions = f"{lacking}_label", pair["fixed_label"].unique().tolist()[1:]
    few = pair | {label: pair[label].where(pair[label] != regions[0], 0.0)}
    for seed in range(8):
        item = contrasted(few, seed, real_share=0.0, alike_share=1.0, curve_share=0.0)
        for region in regions[1:]:
            seen = [item[role][few[f"{role}_label"] == region].mean() for role in ("moving", "fixed")]
            assert abs(seen[0] - seen[1]) < 0.02


def test_labels_and_clean_images_are_left_untouched(pair):
    before = {key: value.clone() for key, value in pair.items()}
    item = contrasted(pair, **TWO)
    for role in ("moving", "fixed"):
        assert torch.equal(pair[role], before[role])
        assert torch.equal(item[f"clean_{role}"], before[role])
        assert torch.equal(item[f"{role}_label"], before[f"{role}_label"])
        assert not torch.equal(item[role], before[role])


def test_labels_of_any_size_are_painted(pair):
    names = ("moving_label", "fixed_label")
    small = pair | {name: consecutive(pair[name].long())[1] for name in names}
    large = pair | {name: pair[name].long() * 10**12 for name in names}
    for shares in (TWO, TWO | {"sequence_share": 1.0}):
        first, other = (contrasted(labelled, 5, **shares) for labelled in (small, large))
        assert all(torch.equal(first[role], other[role]) for role in ("moving", "fixed"))
        assert torch.equal(other["fixed_label"], large["fixed_label"])


def test_a_seed_fixes_the_contrasts(pair):
    first, again, other = (contrasted(pair, seed, **TWO) for seed in (5, 5, 6))
    assert all(torch.equal(first[role], again[role]) for role in ("moving", "fixed"))
    assert not torch.equal(first["fixed"], other["fixed"])


def test_what_is_blank_stays_blank_and_the_rest_within_zero_and_one(pair):
    for seed in range(6):
        item = contrasted(pair, seed, **TWO)
        for role in ("moving", "fixed"):
            assert (item[role][pair[role] == 0] == 0).all()
            assert item[role].min() >= 0
            assert item[role].max() <= 1
            assert torch.isfinite(item[role]).all()


def test_a_real_pair_is_passed_on_as_it_is(pair):
    item = contrasted(pair, real_share=1.0, alike_share=0.0)
    assert torch.equal(item["moving"], pair["moving"])
    assert torch.equal(item["fixed"], pair["fixed"])
    assert not item["synthetic"]
    assert contrasted(pair, **TWO)["synthetic"]


def test_two_scans_of_a_real_person_differ_by_the_scanner(pair):
    item = contrasted({**pair, "known": torch.tensor(True)}, real_share=1.0, alike_share=0.0)
    assert not torch.equal(item["moving"], item["fixed"])
    assert correlation(item["moving"], item["fixed"], pair["fixed_label"] > 0) > 0.8
    assert not item["synthetic"]


def test_in_a_share_of_pairs_one_image_stays_real(pair):
    real = []
    for seed in range(10):
        item = contrasted(pair, seed, **TWO | {"one_real_share": 1.0})
        real.append([torch.equal(item[role], pair[role]) for role in ("moving", "fixed")])
    assert all(sum(sides) == 1 for sides in real)
    assert {sides.index(True) for sides in real} == {0, 1}


def test_without_label_maps_intensities_make_the_classes(head):
    item = contrasted({"moving": head[0], "fixed": head[0].clone()}, **TWO, curve_share=0.0)
    assert not torch.equal(item["fixed"], head[0])
    assert item["fixed"].std() > 0.05


def test_curves_rise_fall_and_bend_and_leave_air_dark():
    curves = [draw_curve(np.random.RandomState(seed)) for seed in range(30)]
    assert all(curve[0] == 0 for curve in curves)
    steps = [curve[130:].diff() for curve in curves]  # above the intensities of air
    rising, falling = sum(bool((s >= 0).all()) for s in steps), sum(bool((s <= 0).all()) for s in steps)
    assert rising >= 5
    assert falling >= 5
    assert rising + falling < 30


def test_shares_that_are_none_are_refused():
    with pytest.raises(ValueError, match="no more than 1 together"):
        RandContrastd(["moving", "fixed"], ["a", "b"], real_share=0.7, alike_share=0.7)


@pytest.mark.parametrize("shares", [{}, {"sequence_share": 1.0, "lesion_share": 1.0}, {"lesion_share": 1.0}])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_images_keep_their_dtype_and_are_painted_as_those_in_float32(pair, dtype, shares):
    given = pair | {key: pair[key].to(dtype) for key in ("moving", "fixed")}
    painted = contrasted(given, **TWO, **shares)
    alike = contrasted(given | {key: given[key].float() for key in ("moving", "fixed")}, **TWO, **shares)
    for key in ("moving", "fixed", "clean_moving", "clean_fixed"):
        assert painted[key].dtype == dtype
        assert torch.equal(painted[key], alike[key].to(dtype))
    assert painted["clean_moving"] is given["moving"]
