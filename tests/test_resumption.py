"""Trainings in two calls: what they draw, by which rate they learn, what they keep, and what is refused."""

import json
import logging

import pytest
import torch
from bundle.data import open_dataset
from bundle.handlers import SetTrainer
from bundle.resumption import EarlyStop, EpochSeed, Resumption, check_resumed, images_of, last_kept
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.handlers import CheckpointSaver, LrScheduleHandler
from monai.transforms import Compose, RandomizableTransform
from monai.utils import set_determinism
from torch.optim.lr_scheduler import LambdaLR, PolynomialLR, ReduceLROnPlateau

SETTINGS = {"learning_rate": 0.1, "roi_size": (8, 8, 8)}


@pytest.fixture(autouse=True)
def _chance_again():
    yield
    set_determinism(seed=None)


class Drawn(RandomizableTransform):
    """Add noise to an item."""

    def __call__(self, item):
        return item + torch.from_numpy(self.R.standard_normal(3).astype("float32"))


def train(folder, epochs, stop=None, seed=0, workers=0, steps=None, schedule=None, rate=0.1):
    """Train a little network for some epochs, or until it is interrupted after one; what it did, by epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Dropout(0.3), torch.nn.Linear(3, 1))
    optimizer = torch.optim.Adam(network.parameters(), rate, amsgrad=True)
    schedule = schedule(optimizer) if schedule else PolynomialLR(optimizer, total_iters=epochs, power=0.9)
    loader = DataLoader(
        Dataset([torch.full((3,), float(i)) for i in range(6)], Compose([Drawn()])), num_workers=workers, shuffle=True
    )
    trainer = SupervisedTrainer(
        "cpu",
        epochs,
        loader,
        network,
        optimizer,
        lambda found, image: (found - image.sum()).square().mean(),
        epoch_length=steps,
        prepare_batch=lambda batch, *_, **__: (batch, batch),
        train_handlers=[LrScheduleHandler(schedule, print_lr=False, step_transform=lambda _: ()), EpochSeed(seed)],
    )
    trainer.logger.setLevel(logging.WARNING)
    rates, seen = {}, {}
    trainer.add_event_handler(
        Events.EPOCH_STARTED, lambda engine: rates.update({engine.state.epoch: optimizer.param_groups[0]["lr"]})
    )
    trainer.add_event_handler(
        Events.ITERATION_STARTED,
        lambda engine: seen.setdefault(engine.state.epoch, []).append(engine.state.batch.flatten().tolist()),
    )
    state = {"network": network, "optimizer": optimizer, "lr_scheduler": schedule, "trainer": trainer}
    Resumption(state, SETTINGS, str(folder), last_kept(str(folder))).attach(trainer)
    if stop:
        trainer.add_event_handler(Events.EPOCH_COMPLETED(once=stop), lambda engine: engine.terminate())
    trainer.run()
    return network.state_dict(), rates, seen


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("workers", "steps"), [(0, None), (0, 4), (2, 4)])
def test_a_training_that_was_interrupted_ends_as_one_without_a_break(tmp_path, workers, steps):
    options = {"workers": workers, "steps": steps}
    weights, rates, seen = train(tmp_path / "whole", 4, **options)
    train(tmp_path / "parts", 4, stop=2, **options)
    later, later_rates, later_seen = train(tmp_path / "parts", 4, **options)
    assert sorted(later_seen) == [3, 4]
    assert later_seen == {epoch: seen[epoch] for epoch in (3, 4)}
    assert later_rates == {epoch: rates[epoch] for epoch in (3, 4)}
    assert same(later, weights)
    assert not same(weights, train(tmp_path / "other", 4, seed=1, **options)[0])


def test_every_epoch_draws_anew(tmp_path):
    _, _, seen = train(tmp_path, 3)
    items = [tuple(item) for epoch in seen.values() for item in epoch]
    assert len(set(items)) == 18
    assert len({tuple(round(sum(item) / 3) for item in epoch) for epoch in seen.values()}) == 3  # their order, roughly


def test_a_training_that_is_extended_learns_on_at_the_rate_of_one_that_was_that_long_from_the_start(tmp_path):
    before, _, _ = train(tmp_path / "parts", 2)
    _, rates, _ = train(tmp_path / "whole", 4)
    after, extended, _ = train(tmp_path / "parts", 4)
    assert extended == {epoch: rates[epoch] for epoch in (3, 4)}
    assert extended[3] == pytest.approx(0.1 * (1 - 2 / 4) ** 0.9)
    assert not same(before, after)


def test_a_schedule_of_another_kind_goes_on_as_well(tmp_path):
    def halve(optimizer):
        return LambdaLR(optimizer, lambda epoch: 0.5**epoch)

    def wait(optimizer):
        return ReduceLROnPlateau(optimizer, patience=0)

    train(tmp_path / "halved", 2, schedule=halve)
    assert train(tmp_path / "halved", 3, schedule=halve)[1] == {3: 0.025}
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], 0.1)
    trainer, scheduler = Engine(lambda *_: None), wait(optimizer)
    for score in (1.0, 2.0):
        scheduler.step(score)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    state = {"optimizer": optimizer, "lr_scheduler": scheduler, "trainer": trainer}
    Resumption(state, SETTINGS, str(tmp_path)).attach(trainer)
    trainer.run([0], max_epochs=1)
    again = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], 0.1)
    trainer, scheduler = Engine(lambda *_: None), wait(again)
    trainer.state.max_epochs, trainer.state.epoch_length = 1, 1
    state = {"optimizer": again, "lr_scheduler": scheduler, "trainer": trainer}
    Resumption(state, SETTINGS, str(tmp_path), last_kept(str(tmp_path))).attach(trainer)
    trainer.run([0])
    assert again.param_groups[0]["lr"] == pytest.approx(0.01)
    assert scheduler.best == 1.0


def test_one_file_is_kept_in_any_folder(tmp_path):
    folder = tmp_path / "run [1]"
    train(folder, 2)
    train(folder, 4)
    assert [path.name for path in folder.iterdir()] == ["resume_checkpoint_epoch=4.pt"]


@pytest.mark.parametrize("scaled", [(True, True), (True, False), (False, True)])
def test_the_scale_of_the_loss_goes_on_where_both_calls_have_one(tmp_path, scaled):
    trained = []
    for epochs, has_one in enumerate(scaled, 1):
        trainer = Engine(lambda engine, _: trained.append(engine.state.epoch))
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
        trainer.state.max_epochs, trainer.state.epoch_length = epochs, 1
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**epochs) if has_one else None
        state = {"trainer": trainer, "optimizer": optimizer, "lr_scheduler": PolynomialLR(optimizer, epochs)}
        Resumption(state, SETTINGS, str(tmp_path), last_kept(str(tmp_path))).attach(trainer)
        trainer.run([0])
    assert trained == [1, 2]
    if scaled[1]:
        assert trainer.scaler.get_scale() == (2.0 if scaled[0] else 4.0)


@pytest.mark.parametrize("moved", [False, True])
def test_a_file_of_weights_takes_the_place_of_the_one_of_the_earlier_call_if_it_is_there(tmp_path, moved):
    for epochs in (1, 2):
        trainer, network = Engine(lambda *_: None), torch.nn.Linear(2, 1)
        trainer.state.max_epochs, trainer.state.epoch_length = epochs, 1
        saver = CheckpointSaver(str(tmp_path), {"model": network}, file_prefix="average", save_interval=1, n_saved=1)
        saver.attach(trainer)
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        state = {"trainer": trainer, "optimizer": optimizer, "lr_scheduler": PolynomialLR(optimizer, epochs)}
        state["saver"] = saver._interval_checkpoint
        Resumption(state, SETTINGS, str(tmp_path), last_kept(str(tmp_path))).attach(trainer)
        trainer.run([0])
        if moved and epochs == 1:
            (tmp_path / "average_model_epoch=1.pt").unlink()
    assert [path.name for path in tmp_path.glob("average*")] == ["average_model_epoch=2.pt"]


def test_the_file_of_the_last_epoch_counts_whenever_it_was_written(tmp_path):
    for epoch in (10, 9):
        (tmp_path / f"resume_checkpoint_epoch={epoch}.pt").touch()
    assert last_kept(str(tmp_path)) == str(tmp_path / "resume_checkpoint_epoch=10.pt")
    assert last_kept(str(tmp_path / "none")) == ""


def test_patience_is_used_up_over_both_calls_and_what_was_stopped_stays_so(capsys):
    def stopping(scores):
        trainer, validator = Engine(lambda *_: None), Engine(lambda *_: None)
        handler = EarlyStop(2, lambda engine: scores[trainer.state.epoch - 1])
        SetTrainer(handler).attach(trainer)
        handler.attach(validator)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: validator.run([0]))
        return trainer, handler

    scores = [0.5, 0.4, 0.3, 0.2]
    trainer, handler = stopping(scores)
    trainer.run([0], max_epochs=2)
    later, again = stopping(scores)
    later.add_event_handler(
        Events.STARTED, lambda _: Checkpoint.load_objects({"it": again}, {"it": handler.state_dict()})
    )
    later.load_state_dict({"epoch": 2, "max_epochs": 4, "epoch_length": 1})
    later.run([0])
    assert later.state.epoch == 3
    last, third = stopping(scores)
    last.add_event_handler(Events.STARTED, lambda _: third.load_state_dict(again.state_dict()))
    last.load_state_dict({"epoch": 3, "max_epochs": 4, "epoch_length": 1})
    capsys.readouterr()
    last.run([0])
    assert last.state.epoch == 3
    assert capsys.readouterr().out == "No better for 2 validations: --patience takes more\n"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("val_mean_dice", "all label maps hold zeros alone: label some"), ("val_local_ncc", "at a lower --learning_rate")],
)
def test_a_validation_without_a_score_ends_the_training_in_a_sentence(name, sentence):
    validator, handler = Engine(lambda *_: None), EarlyStop(2, lambda engine: float("nan"))
    SetTrainer(handler).attach(Engine(lambda *_: None))
    handler.attach(validator)
    validator.state.key_metric_name = name
    validator.logger.setLevel(logging.CRITICAL)
    with pytest.raises(ValueError, match=sentence):
        validator.run([0])


def test_the_best_score_of_an_earlier_call_is_still_the_best():
    def validating():
        validator, handler = Engine(lambda *_: None), EarlyStop(2, lambda engine: 0.5)
        SetTrainer(handler).attach(Engine(lambda *_: None))
        handler.attach(validator)
        validator.state.best_metric, validator.state.best_metric_epoch = -1, -1  # as MONAI's begin
        return validator, handler

    validator, handler = validating()
    validator.state.best_metric, validator.state.best_metric_epoch = 0.75, 2
    later, again = validating()
    again.load_state_dict(handler.state_dict())
    assert (later.state.best_metric, later.state.best_metric_epoch) == (0.75, 2)


def laid_out(folder, values=(1, 2, 3)):
    """Subjects in folders of one layout, each image of its own bytes, and listed: two to train on, one to validate."""
    for subject, value in enumerate(values):
        path = folder / f"s{subject}/T1.nii"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(20_000) + bytes([value]) * 200 + bytes(20_000))
    items = [{"image": f"s{subject}/T1.nii"} for subject in range(len(values))]
    (folder / "dataset.json").write_text(json.dumps({"training": items[:2], "validation": items[2:]}))
    return folder


def told(*folders):
    return images_of(
        *(open_dataset([str(folder) for folder in folders], split) for split in ("training", "validation"))
    )


def test_images_are_the_same_in_a_folder_of_another_name_and_others_in_one_layout_are_not(tmp_path, monkeypatch):
    found = told(laid_out(tmp_path / "job_1/mine"))
    assert found.startswith("2 and 1 whose names and contents have the SHA-256 ")
    assert told(laid_out(tmp_path / "job_2/scratch")) == found
    for number, values in enumerate(((1, 2, 4), (2, 1, 3), (1, 4, 3))):
        assert told(laid_out(tmp_path / f"others_{number}/mine", values)) != found
    monkeypatch.chdir(tmp_path / "job_2")
    assert told("scratch") == found
    both = [laid_out(tmp_path / name) for name in ("one", "two")]
    assert told(*both) == told(*reversed(both)) != found


def test_images_that_are_listed_from_elsewhere_are_told_by_their_names_and_contents(tmp_path):
    elsewhere = laid_out(tmp_path / "elsewhere")
    found = []
    for name in ("here", "there/deeper"):
        (tmp_path / name).mkdir(parents=True)
        items = [{"image": str(elsewhere / f"s{i}/T1.nii")} for i in range(3)]
        (tmp_path / name / "dataset.json").write_text(json.dumps({"training": items[:2], "validation": items[2:]}))
        found.append(told(tmp_path / name))
    assert found[0] == found[1]


def test_a_training_of_a_version_that_told_images_by_their_names_says_so(tmp_path):
    path = tmp_path / "resume_checkpoint_epoch=1.pt"
    before = {"images": "2 and 1 whose names have the SHA-256 0123456789abcdef…"}
    torch.save({"settings": before, "trainer": {"iteration": 1, "epoch_length": 1}, "lr_scheduler": {}}, path)
    with pytest.raises(ValueError, match="an earlier version told images otherwise: go on with that one"):
        check_resumed(str(path), {"images": "2 and 1 whose names and contents have the SHA-256 …"}, 1)


def test_a_call_with_other_settings_or_fewer_epochs_is_refused_and_a_whole_training_told(tmp_path, capsys):
    train(tmp_path, 2)
    path = last_kept(str(tmp_path))
    check_resumed("", {}, 1)
    capsys.readouterr()
    for epochs, said in ((5, ""), (2, f"All 2 epochs of the training in {tmp_path} are done: --epochs takes more\n")):
        check_resumed(path, {"learning_rate": 0.1, "roi_size": [8, 8, 8]}, epochs)
        assert capsys.readouterr().out == said
    with pytest.raises(ValueError, match=r"another learning_rate \(was 0.1, now 0.2\): .* or another --output_dir"):
        check_resumed(path, SETTINGS | {"learning_rate": 0.2}, 4)
    with pytest.raises(ValueError, match=r"another real_share \(was None, now 0.5\)"):
        check_resumed(path, SETTINGS | {"real_share": 0.5}, 4)
    with pytest.raises(ValueError, match=r"of 2 epochs, more than the 1 asked for: give --epochs 2 or more"):
        check_resumed(path, SETTINGS, 1)


def test_what_is_no_state_of_a_training_or_one_of_another_is_refused(tmp_path):
    train(tmp_path / "run", 2)
    with pytest.raises(ValueError, match=r"has 6 steps, and one of this call 4: give the same images"):
        train(tmp_path / "run", 4, steps=4)
    path = tmp_path / "resume_checkpoint_epoch=1.pt"
    path.write_bytes(b"half a file")
    with pytest.raises(ValueError, match="cannot be read as the state of a training: remove it"):
        check_resumed(str(path), {}, 1)
    torch.save({"network": {}}, path)
    with pytest.raises(ValueError, match="not a state of a training"):
        check_resumed(str(path), {}, 1)
    with pytest.raises(FileNotFoundError, match="state of a training"):
        check_resumed(str(tmp_path / "none.pt"), {}, 1)
    found = torch.load(last_kept(str(tmp_path / "run")), weights_only=True)
    del found["network"]["1.bias"]
    torch.save(found, tmp_path / "run/resume_checkpoint_epoch=2.pt")
    with pytest.raises(ValueError, match="of another network, or by other configs"):
        train(tmp_path / "run", 4)


def test_a_sampler_of_several_processes_shuffles_anew_in_each_epoch():
    epochs = []

    class Sampler:
        set_epoch = epochs.append

    class Loader:
        dataset, sampler = None, Sampler()

        def __iter__(self):
            return iter([0])

    engine = Engine(lambda *_: None)
    engine.data_loader = Loader()
    EpochSeed(0).attach(engine)
    engine.run(engine.data_loader, max_epochs=3, epoch_length=1)
    assert epochs == [1, 2, 3]
