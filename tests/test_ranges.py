"""Numbers that no training can have end it before any work, in a sentence."""

import pytest
from bundle.failures import bad_input
from bundle.ranges import check_ranges
from tests.configs import load


@pytest.mark.parametrize(
    ("name", "values", "takes"),
    [
        ("epochs", [0, -1, 1.5, "many", None, True], "a whole number from 1 up"),
        ("val_pairs", [0, "all"], "a whole number from 1 up"),
        ("num_workers", [-1, 0.5], "a whole number from 0 up"),
        ("mask_probability", [-0.1, 1.01, float("nan"), "half", [0.5], True], "a number from 0 to 1"),
        ("learning_rate", ["abc", -1e-4, float("inf"), None], "a number from 0 up"),
        ("largest_zoom", [0.9], "a number from 1 up"),
        ("flip_probability", [0, 0.5, [0.5, 0.5], "abc", [0.5, 0.5, 2]], "3 numbers from 0 to 1 in brackets"),
        ("peak", [1.0, [1.0], [-1.0, 2.0]], "2 numbers from 0 up in brackets"),
        ("roi_size", ["abc", [16, 16], [16.5, 16, 16]], "three whole numbers in brackets"),
    ],
)
def test_a_number_out_of_its_range_is_refused_with_what_its_option_takes(name, values, takes):
    for value in values:
        with pytest.raises(ValueError, match=rf"^{name} takes {takes}, not '") as caught:
            check_ranges({}, **{name: value})
        assert str(value) in str(caught.value)


def test_what_a_training_can_have_passes():
    check_ranges(
        {"val_pairs": None, "steps_per_epoch": None, "seed": None, "images": "2 and 1", "spatial_size": [16] * 3}
    )
    check_ranges(
        {"flip_probability": [0, 0.5, 1], "peak": (0.5, 3.5), "roi_size": 32}, epochs=1, num_workers=0, alpha=0
    )


@pytest.mark.parametrize("name", ["train", "finetune", "any_contrast", "imitation", "one_person", "multi_gpu_train"])
@pytest.mark.parametrize(
    "option", [("flip_probability", 0), ("learning_rate", "abc"), ("label_weight", "abc"), ("epochs", 0)]
)
def test_a_training_ends_before_any_work_with_the_sentence(
    bundle_root, small_dataset, tmp_path, monkeypatch, name, option
):
    monkeypatch.setenv("LOCAL_RANK", "0")
    names = ["train", *(["any_contrast"] if name in ("imitation", "one_person") else []), name]
    parser = load(bundle_root, list(dict.fromkeys(names)))
    changes = {"bundle_root": str(bundle_root), "dataset_dir": str(small_dataset), "output_dir": str(tmp_path / "out")}
    for key, value in {**changes, option[0]: option[1]}.items():
        parser[key] = value
    with pytest.raises(RuntimeError) as caught:
        parser.get_parsed_content("initialize")
    assert bad_input(caught.value).startswith(f"{option[0]} takes ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["train", "finetune", "equal_terms", "any_contrast", "imitation", "one_person"])
def test_the_options_that_the_configs_come_with_pass(bundle_root, small_dataset, name):
    names = ["train", *(["any_contrast"] if name in ("imitation", "one_person") else []), name]
    parser = load(bundle_root, list(dict.fromkeys(names)))
    parser["bundle_root"], parser["dataset_dir"] = str(bundle_root), str(small_dataset)
    check_ranges(parser.get_parsed_content("resumption#settings"))
