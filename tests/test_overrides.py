import json
import re

import pytest
from bundle.overrides import check_overrides
from monai.bundle import ConfigWorkflow
from tests.forked import run_module


@pytest.fixture
def words(bundle_root):
    return ["run", "training", "--config_file", str(bundle_root / "configs" / "train.json")]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--epochs", "3"],
        ["--epochs=3", "--bundle_root", ".", "--logging_file", "configs/logging.conf"],
        ["--learning-rate", "1e-3", "-patience", "-1"],
        ["--noamp"],
        ["--train::trainer::max_epochs", "-3"],
        ["--optimizer#weight_decay", "0.1", "--loss#window", "7"],  # what a component takes and the configs leave out
        ["--optimizer", "{'_target_': 'torch.optim.SGD', 'params': []}", "--optimizer#momentum", "0.9"],
        ["--loss", "{'_target_': 'torch.nn.MSELoss', 'own': 1}"],
        ["--train#dataloader#pin_memory", "True"],  # by **kwargs
        ["--validate#handlers#1#_disabled_", "True", "--train#handlers#0#epoch_level", "False"],
        ["--validate#additional_metrics#val_mine", "{'_target_': 'mine'}"],  # handed on as a whole
        ["--validate#best_weights#save_dict#more", "@network"],
        ["--loss#_target_", "$print", "--loss#any", "1"],
        ["--imports#0", "$import os"],
        ["--epochs", "@longer", "--longer", "3"],
        ["--epochs", "%longer#1", "--longer", "[3,4]"],
        ["--train#sampler", "{'_target_': 'mine'}", "--train#dataloader#sampler", "@train#sampler"],
        ["--run_id", "smoke", "--smoke", "[]"],
        ["--_meta_#version", "1"],
        ["--tracking", "mlflow", "--run_name", "mine"],
        ["--output_dir", "$'/o/p\\x231'"],
        ["--epochs", "$@longer#1 + 1", "--longer", "[3,4]"],
        ["--tracking", "{'configs': {'mine': 1}}", "--mine", "2"],
        ["--", "--epoch"],
    ],
)
def test_what_overrides_something_stands(words, options):
    check_overrides([*words, *options])


def test_what_is_to_be_run_may_be_new_and_be_named_by_its_place_alone(bundle_root):
    places = ["configs/metadata.json", str(bundle_root / "configs" / "train.json")]
    check_overrides(["run", "smoke", "initialize", "finalize", *places, "--smoke", "[]"])
    with pytest.raises(ValueError, match="did you mean --epochs"):
        check_overrides(["run", "training", "initialize", "finalize", *places, "--epoch", "3"])


