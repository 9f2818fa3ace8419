"""Train networks on equal terms, one after the other: same pairs, steps, augmentation, loss and choice of weights."""

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import bundle
from bundle.io.files import in_place, write_text
from bundle.io.tables import markdown_table, read_csv, write_csv
from bundle.options import as_text
from bundle.progress import Progress
from bundle.root import ROOT

__all__ = ["NETWORKS", "Terms", "equal_terms_markdown", "train_all"]

Row = dict[str, Any]

NETWORKS: Mapping[str, tuple[str, ...]] = {
    "pan": (),
    "voxelmorph": ("peers/voxelmorph",),
    "dual-prnet": ("peers/dual_prnet",),
    "vit-v-net": ("peers/vit_vnet",),
    "transmorph": ("peers/transmorph",),
}
"""Names of configs after those of a workflow, by network; also the methods of ``benchmark accuracy``."""

COLUMNS = {  # of the table: title and decimals
    "network": ("network", None),
    "learning_rate": ("learning rate", None),
    "parameters": ("parameters", 0),
    "steps": ("steps", 0),
    "seconds": ("seconds", 0),
    "seconds_a_step": ("seconds a step", 2),
    "peak_memory_mb": ("memory, MB", 0),
    "validation": ("validation", 3),
    "best_epoch": ("best epoch", 0),
    "chosen": ("chosen", None),
}


@dataclass(frozen=True)
class Terms:
    """What is the same for all networks.

    Args:
        dataset: folder with dataset.json.
        epochs: of each run; there is no early end.
        spatial_size: that images are cut or padded to; None for the smallest that holds all.
        roi_size: of random crops in training; None for the whole.
        misalignment_probability: share of moving images moved by a random affine.
        mask_probability: share of pairs with everything outside the labels blanked.
        val_pairs: pairs that each epoch is validated on.
        spacing_mm: of the images, noted for the weights.
        cascades: of each network.
        seed: of weights and pairs.
        threads: of the process.
        images: what tells those of the data set, from ``bundle.resumption.images_of``.
        version: of the bundle.
    """

    dataset: str
    epochs: int = 10
    spatial_size: tuple[int, ...] | None = None
    roi_size: tuple[int, ...] | None = None
    misalignment_probability: float = 0.4
    mask_probability: float = 0.0
    val_pairs: int = 30
    spacing_mm: float | None = None
    cascades: int = 1
    seed: int = 0
    threads: int = 1
    images: str = ""
    version: str = bundle.__version__


def train_all(terms: Terms, networks: Sequence[str], learning_rates: Sequence[float], folder: Path) -> list[Row]:
    """Train every network at every learning rate, and choose the better one of each by validation.

    A run that was interrupted goes on from its last epoch, one that is finished is only looked up; those of an earlier
    call count, too. The chosen weights come to lie in ``folder/chosen/NAME.pt``, with the settings that suit them in
    ``NAME.json``; the rows in ``equal_terms.csv`` and ``equal_terms.md``, renewed after every run.

    Args:
        terms: what is the same for all.
        networks: some of ``NETWORKS``.
        learning_rates: to try.
        folder: to write to.

    Returns:
        A row for each finished run of the folder: see ``equal_terms_markdown``.

    Raises:
        ValueError: the folder holds runs on other terms, another process trains there, or a training fails.
    """
    _keep_terms(terms, folder)
    rows: list[Row] = []
    with Progress[None](total=len(networks) * len(learning_rates), title="training", unit="network") as progress:
        for name in networks:
            for rate in learning_rates:
                progress.say(f"{name} at {rate:g}")
                run = folder / f"{name}_{rate:g}"
                if _epochs_done(run) < terms.epochs:
                    _train(terms, name, rate, run)
                _print(_row(name, rate, run))
                rows = _tabulate(folder, terms)
                progress.update()
    return rows


def _tabulate(folder: Path, terms: Terms) -> list[Row]:
    """Choose among the finished runs of each network, and write the tables."""
    rows: list[Row] = []
    for name in NETWORKS:
        runs = _runs_of(name, folder)
        own = [_row(name, rate, run) for rate, run in sorted(runs.items()) if _epochs_done(run) >= terms.epochs]
        rows += _choose(own, name, folder, terms) if own else []
    write_csv(folder / "equal_terms.csv", rows)
    write_text(folder / "equal_terms.md", equal_terms_markdown(rows))
    return rows


def _runs_of(name: str, folder: Path) -> dict[float, Path]:
    """Find the runs of a network by their learning rate; other folders beside them are let be."""
    found = {}
    for run in folder.glob(f"{name}_*"):
        with contextlib.suppress(ValueError):
            rate = float(run.name.removeprefix(f"{name}_"))
            if 0 < rate < 1 and run.name == f"{name}_{rate:g}":
                found[rate] = run
    return found


