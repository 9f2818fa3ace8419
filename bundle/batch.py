"""Register a long list of pairs: go on where it stopped, skip what fails, share the list between processes."""

import json
import logging
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.failures import PairsFailedError, bad_input
from bundle.io.files import fingerprint, is_unchanged
from bundle.io.tables import write_csv
from bundle.pairs import FILES, check_folder
from bundle.processes import finishes_last, under_torchrun
from bundle.progress import Progress
from bundle.report import write_index
from bundle.results import as_thresholds, bounds_of, remove_registration
from bundle.weights import WeightsChoice, check_there
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import Evaluator
from tqdm import tqdm

__all__ = ["BatchRegistration"]

Pair = dict[str, Any]

PAGE = ("report.html", "thumbnail.png")
MEASURES = ("similarity_before", "similarity_aligned", "similarity_after", "dice_after", "folding_percent")


class BatchRegistration:
    """Run an evaluator on one pair after the other, so that a bad pair costs itself alone.

    A pair is passed over if its folder below ``output_dir`` holds what these weights, settings and thresholds made of
    the content that its files have now. One that fails leaves ``<name>.error.txt``, the reason in its first line and,
    if that is no bad input, where it happened; the next run tries it again. An earlier registration goes away then if
    the pair's files hold something else now; those that cannot be read may only be out of reach. Several processes
    (torchrun, or any launcher that sets RANK and WORLD_SIZE) share the list and need not talk to each other: each reads
    off the disk what has been done, and the last to finish leaves the whole ``batch.csv`` and ``index.html``.

    Args:
        pairs: from ``read_pairs``.
        transform: preprocessing of a pair.
        evaluator: registers and saves; its own data loader is not used.
        output_dir: where its ``RegistrationSaver`` writes, a folder a pair.
        weights: path of the weights.
        settings: those that its ``RegistrationSaver`` notes.
        weights_choice: which weights it takes for a pair; None for ``weights``.
        thresholds: what its ``RegistrationSaver`` judges by.
        report: whether a pair without a page of its own is to be registered again.

    Raises:
        FileNotFoundError: there are no such weights.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        transform: Callable[..., Any],
        evaluator: Evaluator,
        output_dir: str,
        weights: str,
        settings: Mapping[str, Any] | None = None,
        weights_choice: WeightsChoice | None = None,
        thresholds: Mapping[str, Mapping[str, Sequence[float | None]]] | None = None,
        report: bool = False,
    ) -> None:
        self.weights_choice, self.digests = weights_choice, dict[str, str]()
        self.pairs, self.transform, self.evaluator = list(pairs), transform, evaluator
        self.output_dir, self.weights = Path(output_dir), Path(weights)
        check_there(weights)
        self.settings = json.loads(json.dumps(dict(settings or {})))
        self.thresholds, self.wanted = thresholds or {}, PAGE if report else ()
        self.error: Exception | None = None
        self.failures, self.traces = dict[str, str](), dict[str, str]()
        evaluator.add_event_handler(Events.EXCEPTION_RAISED, self._keep)
        evaluator.logger = logging.getLogger(__name__)  # its own: what fails is told in one sentence
        evaluator.logger.setLevel(logging.CRITICAL)

    def run(self) -> None:
        """Register this process's share, then tabulate all pairs.

        Raises:
            PairsFailedError: some pairs failed, after all others are registered. Under torchrun, which ends all
                processes when one fails, the last to finish raises it alone.
        """
        rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.output_dir.mkdir(parents=True, exist_ok=True)
        share = self.pairs[rank::processes]
        todo = [pair for pair in share if not self._is_done(pair)]
        print(f"process {rank}: {len(share) - len(todo)} of {len(share)} pairs are done already")  # noqa: T201
        for pair in Progress(todo, title="registering", unit="pair"):
            self._register(pair)
        rows = self._tabulate()
        failed = [row["pair"] for row in rows if row["pair"] in self.failures]
        if under_torchrun():
            rows = self._tabulate() if finishes_last() else []
            failed = [row["pair"] for row in rows if row["state"] != "registered"]
        if failed:
            raise PairsFailedError(
                f"{len(failed)} of {len(self.pairs)} pairs failed, {failed[0]} first; the others are registered. Why "
                f"says {self.output_dir / 'batch.csv'}; the next run tries them again."
            )

    def _register(self, pair: Pair) -> None:
        """Register one pair, or say why not, here and in a file."""
        self.error = None
        try:
            check_folder(self.output_dir / pair["name"], pair)
            self.evaluator.data_loader = DataLoader(Dataset([pair], self.transform), batch_size=1)
            self.evaluator.state.epoch_length = 1
            self.evaluator.run()
        except Exception as error:  # outside of the engine's own care
            self.error = self.error or error
        if self.error is not None:
            sentence = bad_input(self.error)
            if not sentence:  # a defect: whoever mends it wants to know where
                sentence = f"{type(self.error).__name__}: {self.error}"
                self.traces[pair["name"]] = "".join(traceback.format_exception(self.error))
            self.failures[pair["name"]] = " ".join(sentence.split())
            tqdm.write(f"skipped {pair['name']}: {self.failures[pair['name']]}")
            self._remove_outdated(pair)
        self._note(pair)

    def _remove_outdated(self, pair: Pair) -> None:
        """Take away an earlier registration of a pair that failed, where that was of something else."""
        folder, inputs = self.output_dir / pair["name"], (self._found(pair) or {}).get("inputs")
        given = {key: pair[key] for key in FILES if key in pair}
        if not inputs or not (
            inputs.keys() - given.keys()
            or any(os.access(p, os.R_OK) and not is_unchanged(inputs.get(key, {}), p) for key, p in given.items())
        ):
            return
        try:
            check_folder(folder, pair)  # none of its own images lies there
            remove_registration(folder)
        except ValueError:
            pass
        except OSError as error:
            tqdm.write(f"cannot remove the earlier registration in {folder}: {error.strerror}")

    def _note(self, pair: Pair) -> None:
        """Leave the reason beside the pair's folder for the other processes and the user, or take an old one away."""
        report, reason = self._report(pair), self.failures.get(pair["name"])
        try:
            if reason is None:
                report.unlink(missing_ok=True)
            else:
                report.parent.mkdir(parents=True, exist_ok=True)
                reason = f"{reason}\n{self.traces.get(pair['name'], '')}"
                report.write_text(reason, encoding="utf-8", errors="backslashreplace")
        except OSError as error:  # the folder may be what failed: the table still says so
            tqdm.write(f"cannot write {report}: {error.strerror}")

    def _keep(self, error: Exception) -> None:
        """Take an exception over from the engine, which would end the run with it."""
        if not isinstance(error, Exception):  # an interruption by the user ends the run
            raise error
        self.error = error

    def _digest(self, path: str) -> str:
        """SHA-256 of weights."""
        if path not in self.digests:
            check_there(path)
            self.digests[path] = fingerprint(path)["sha256"]
        return self.digests[path]

    def _is_done(self, pair: Pair) -> bool:
        folder = self.output_dir / pair["name"]
        found = self._found(pair)
        if found is None or not found.get("outputs"):
            return False
        if not all((folder / name).is_file() for name in {*found["outputs"], *self.wanted}):
            return False
        choice, settings, weights = self.weights_choice, self.settings, str(self.weights)
        if choice is not None:
            if not isinstance(found.get("tissue_correlation"), int | float):  # an earlier version's, or broken
                return False
            settings, weights = choice.settings_for(found, settings), choice.weights_for(found)
        bounds = bounds_of(weights, self.thresholds, choice)
        made_with = self._digest(weights), settings, as_thresholds(bounds)
        if (found.get("weights_sha256"), found.get("settings"), found.get("thresholds")) != made_with:
            return False
        inputs, given = found.get("inputs", {}), {key: pair[key] for key in FILES if key in pair}
        return inputs.keys() == given.keys() and all(is_unchanged(inputs[key], given[key]) for key in given)

    def _found(self, pair: Pair) -> dict[str, Any] | None:
        """Read what an earlier run noted of a pair, if it can be read."""
        try:
            found = json.loads((self.output_dir / pair["name"] / "registration.json").read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _report(self, pair: Pair) -> Path:
        return self.output_dir / f"{pair['name']}.error.txt"

    def _reason(self, pair: Pair) -> str:
        """Find why a pair failed, in this process or in another; empty if it did not."""
        if pair["name"] in self.failures:
            return self.failures[pair["name"]]
        try:
            return self._report(pair).read_text("utf-8", "replace").partition("\n")[0].strip()
        except OSError:
            return ""

    def _tabulate(self) -> list[dict[str, Any]]:
        """Write the state of every pair: registered, with its numbers; failed, and why; or still to do."""
        rows, registered = [], {}
        for pair in self.pairs:
            row = {"pair": pair["name"], "moving": pair["moving"], "fixed": pair["fixed"]}
            found = self._found(pair)
            if found is not None and pair["name"] not in self.failures and self._is_done(pair):
                registered[pair["name"]] = found
                row |= {"state": "registered", "error": ""} | {measure: found.get(measure) for measure in MEASURES}
            else:
                reason = self._reason(pair)
                row |= {"state": "failed" if reason else "to do", "error": reason}
            rows.append(row)
        rows.sort(key=lambda row: row["state"] != "registered")  # whose columns come first
        write_csv(self.output_dir / "batch.csv", rows)
        write_index(self.output_dir, rows, registered)
        counts = {state: sum(row["state"] == state for row in rows) for state in ("registered", "failed", "to do")}
        print(", ".join(f"{count} {state}" for state, count in counts.items()))  # noqa: T201
        return rows
