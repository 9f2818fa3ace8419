import itertools
import json
import re
import time
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from bundle.data import PairDataset, common_size, draw_pairs, open_dataset, pair_sampler, voxel_sizes
from bundle.failures import bad_input
from bundle.pairs import names_of
from monai.data import DataLoader, MetaTensor
from monai.transforms import Compose, RandAffined, RandFlipd, RandomizableTransform, Transform
from monai.utils import set_determinism
from scipy.spatial.transform import Rotation


def save(path, shape=(5, 6, 4), spacing_mm=(1.5, 2.0, 3.0), degrees=(0, 0, 0), order=(0, 1, 2)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * spacing_mm
    affine[:, :3] = affine[:, order]
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.zeros(np.array(shape)[list(order)], np.float32), affine), path)
    return path


def data_set(folder, count=3, label=True, **listing):
    """Write a data set of ``count`` training images and list it as ``listing`` says, otherwise plainly."""
    for i in range(count):
        save(folder / "images" / f"head_{i}.nii.gz")
        save(folder / "labels" / f"head_{i}.nii.gz")
    items = [{"image": f"images/head_{i}.nii.gz", "label": f"labels/head_{i}.nii.gz"} for i in range(count)]
    listing = listing or {"training": items if label else [{"image": i["image"]} for i in items]}
    (folder / "dataset.json").write_text(json.dumps(listing))
    return folder


# --- open_dataset ---