def test_optional_keys_of_a_section_stand(bundle_root):
    config = str(bundle_root / "configs" / "inference.json")
    options = ["--thresholds#look_here#stretch", "[None,1.1]", "--thresholds#failed#stretch", "[None,1.4]"]
    check_overrides(["run", "inferring", "--config_file", config, *options])


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["--epoch", "3"], "did you mean --epochs?"),
        (["--epoch=3"], "did you mean --epochs?"),
        (["-epoch", "3"], "did you mean --epochs?"),
        (["--learning-rat", "1e-3"], "did you mean --learning_rate?"),
        (["--nospatial_sise"], "did you mean --spatial_size?"),
        (["--trainning#trainer#max_epochs", "3"], "did you mean --training?"),
        (["--config_fil", "x.json"], "did you mean --config_file?"),
        (["--train#trainers", "3"], "did you mean --train#trainer?"),
        (["--train::traner", "3"], "did you mean --train#trainer?"),
        (["--validate#zzz", "3"], "it has preprocessing, pair_preprocessing, dataset, "),
        (["--resumption#settings#foo", "1"], "it has seed, val_frac, "),
        (["--resumption#settings#learning_rat", "1"], "did you mean --resumption#settings#learning_rate?"),
        (["--zzz", "3"], "the keys stand in the config files"),
        (["--epochs", "$'longer'", "--longer", "3"], "the keys stand in the config files"),
    ],
)
def test_what_overrides_nothing_is_refused_with_what_was_meant(words, options, advice):
    for command in ("run", "run_workflow"):
        with pytest.raises(ValueError, match="No config has a key for --") as refusal:
            check_overrides([command, *words[1:], *options])
        assert advice in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--optimizer#weight_deccay", "0.1"], "torch.optim.Adam takes no 'weight_deccay' .*--optimizer#weight_decay?"),
        (["--train#trainer#max_epoch", "3"], "SupervisedTrainer takes no 'max_epoch' .*--train#trainer#max_epochs?"),
        (["--validate#evaluator#devicee", "1"], "SupervisedEvaluator takes no .*--validate#evaluator#device?"),
        (["--train#handlers#0#epoch_leve", "0"], "ScheduleHandler takes no .*--train#handlers#0#epoch_level?"),
        (
            ["--cascade_def#zzz", "1"],
            "bundle.networks.cascade.cascaded takes no 'zzz' .*: it takes network, cascades, ",
        ),
        (["--loss", "{'_target_': 'torch.nn.MSELoss'}", "--loss#alpha", "1"], "torch.nn.MSELoss takes no 'alpha'"),
    ],
)
def test_what_a_component_does_not_take_is_refused_with_what_was_meant(words, options, sentence):
    with pytest.raises(ValueError, match=sentence.replace("?", r"\?$")):
        check_overrides([*words, *options])


@pytest.mark.parametrize("option", [["--+imports", "['$import math']"], ["--+seed", "None"], ["--+train#trainer={}"]])
def test_a_key_to_merge_which_monai_merges_in_files_alone_is_refused(words, option):
    with pytest.raises(ValueError, match=r"MONAI merges \(\+\) in config files alone, .*: give --\w"):
        check_overrides([*words, *option])


@pytest.mark.parametrize("option", [["--seed", "None"], ["--seed=None"]])
def test_none_which_monai_passes_over_is_refused_with_what_it_takes(words, option, tmp_path):
    with pytest.raises(ValueError, match=r"MONAI passes over --seed None, .*: give --seed '\$None', or leave it out"):
        check_overrides([*words, *option])
    check_overrides([*words, "--run_id", "None", "--meta_file=None", "--seed", "$None"])
    (tmp_path / "options.json").write_text('{"seed": null}')
    check_overrides([*words, "--args_file", str(tmp_path / "options.json")])


def test_none_as_an_expression_reaches_the_configs(bundle_root):
    config = str(bundle_root / "configs" / "inference.json")
    workflow = ConfigWorkflow(config, workflow_type="inference", spacing_mm="$None")
    assert workflow.parser.get_parsed_content("spacing_mm") is None


@pytest.mark.parametrize(
    ("names", "option"),
    [
        (["train", "any_contrast", "imitation"], ["--label_weight", "1.0"]),  # another loss takes over
        (["train", "evaluate"], ["--val_pairs", "3"]),
        (["train", "evaluate"], ["--pretrained", "x.pt"]),
        (["inference", "batch_inference"], ["--dataset_dir", "data"]),
    ],
)
def test_an_option_whose_only_user_is_replaced_is_refused(bundle_root, names, option):
    files = [str(bundle_root / "configs" / f"{name}.json") for name in names]
    check_overrides(["run", "--config_file", files[0], *option])
    with pytest.raises(ValueError, match=f"Nothing in these configs takes {option[0]}, .*: leave it out"):
        check_overrides(["run", "--config_file", str(files), *option])


