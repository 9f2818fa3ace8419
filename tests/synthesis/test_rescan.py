import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.fields import identity_grid, jacobian_determinant, warp
from bundle.synthesis import RandRescand, rescan
from bundle.synthesis.rescan import draw_change, draw_pose, draw_region, region_change, region_shift, rescan_field

SIZE = (44, 60, 36)
INNER = (slice(None), *[slice(6, -6)] * 3)


def anatomy():
    """A smooth image, above 0 everywhere: interpolating it twice hardly changes it."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in SIZE], indexing="ij"))
    waves = [torch.sin(grid[i] * 0.35 + grid[(i + 1) % 3] * 0.12) for i in range(3)]
    return (0.5 + 0.15 * sum(waves))[None]


def regions():
    labels = torch.zeros(1, *SIZE)
    labels[:, 14:24, 20:34, 12:22] = 3
    labels[:, 26:34, 24:44, 10:24] = 8
    return labels


def pair():
    image, labels = anatomy(), regions()
    return {"moving": torch.rand_like(image), "fixed": image, "moving_label": labels * 0, "fixed_label": labels}


def rescanned(seed, **shares):
    transform = RandRescand(["moving", "fixed"], ["moving_label", "fixed_label"], 1.0, **shares)
    transform.set_random_state(seed)
    return transform(pair())


def error(image, other):
    return float((image - other)[INNER].abs().mean())


@pytest.mark.parametrize(
    "shares",
    [
        {"changed_share": 1.0, "posed_share": 0.0},
        {"changed_share": 0.0, "posed_share": 1.0},
        {"changed_share": 1.0, "posed_share": 1.0},
        {"changed_share": 1.0, "posed_share": 1.0, "regions": 4, "common_pose": (0.5, 0.03)},
    ],
    ids=["changed", "posed", "both", "lying elsewhere"],
)
def test_the_known_field_takes_the_moving_scan_to_the_fixed_one(shares):
    right = wrong_order = 0.0
    for seed in range(4):
        item = rescanned(seed, **shares)
        ddf = item["known_ddf"][None]
        assert item["known"]
        apart = error(item["moving"], item["fixed"])
        found, backwards, flipped = (
            error(warp(item["moving"][None], u, padding="border")[0], item["fixed"]) for u in (ddf, -ddf, ddf.flip(1))
        )
        assert found < 0.35 * apart
        assert backwards > 1.5 * apart
        right, wrong_order = right + found, wrong_order + flipped
    assert wrong_order > 2 * right


def test_itk_finds_the_fixed_scan_by_the_known_field():
    item = rescanned(2, changed_share=1.0, posed_share=1.0)
    moving, fixed = (sitk.GetImageFromArray(item[role][0].numpy().T) for role in ("moving", "fixed"))
    field = sitk.GetImageFromArray(item["known_ddf"].double().numpy().transpose(3, 2, 1, 0), isVector=True)
    warped = sitk.Resample(moving, fixed, sitk.DisplacementFieldTransform(field), sitk.sitkLinear, 0.0)
    found = torch.from_numpy(sitk.GetArrayFromImage(warped).T.copy())[None]
    assert error(found, item["fixed"]) < 0.35 * error(item["moving"], item["fixed"])


def test_the_field_between_a_pose_and_a_change_has_its_closed_form():
    """A shift of the head by s before, and a shift of the anatomy by c after: c − s everywhere."""
    change = torch.zeros(1, 3, 4, 5, 6)
    change[:, 1] = 0.75
    pose = torch.eye(4)
    pose[:3, 3] = torch.tensor([0.5, -0.25, 0.125])
    expected = torch.tensor([-0.5, 1.0, -0.125]).view(1, 3, 1, 1, 1).expand(1, 3, 4, 5, 6)
    torch.testing.assert_close(rescan_field(change, pose), expected)


def test_where_nothing_moved_the_field_is_zero_and_the_scans_are_one_anatomy():
    item = rescanned(0, changed_share=0.0, posed_share=0.0)
    assert (item["known_ddf"] == 0).all()
    assert torch.equal(item["moving"], item["fixed"])
    assert torch.equal(item["moving_label"], item["fixed_label"])
    assert torch.equal(item["fixed"], anatomy())


def test_in_a_common_pose_what_did_not_change_is_interpolated_too():
    """Else a blur would tell where something changed."""
    torch.manual_seed(0)
    noise = torch.rand(1, *SIZE)
    for common, blurred in (((0.0, 0.0), False), ((0.5, 0.03), True)):
        transform = RandRescand(
            ["moving", "fixed"], ["moving_label", "fixed_label"], 1.0, changed_share=0.0, common_pose=common
        )
        item = transform.set_random_state(1)(pair() | {"fixed": noise})
        assert (item["fixed"][INNER].std() < 0.9 * noise[INNER].std()) == blurred


@pytest.mark.parametrize("labels", [None, torch.zeros(1, 40, 40, 40)], ids=["without labels", "with none in them"])
def test_without_regions_what_changes_is_in_the_head_and_not_in_the_noise_around_it(labels):
    image = 0.04 * torch.rand(1, 40, 40, 40, generator=torch.Generator().manual_seed(0))
    image[:, 12:28, 12:28, 12:28] += 0.5
    for seed in range(30):
        centre = draw_region(np.random.RandomState(seed), image, labels)[0].nonzero().double().mean(0)
        assert ((centre > 11.5) & (centre < 27.5)).all()


def test_lesions_are_balls_of_2_to_7_voxels():
    """In radius, (3 V / 4 π)^⅓."""
    image = torch.zeros(1, 40, 40, 40)
    image[:, 12:28, 12:28, 12:28] = 0.5
    sizes = [float(draw_region(np.random.RandomState(seed), image, None).sum()) for seed in range(30)]
    radii = (np.array(sizes) * 3 / (4 * np.pi)) ** (1 / 3)
    assert 1.8 < radii.min() < 3
    assert 6 < radii.max() < 7.2


def test_a_lesion_shrinks_as_often_as_it_grows(monkeypatch):
    lesion = torch.zeros(1, *SIZE, dtype=torch.bool)
    lesion[:, 18:26, 26:34, 14:22] = True
    monkeypatch.setattr(rescan, "draw_region", lambda *_: lesion)
    fields = [draw_change(np.random.RandomState(seed), anatomy(), None, 1.0, 1.0) for seed in range(40)]
    local = [field for field in fields if not field[..., 0, 0, 0].any()]  # the others change everything
    growing = [float(jacobian_determinant(field)[0, lesion].mean()) < 1 for field in local]
    assert len(local) > 20
    assert 0.25 < np.mean(growing) < 0.75


@pytest.mark.parametrize("peak", [-2.0, -4.0])
def test_a_border_is_as_wide_as_the_peak_at_least_so_that_it_is_reached(peak):
    lesion = torch.zeros(1, *SIZE, dtype=torch.bool)
    lesion[:, 14:30, 22:38, 10:26] = True
    assert float(region_change(lesion, 0.5, peak).norm(dim=1).max()) == pytest.approx(-peak, abs=1e-3)
    assert float(region_shift(lesion, 0.5, peak, (0, 1, 0)).norm(dim=1).max()) == pytest.approx(-peak, abs=1e-3)


def test_several_regions_change_at_once():
    def changed(count):
        fields = [draw_change(np.random.RandomState(seed), anatomy(), regions(), 1.0, 1.0, count) for seed in range(12)]
        return sum(float((field.norm(dim=1) > 0.3).float().mean()) for field in fields)

    assert changed(6) > 1.25 * changed(1)


def test_a_change_has_the_peak_asked_for_and_next_to_nothing_folds():
    state = np.random.RandomState(0)
    for peak, count in ((0.5, 1), (1.0, 1), (2.0, 1), (3.5, 4)) * 4:
        field = draw_change(state, anatomy(), regions(), peak, peak, count)
        assert float(field.norm(dim=1).max()) <= count * peak + 1e-4
        assert float(field.norm(dim=1).max()) > 0.25 * peak
        assert float((jacobian_determinant(field) <= 0).float().mean()) < 1e-4


def test_what_is_squeezed_along_one_axis_keeps_its_share_and_what_shrinks_along_three_may_keep_less():
    offset = identity_grid(torch.zeros(1, 3, *SIZE)) - torch.tensor([20.0, 30.0, 18.0]).view(1, 3, 1, 1, 1)
    plate, ball = offset[:, 0].abs() <= 2, offset.square().sum(1) <= 4
    for field in (region_change(plate, 1.5, 2.0), region_shift(ball, 1.5, 12.0, (0.6, 0.0, 0.8))):
        assert float(jacobian_determinant(field).min()) >= 0.3 - 1e-4
    assert float(jacobian_determinant(region_change(plate, 1.5, 2.0)).min()) == pytest.approx(0.3, abs=1e-4)
    assert 0 < float(jacobian_determinant(region_change(ball, 1.5, 2.0)).min()) < 0.3


def test_regions_grow_and_shrink_by_what_the_jacobian_says():
    volumes = []
    for seed in range(12):
        item = rescanned(seed, changed_share=1.0, posed_share=0.0, peak=(2.0, 2.0))
        before, after = ((item[f"{role}_label"] == 8).sum().item() for role in ("moving", "fixed"))
        jacobian = jacobian_determinant(item["known_ddf"][None])[0]
        predicted = jacobian[item["fixed_label"] == 8].sum().item()
        assert predicted == pytest.approx(before, rel=0.2)  # a region of nearest voxels is jagged
        volumes.append(after / before)
    assert min(volumes) < 0.95
    assert max(volumes) > 1.05


def test_a_pose_is_rigid_about_the_middle_of_the_grid():
    pose = draw_pose(np.random.RandomState(0), 0.0, 0.05, SIZE)
    torch.testing.assert_close(pose[:3, :3] @ pose[:3, :3].T, torch.eye(3))
    middle = (torch.tensor(SIZE) - 1) / 2
    torch.testing.assert_close(pose[:3, :3] @ middle + pose[:3, 3], middle, atol=1e-4, rtol=0)
    assert not torch.allclose(pose, torch.eye(4))


@pytest.mark.parametrize("label_keys", [["moving_label", "fixed_label"], []])
def test_another_persons_labels_do_not_stay_beside_two_scans_of_one(label_keys):
    transform = RandRescand(["moving", "fixed"], label_keys, 1.0).set_random_state(0)
    item = pair()
    del item["fixed_label"]
    assert ("moving_label" in transform(item)) == (not label_keys)  # what it is not told of, it leaves alone


def test_pairs_beyond_the_share_are_left_as_they_are():
    transform = RandRescand(["moving", "fixed"], ["moving_label", "fixed_label"], 0.0)
    before = pair()
    item = transform(before)
    assert torch.equal(item["moving"], before["moving"])
    assert not item["known"]
    assert item["known_ddf"].shape == (3, *SIZE)
    assert (item["known_ddf"] == 0).all()


def test_a_seed_fixes_the_change():
    first, again, other = (rescanned(seed, changed_share=1.0, posed_share=1.0) for seed in (3, 3, 4))
    assert torch.equal(first["known_ddf"], again["known_ddf"])
    assert torch.equal(first["moving"], again["moving"])
    assert not torch.equal(first["known_ddf"], other["known_ddf"])