def test_paths_are_relative_to_the_listing_and_made_absolute(tmp_path, monkeypatch):
    data_set(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    for name in ("set", tmp_path / "set"):
        items = open_dataset(name, "training")
        assert [Path(i["image"]) for i in items] == [tmp_path / f"set/images/head_{n}.nii.gz" for n in range(3)]
        assert [Path(i["label"]) for i in items] == [tmp_path / f"set/labels/head_{n}.nii.gz" for n in range(3)]


def test_an_entry_may_be_the_path_of_an_image_alone(tmp_path):
    data_set(tmp_path, training=["images/head_0.nii.gz", {"image": "images/head_1.nii.gz"}])
    items = open_dataset(str(tmp_path), "training")
    assert [sorted(item) for item in items] == [["dataset", "image"]] * 2


def test_several_folders_make_one_list_that_remembers_where_each_image_is_from(tmp_path):
    folders = [str(data_set(tmp_path / name, count)) for name, count in (("a", 3), ("b", 2))]
    items = open_dataset(folders, "training")
    assert Counter(item["dataset"] for item in items) == {folders[0]: 3, folders[1]: 2}
    assert all(item["image"].startswith(item["dataset"]) for item in items)


def test_explicit_pairs_are_listed_as_they_are(tmp_path):
    pair = {"moving": "images/head_0.nii.gz", "fixed": "images/head_1.nii.gz", "fixed_label": "labels/head_1.nii.gz"}
    data_set(tmp_path, test=[pair])
    (item,) = open_dataset(str(tmp_path), "test")
    assert {k: item[k] for k in pair} == {k: str(tmp_path / v) for k, v in pair.items()}


@pytest.mark.parametrize(
    ("listing", "words"),
    [
        ("{not json", "is not a data set listing"),
        ("[1, 2]", "is not a data set listing"),
        ('{"training": null}', "is not a data set listing"),
        ('{"training": [7]}', "is not a data set listing"),
        ('{"training": []}', "The split 'training' of .* is empty"),
        ('{"test": []}', "The split 'training' of .* is empty"),
        ('{"training": [{"label": "images/head_0.nii.gz"}]}', "neither an image nor a moving and a fixed one"),
        ('{"training": [{"moving": "images/head_0.nii.gz"}]}', "neither an image nor a moving and a fixed one"),
    ],
)
def test_a_listing_that_names_no_images_is_refused_in_a_sentence(tmp_path, listing, words):
    data_set(tmp_path)
    (tmp_path / "dataset.json").write_text(listing)
    with pytest.raises(ValueError, match=words):
        open_dataset(str(tmp_path), "training")


def test_a_missing_listing_or_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "dataset.json"))):
        open_dataset(str(tmp_path), "training")
    data_set(tmp_path)
    (tmp_path / "labels" / "head_1.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"labels/head_1\.nii\.gz, which does not exist"):
        open_dataset(str(tmp_path), "training")
    (tmp_path / "dataset.json").write_text('{"training": [{"image": 7}]}')
    with pytest.raises(FileNotFoundError, match="lists 7, which does not exist"):
        open_dataset(str(tmp_path), "training")


def test_what_else_a_listing_says_of_an_image_is_kept(tmp_path):
    data_set(tmp_path, training=[{"image": "images/head_0.nii.gz", "age": 61}])
    assert open_dataset(str(tmp_path), "training")[0]["age"] == 61


def test_only_the_default_folder_is_filled_with_phantoms(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("bundle.listing.write_phantoms", lambda folder: made.append(data_set(folder)))
    with pytest.raises(FileNotFoundError):
        open_dataset(str(tmp_path / "mine"), "training", phantom_dir=str(tmp_path / "phantom"))
    assert made == []
    for _ in range(2):
        assert len(open_dataset(str(tmp_path / "phantom"), "training", phantom_dir=str(tmp_path / "phantom"))) == 3
    assert made == [tmp_path / "phantom"]


# --- draw_pairs ---


def listed(dataset, count, label=True):
    return [
        {"image": f"/{dataset}/images/{i}.nii.gz", "dataset": dataset}
        | ({"label": f"/{dataset}/labels/{i}.nii.gz"} if label else {})
        for i in range(count)
    ]


def test_all_ordered_pairs_of_distinct_images_of_one_data_set_are_drawn():
    pairs = draw_pairs(listed("a", 4) + listed("b", 2))
    drawn = [(p["moving"], p["fixed"]) for p in pairs]
    expected = [
        (f"/{s}/images/{i}.nii.gz", f"/{s}/images/{j}.nii.gz")
        for s, n in (("a", 4), ("b", 2))
        for i, j in itertools.permutations(range(n), 2)
    ]
    assert drawn == expected
    assert all(p[f"{r}_label"] == p[r].replace("images", "labels") for p in pairs for r in ("moving", "fixed"))
    assert all("dataset" not in p for p in pairs)


def test_a_draw_has_no_repetition_and_follows_its_seed():
    items = listed("a", 5)
    first, again, other = (draw_pairs(items, 12, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert len({(p["moving"], p["fixed"]) for p in first}) == 12
    assert len(draw_pairs(items, 99)) == 20


def test_pairs_have_names_of_their_own_even_where_files_share_theirs():
    plain = draw_pairs(listed("a", 3))
    assert [p["name"] for p in plain][:2] == ["0_to_1", "0_to_2"]
    shared = draw_pairs(listed("a", 3) + listed("b", 3))
    assert [p["name"] for p in shared][::6] == ["a_0_to_a_1", "b_0_to_b_1"]
    assert len({p["name"] for p in shared}) == len(shared) == 12


def test_images_of_one_name_go_by_the_folders_that_tell_them_in_every_draw_alike():
    items = [{"image": f"/data/sub-{n}/ses-{s}/anat/T1w.nii.gz"} for n in (1, 2, 3) for s in (1, 2)]
    items.append({"image": "/data/other/x.nii.gz"})
    whole = {(p["moving"], p["fixed"]): p["name"] for p in draw_pairs(items)}
    assert len({*whole.values()}) == len(whole) == 42
    assert list(whole.values())[:2] == ["sub-1_ses-1_T1w_to_sub-1_ses-2_T1w", "sub-1_ses-1_T1w_to_sub-2_ses-1_T1w"]
    assert "x_to_sub-3_ses-2_T1w" in whole.values()
    for seed in range(3):
        assert all(whole[p["moving"], p["fixed"]] == p["name"] for p in draw_pairs(items, 5, seed))


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/d/a.nii", "/d/b.nii"], ["a", "b"]),
        (["/d/1/anat/t.nii", "/d/2/anat/t.nii"], ["1_t", "2_t"]),
        (["/d/t.nii", "/d/e/t.nii"], ["d_t", "e_t"]),
        (["/d/t.nii", "/d/t.mha", "/e/t.nii"], ["d_t.nii", "d_t.mha", "e_t.nii"]),
        (["/d/1.2.840.nii.gz", "/d/1.2.841.nii.gz"], ["1.2.840.nii.gz", "1.2.841.nii.gz"]),
        (["/d/.e/t.nii", "/d/f/t.nii"], ["e_t", "f_t"]),
    ],
)
def test_names_are_as_short_as_they_can_be(paths, names):
    assert [*names_of(paths).values()] == names


def test_a_pair_that_is_listed_twice_is_numbered():
    pair = {"moving": "/x/m.nii.gz", "fixed": "/x/f.nii.gz"}
    assert [p["name"] for p in draw_pairs([pair, pair, pair])] == ["m_to_f", "m_to_f_2", "m_to_f_3"]


def test_explicit_pairs_are_kept_with_what_belongs_to_them():
    pair = {"moving": "/x/m.nii.gz", "fixed": "/x/f.nii.gz", "moving_mask": "/x/mask.nii.gz", "dataset": "x"}
    (drawn,) = draw_pairs([pair])
    assert drawn == {k: v for k, v in pair.items() if k != "dataset"} | {"name": "m_to_f"}


def test_one_image_makes_no_pair():
    with pytest.raises(ValueError, match="of one data set, the list has 1: list two or more there"):
        draw_pairs(listed("a", 1))
    for split, instead in (("validation", ", or none for a share of the training images"), ("test", "")):
        with pytest.raises(ValueError, match=rf"the split '{split}' of a has 1: list two or more there{instead}\."):
            draw_pairs(listed("a", 1), split=split)
    with pytest.raises(ValueError, match="A pair takes two images of one data set, the list has 2"):
        draw_pairs(listed("a", 1) + listed("b", 1))


# --- common_size ---


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_common_size_is_counted_along_the_axes_of_the_body_however_images_are_stored(tmp_path, order):
    first = save(tmp_path / "first.nii.gz", (33, 16, 12), degrees=(7, -4, 9))
    second = save(tmp_path / "second.nii.gz", (20, 50, 17), degrees=(-3, 6, 2), order=order)
    items = [{"image": str(first), "dataset": "a"}, {"image": str(second), "dataset": "a"}]
    assert common_size(items) == [48, 64, 32]
    assert common_size(items, 1) == [33, 50, 17]
    assert common_size([{"moving": str(first), "fixed": str(second)}]) == [48, 64, 32]


def test_images_of_one_data_set_must_share_a_spacing_and_those_of_two_need_not(tmp_path):
    first = save(tmp_path / "first.nii.gz")
    second = save(tmp_path / "second.nii.gz", spacing_mm=(1.5, 2.0, 3.1))
    items = [{"image": str(first), "dataset": "a"}, {"image": str(second), "dataset": "a"}]
    with pytest.raises(ValueError, match=r"second\.nii\.gz has a spacing of .* 'python -m bundle prepare'"):
        common_size(items)
    two = [items[0], items[1] | {"dataset": "b"}]
    assert common_size(two) == [16, 16, 16]
    assert np.allclose(sorted(voxel_sizes(two)), [[1.5, 2.0, 3.0], [1.5, 2.0, 3.1]])


# --- PairDataset ---


class Numbered(Transform):
    """A transform that turns an image into its number, and counts how often it is asked."""

    def __init__(self):
        self.calls = Counter()

    def __call__(self, item):
        self.calls[item["image"]] += 1
        number = int(Path(item["image"]).name.split(".")[0]) + (100 if item.get("dataset") == "b" else 0)
        volumes = {k: MetaTensor(torch.full((1, 2, 3, 4), float(number))) for k in ("image", "label") if k in item}
        return item | volumes


def numbers_of(pair):
    return int(pair["moving"].mean()), int(pair["fixed"].mean())


def test_each_image_is_the_fixed_one_in_turn_with_another_of_its_data_set():
    pairs = PairDataset(listed("a", 4) + listed("b", 3), Numbered(), repeats=30, progress=False)
    pairs.set_random_state(seed=0)
    assert len(pairs) == 210
    drawn = [numbers_of(pairs[i]) for i in range(len(pairs))]
    assert [fixed for _, fixed in drawn] == [0, 1, 2, 3, 100, 101, 102] * 30
    everything = {*itertools.permutations(range(4), 2), *itertools.permutations(range(100, 103), 2)}
    assert set(drawn) == everything  # each ordered pair turns up, none across data sets or with itself


def test_the_draw_follows_its_random_state():
    def draw(seed):
        pairs = PairDataset(listed("a", 6), Numbered(), progress=False)
        pairs.set_random_state(seed=seed)
        return [numbers_of(pairs[i]) for i in range(6)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_every_image_is_transformed_once_however_often_it_is_paired():
    transform = Numbered()
    pairs = PairDataset(listed("a", 4), transform, repeats=5, progress=False)
    for i in range(len(pairs)):
        pairs[i]
    assert set(transform.calls.values()) == {1}
    assert len(transform.calls) == 4


def test_no_thread_is_still_reading_once_a_bad_image_has_ended_the_reading():
    started, ended = [], []

    class Slow(Numbered):
        def __call__(self, item):
            started.append(item["image"])
            time.sleep(0.2)
            ended.append(item["image"])
            if len(ended) == 1:
                raise ValueError("a bad image")
            return super().__call__(item)

    with pytest.raises(RuntimeError) as caught:
        PairDataset(listed("a", 6), Slow(), num_workers=2, progress=False)
    assert bad_input(caught.value) == "a bad image"
    assert sorted(started) == sorted(ended)
    assert len(started) < 6  # what was waiting isn't read


def test_a_pair_holds_plain_tensors_and_no_data_set_and_goes_through_the_pair_transform():
    seen = []
    pairs = PairDataset(listed("a", 2), Numbered(), lambda pair: seen.append(pair) or "result", progress=False)
    assert pairs[0] == "result"
    assert set(seen[0]) == {"moving", "fixed", "moving_label", "fixed_label"}
    assert {type(v) for v in seen[0].values()} == {torch.Tensor}


def test_random_pair_transforms_draw_anew_for_every_pair():
    set_determinism(seed=0)  # under a global seed a Compose would reseed its transforms at every look at its length
    try:
        flip = RandFlipd(["moving", "fixed"], prob=0.5, spatial_axis=0)
        pairs = PairDataset(listed("a", 2), Numbered(), Compose([flip]), repeats=20, progress=False)
        flipped = [pairs[i] is not None and bool(flip._do_transform) for i in range(len(pairs))]
    finally:
        set_determinism(seed=None)
    assert 10 < sum(flipped) < 30


def test_labels_of_which_some_are_missing_are_zeros_there():
    items = listed("a", 3)
    del items[1]["label"]
    pairs = PairDataset(items, Numbered(), repeats=8, progress=False)
    for i in range(len(pairs)):
        pair = pairs[i]
        assert set(pair) == {"moving", "fixed", "moving_label", "fixed_label"}
        for role, number in zip(("moving", "fixed"), numbers_of(pair)):
            assert (pair[f"{role}_label"] == (0 if number == 1 else number)).all()
            assert pair[f"{role}_label"].shape == pair[role].shape
    assert set(PairDataset(listed("a", 2, label=False), Numbered(), progress=False)[0]) == {"moving", "fixed"}


@pytest.mark.parametrize("allen", [True, False])
def test_labels_as_large_as_an_atlas_numbers_them_stay_apart_and_alike_in_both_images(allen):
    numbers = [0, 312782546, 312782550, 2**60 + 1] if allen else [0, 7, 9, 2**24]
    other = [0, 312782550, 312782546, 2**60] if allen else [0, 9, 7, 2**24]

    class Atlas(Transform):
        def __call__(self, item):
            held = numbers if Path(item["image"]).name.startswith("0") else other
            return {"image": torch.ones(1, 4, 3, 3), "label": torch.tensor(held).view(1, 4, 1, 1).expand(1, 4, 3, 3)}

    # in float32, by the nearest voxel, as training augments
    keys = ["moving_label", "fixed_label"]
    pairs = PairDataset(listed("a", 2), Atlas(), RandAffined(keys, prob=1.0, mode="nearest"), progress=False)
    pair = pairs[1]
    moving, fixed = (pair[key][0, :, 1, 1].long().tolist() for key in keys)
    assert moving == ([0, 1, 2, 4] if allen else numbers)
    assert fixed == ([0, 2, 1, 3] if allen else other)


class Drawn(RandomizableTransform):
    """A number for a pair, drawn for it."""

    def __call__(self, pair):
        return {"drawn": self.R.randint(2**31), "fixed": pair["fixed"].mean()}


def drawn_by_workers(seed, workers, epochs=2):
    torch.manual_seed(seed)
    pairs = PairDataset(listed("a", 4), Numbered(), Compose([Drawn()]), progress=False)
    loader = DataLoader(pairs, num_workers=workers, shuffle=True)
    return [int(batch["drawn"]) for _ in range(epochs) for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_random_pair_transforms_draw_anew_in_every_worker_and_epoch_and_as_the_seed_says(workers):
    drawn = drawn_by_workers(3, workers)
    assert len(set(drawn)) == 8
    assert drawn_by_workers(3, workers) == drawn
    assert not set(drawn_by_workers(4, workers)) & set(drawn)


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("pairs", [1, 2, 5])
def test_every_pair_counts_alike_however_many_processes_share_them(monkeypatch, pairs, processes):
    seen = []
    monkeypatch.setattr("torch.distributed.get_world_size", lambda *_: processes)
    monkeypatch.setattr("torch.distributed.is_available", lambda: True)
    for rank in range(processes):
        monkeypatch.setattr("torch.distributed.get_rank", lambda *_, rank=rank: rank)
        seen.append([*pair_sampler(range(pairs))])
    counts = Counter(place for places in seen for place in places)
    assert counts == dict.fromkeys(range(pairs), 1 if pairs >= processes else processes)
    assert all(seen)


def test_explicit_pairs_come_in_their_order_over_images_that_are_read_once():
    items = [
        {"moving": f"/a/{m}.nii.gz", "fixed": f"/a/{f}.nii.gz", "moving_label": f"/a/l{m}.nii.gz", "dataset": "a"}
        for m, f in ((0, 1), (2, 1), (1, 0))
    ]
    items = [item | {"fixed_label": item["fixed"].replace("/a/", "/a/l")} for item in items]
    transform = Numbered()
    pairs = PairDataset(items, transform, repeats=2, progress=False)
    assert [numbers_of(pairs[i]) for i in range(len(pairs))] == [(0, 1), (2, 1), (1, 0)] * 2
    assert (pairs[1]["moving_label"] == 2).all()
    assert set(transform.calls.values()) == {1}
    assert len(transform.calls) == 3


def test_an_image_has_in_each_explicit_pair_the_label_map_that_is_listed_there():
    class Read(Transform):
        def __call__(self, item):
            numbers = {key: int(re.search(r"\d+", Path(path).name)[0]) for key, path in item.items()}
            return {key: torch.full((1, 2, 3, 4), number) for key, number in numbers.items()}

    listed_labels = [(7, 5), (8, 6), (None, 5), (8, None), (None, None)]
    pair = {"moving": "/a/0.nii.gz", "fixed": "/a/1.nii.gz"}
    items = [
        pair | {f"{role}_label": f"/a/l{n}.nii.gz" for role, n in zip(pair, labels) if n is not None}
        for labels in listed_labels
    ]
    pairs = PairDataset(items, Read(), progress=False)
    found = [[int(pairs[i][f"{role}_label"].max()) for role in pair] for i in range(len(items))]
    assert found == [[n or 0 for n in labels] for labels in listed_labels]  # zeros stand for none
    assert all(numbers_of({role: pairs[i][role].float() for role in pair}) == (0, 1) for i in range(len(items)))


@pytest.mark.parametrize("key", ["moving_mask", "fixed_cost_mask", "initial_transform"])
def test_a_pair_with_what_training_does_not_read_is_refused(key):
    with pytest.raises(ValueError, match=rf"a pair \(m\.nii\) has '{key}': list it without"):
        PairDataset([{"moving": "/m.nii", "fixed": "/f.nii", key: "/x.nii"}], Numbered(), progress=False)


def test_a_set_with_a_single_image_or_of_images_and_pairs_is_refused():
    with pytest.raises(ValueError, match="the split of b to train on has a single one: list more there"):
        PairDataset(listed("a", 3) + listed("b", 1), Numbered(), progress=False)
    with pytest.raises(ValueError, match="images or pairs, not both"):
        PairDataset([*listed("a", 2), {"moving": "/m", "fixed": "/f"}], Numbered(), progress=False)