@pytest.mark.parametrize(
    "option",
    [
        ["--output_dir", "/o/p#1"],
        ["--dataset_dir", "['data','p@#2']"],
        ["--pretrained=a@::b.pt"],
        ["--train#dataset", "{'data': [{'image': 'a%::b'}]}"],
        ["--output_dir", "$@bundle_root + '/o#1'"],
    ],
)
def test_text_that_monai_would_change_is_refused_with_what_to_give(words, option, tmp_path):
    with pytest.raises(ValueError, match="otherwise than it stands") as refusal:
        check_overrides([*words, *option])
    assert refusal.value.args[0].count("\n") == 0
    given = re.search('give "(.+)"', str(refusal.value))[1]
    check_overrides([*words, "--output_dir", given])
    own = tmp_path / "own#1.json"
    own.write_text(json.dumps({"output_dir": "/o/p#1"}))
    files = f"{words[-1]},{own}"
    with pytest.raises(ValueError, match="MONAI reads output_dir, '/o/p#1'"):
        check_overrides(["run", "training", "--config_file", files])
    check_overrides(["run", "training", "--config_file", files, "--output_dir", given])


@pytest.mark.parametrize(
    ("name", "advice"),
    [("trainning", "did you mean training?"), ("Run", "did you mean run?"), ("zzz", "they have training")],
)
def test_what_is_to_be_run_and_is_not_there_is_refused_with_what_was_meant(bundle_root, name, advice):
    config = str(bundle_root / "configs" / "train.json")
    for words in (["run", name, "--config_file", config], ["run", "--run_id", name, "--config_file", config]):
        with pytest.raises(ValueError, match=f"These configs have no '{name}' to run: ") as refusal:
            check_overrides(words)
        assert str(refusal.value).endswith(advice)
    check_overrides(["run", "train#trainer", "--config_file", config])


def test_several_configs_and_a_file_of_arguments_are_read_as_monai_reads_them(bundle_root, tmp_path):
    files = [str(bundle_root / "configs" / name) for name in ("inference.json", "batch_inference.json")]
    for given in (str(files), ",".join(files)):
        check_overrides(["run", "inferring", "--config_file", given, "--pairs_file", "pairs.csv"])
        with pytest.raises(ValueError, match="did you mean --pairs_file"):
            check_overrides(["run", "inferring", "--config_file", given, "--pair_file", "pairs.csv"])
    arguments = tmp_path / "arguments.json"
    arguments.write_text(json.dumps({"config_file": files, "output": "out"}))
    with pytest.raises(ValueError, match="did you mean --output_dir"):
        check_overrides(["run", "inferring", "--args_file", str(arguments)])


def test_other_commands_and_programs_are_left_alone(words):
    check_overrides(["verify_metadata", "--epoch", "3"])
    check_overrides()  # pytest's own command line


@pytest.mark.parametrize(
    ("option", "first", "meant"),
    [
        ("--epoch", "No config has a key for --epoch", "--epochs"),
        ("--optimizer#weight_deccay", "torch.optim.Adam takes no 'weight_deccay'", "--optimizer#weight_decay"),
    ],
)
def test_monai_ends_before_it_trains(bundle_root, small_dataset, tmp_path, option, first, meant):
    options = ["--bundle_root", bundle_root, "--dataset_dir", small_dataset, "--output_dir", tmp_path / "out"]
    config = bundle_root / "configs" / "train.json"
    done = run_module(
        "monai.bundle", "run", "training", "--config_file", config, *options, option, "1", cwd=bundle_root
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: {first}")
    assert last.endswith(f"did you mean {meant}?")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_another_folder_is_not_written_than_the_one_asked_for(bundle_root, small_dataset, fresh_weights, tmp_path):
    options = ["--config_file", bundle_root / "configs" / "inference.json", "--ckpt", fresh_weights, "--pairs", "1"]
    options += ["--bundle_root", bundle_root, "--dataset_dir", small_dataset, "--affine", "center", "--report", "False"]
    done = run_module(
        "monai.bundle", "run", "inferring", *options, "--output_dir", tmp_path / "ba#tch", cwd=bundle_root
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    given = re.fullmatch(r"error: MONAI reads output_dir, .* or give \"(.*)\"\.", last)[1]
    assert not any(tmp_path.iterdir())
    done = run_module("monai.bundle", "run", "inferring", *options, "--output_dir", given, cwd=bundle_root)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["ba#tch"]