def equal_terms_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay the runs out as a Markdown table.

    Args:
        rows: ``network``, ``learning_rate``, ``parameters``, ``steps``, ``seconds`` (of the steps), ``seconds_a_step``,
            ``peak_memory_mb``, ``validation`` (the best), ``best_epoch``, and ``chosen``: yes or no.
    """
    lines = [[_cell(row[key], decimals) for key, (_, decimals) in COLUMNS.items()] for row in rows]
    return markdown_table([title for title, _ in COLUMNS.values()], lines)


def _cell(value: Any, decimals: int | None) -> str:
    return str(value) if decimals is None else f"{float(value):,.{decimals}f}"


def _keep_terms(terms: Terms, folder: Path) -> None:
    """Note the terms, or hold them against those that the folder's runs have; an early version noted fewer."""
    folder.mkdir(parents=True, exist_ok=True)
    path, own = folder / "terms.json", json.loads(json.dumps(asdict(terms)))
    before = json.loads(path.read_text()) if path.is_file() else own
    differing = [
        f"{key} (was {before[key]}, now {own[key]})"
        for key in own
        if key in before and own[key] != before[key] and key != "threads"
    ]
    if differing:
        raise ValueError(
            f"{folder} holds runs on other terms, {', '.join(differing)}: choose another --output_dir, or the terms "
            f"in {path}."
        )
    missing = [key for key in own if key not in before]
    if missing:
        print(f"{path} does not say {', '.join(missing)}: its runs count as runs on those of now.")  # noqa: T201
    write_text(path, json.dumps(own, indent=4) + "\n")


def _epochs_done(run: Path) -> int:
    path = run / "epochs.csv"
    return int(read_csv(path)[-1]["epoch"]) if path.is_file() else 0


def _train(terms: Terms, name: str, rate: float, run: Path) -> None:
    """Run one training to its end in a process of its own; what it says goes to ``log.txt``."""
    configs = ["train", *NETWORKS[name], "equal_terms"]
    options: Row = {
        "config_file": [str(ROOT / "configs" / f"{config}.json") for config in configs],
        "bundle_root": as_text(str(ROOT)),
        "dataset_dir": as_text(terms.dataset),
        "output_dir": as_text(str(run)),
        "epochs": terms.epochs,
        "learning_rate": rate,
        "patience": terms.epochs,
        "misalignment_probability": terms.misalignment_probability,
        "mask_probability": terms.mask_probability,
        "val_pairs": terms.val_pairs,
        "seed": terms.seed,
        "cascades": terms.cascades,
    }
    for key in ("spatial_size", "roi_size"):
        if getattr(terms, key) is not None:
            options[key] = list(getattr(terms, key))
    line = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "training"]
    line += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    run.mkdir(parents=True, exist_ok=True)
    with (run / "log.txt").open("a") as log:
        _hold(log, run)
        path = os.pathsep.join([str(Path(bundle.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"OMP_NUM_THREADS": str(terms.threads), "PYTHONPATH": path}
        done = subprocess.run(line, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode:
        last = (run / "log.txt").read_text().strip().splitlines()[-1:]
        raise ValueError(f"The training of {name} failed ({''.join(last)}): see {run / 'log.txt'}.")


def _hold(log: TextIO, run: Path) -> None:
    """Keep other processes from training in a run's folder, as long as its log is open here or in the training itself.

    Windows has no such lock: there nothing keeps them.
    """
    with contextlib.suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the training holds it on, should this process be killed
        except BlockingIOError:
            raise ValueError(f"Another process trains in {run}: wait for it, or end it.") from None


def _row(name: str, rate: float, run: Path) -> Row:
    """Sum up a run by its epochs."""
    epochs = [{key: float(value) for key, value in row.items()} for row in read_csv(run / "epochs.csv")]
    best = max(epochs, key=lambda row: -math.inf if math.isnan(row["validation"]) else row["validation"])
    seconds, steps = sum(row["seconds"] for row in epochs), epochs[-1]["steps"]
    return {
        "network": name,
        "learning_rate": f"{rate:g}",
        "parameters": int(best["parameters"]),
        "steps": int(steps),
        "seconds": seconds,
        "seconds_a_step": seconds / steps,
        "peak_memory_mb": max(row["peak_memory_mb"] for row in epochs),
        "validation": best["validation"],
        "best_epoch": int(best["epoch"]),
        "chosen": "",
    }


def _print(row: Row) -> None:
    print(  # noqa: T201
        f"{row['network']} at {row['learning_rate']}: {row['steps']} steps in {row['seconds']:.0f} s "
        f"({row['seconds_a_step']:.2f} s each), {row['parameters']:,} parameters, {row['peak_memory_mb']:.0f} MB, "
        f"validation {row['validation']:.3f}",
        flush=True,
    )


def _choose(own: list[Row], name: str, folder: Path, terms: Terms) -> list[Row]:
    """Mark the run that validates best, and put its weights where the comparison takes them from."""
    best = max(range(len(own)), key=lambda i: own[i]["validation"])
    for i, row in enumerate(own):
        row["chosen"] = "yes" if i == best else "no"
    chosen = folder / "chosen"
    run = folder / f"{name}_{own[best]['learning_rate']}"
    with in_place(chosen / f"{name}.pt") as partial:
        shutil.copyfile(run / "models" / "model.pt", partial)
    settings: Row = {"network": NETWORKS[name][0]} if NETWORKS[name] else {}
    settings |= {"spacing_mm": terms.spacing_mm, "passes": 1, "cascades": terms.cascades}
    settings |= {"trained_on": Path(terms.dataset).name, "steps": own[best]["steps"], "seed": terms.seed}
    write_text(chosen / f"{name}.json", json.dumps(settings, indent=4) + "\n")
    return own
