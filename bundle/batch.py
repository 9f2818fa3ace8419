"""Register a long list of pairs: go on where it stopped, skip what fails, share the list between processes."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bundle.io.tables import write_csv
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import Evaluator
from tqdm import tqdm

__all__ = ["BatchRegistration"]

Pair = dict[str, Any]

WRITTEN = ("displacement.nii.gz", "registration.json", "transform.h5", "warped.nii.gz")


class BatchRegistration:
    """Run an evaluator on one pair after the other, so that a bad pair costs itself alone.

    A pair is passed over if its folder below ``output_dir`` holds what these weights made of these files. One that
    fails leaves ``<name>.error.txt``, and is tried again by the next run. Several processes (torchrun, or any launcher
    that sets RANK and WORLD_SIZE) share the list and need not talk to each other: each reads off the disk what has
    been done, and the last to finish leaves the whole ``batch.csv``.

    Args:
        pairs: from ``read_pairs``.
        transform: preprocessing of a pair.
        evaluator: registers and saves; its own data loader is not used.
        output_dir: where its ``RegistrationSaver`` writes, a folder a pair.
        weights: path of the weights.
    """

    def __init__(
        self, pairs: Sequence[Pair], transform: Callable[..., Any], evaluator: Evaluator, output_dir: str, weights: str
    ) -> None:
        self.pairs, self.transform, self.evaluator = list(pairs), transform, evaluator
        self.output_dir, self.weights = Path(output_dir), Path(weights)
        self.error: Exception | None = None
        evaluator.add_event_handler(Events.EXCEPTION_RAISED, self._keep)

    def run(self) -> None:
        """Register this process's share, then tabulate all pairs."""
        rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        digest = hashlib.sha256(self.weights.read_bytes()).hexdigest()
        self.output_dir.mkdir(parents=True, exist_ok=True)
        share = self.pairs[rank::processes]
        todo = [pair for pair in share if not self._is_done(pair, digest)]
        print(f"process {rank}: {len(share) - len(todo)} of {len(share)} pairs are done already")  # noqa: T201
        for pair in tqdm(todo, desc="registering", unit="pair", disable=None):
            self._register(pair)
        self._tabulate(digest)

    def _register(self, pair: Pair) -> None:
        """Register one pair, or say why not, here and in a file."""
        self.error = None
        self.evaluator.data_loader = DataLoader(Dataset([pair], self.transform), batch_size=1)
        self.evaluator.state.epoch_length = 1
        self.evaluator.run()
        report = self._report(pair)
        report.unlink(missing_ok=True)
        if self.error is not None:
            report.write_text(f"{_sentence(self.error)}\n")
            tqdm.write(f"skipped {pair['name']}: {_sentence(self.error)}")

    def _keep(self, error: Exception) -> None:
        """Take an exception over from the engine, which would end the run with it."""
        if not isinstance(error, Exception):  # an interruption by the user ends the run
            raise error
        self.error = error

    def _is_done(self, pair: Pair, digest: str) -> bool:
        folder = self.output_dir / pair["name"]
        wanted = (*WRITTEN, "warped_label.nii.gz") if "moving_label" in pair else WRITTEN
        if not all((folder / name).is_file() for name in wanted):
            return False
        found = json.loads((folder / "registration.json").read_text())
        return [found[k] for k in ("moving", "fixed", "weights_sha256")] == [pair["moving"], pair["fixed"], digest]

    def _report(self, pair: Pair) -> Path:
        return self.output_dir / f"{pair['name']}.error.txt"

    def _tabulate(self, digest: str) -> None:
        """Write the state of every pair: registered, with its numbers; failed, and why; or still to do."""
        rows = []
        for pair in self.pairs:
            row = {"pair": pair["name"], "moving": pair["moving"], "fixed": pair["fixed"]}
            report = self._report(pair)
            if self._is_done(pair, digest):
                found = json.loads((self.output_dir / pair["name"] / "registration.json").read_text())
                row |= {"state": "registered", "error": ""}
                row |= {k: found[k] for k in ("similarity_before", "similarity_aligned", "similarity_after")}
                row |= {"dice_after": found.get("dice_after"), "folding_percent": found["folding_percent"]}
            else:
                row |= {"state": "failed" if report.is_file() else "to do"}
                row |= {"error": report.read_text().strip() if report.is_file() else ""}
            rows.append(row)
        rows.sort(key=lambda row: row["state"] != "registered")  # the columns are those of the first row
        partial = self.output_dir / f".batch.{os.getpid()}.csv"
        write_csv(partial, rows)
        os.replace(partial, self.output_dir / "batch.csv")
        counts = {state: sum(row["state"] == state for row in rows) for state in ("registered", "failed", "to do")}
        print(", ".join(f"{count} {state}" for state, count in counts.items()))  # noqa: T201


def _sentence(error: BaseException) -> str:
    """Find the sentence about the user's input in a chain of exceptions, or the first one's own words."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ValueError | OSError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return f"{type(error).__name__}: {error}".splitlines()[0]
