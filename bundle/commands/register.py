"""Register one pair of images."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from bundle.affine import ALIGNMENTS
from bundle.inference import infer
from bundle.io.files import utf8
from bundle.io.itk import read_linear
from bundle.optimisation import SIMILARITIES
from bundle.options import check_fill, check_flags
from bundle.pairs import check_folder
from bundle.root import WEIGHTS
from bundle.transforms.extent import check_spacing
from bundle.weights import recommended

__all__ = ["register"]

DEVICES = {
    "auto": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
    "cpu": "$torch.device('cpu')",
    "cuda": "$torch.device('cuda')",
}


def register(
    moving: str,
    fixed: str,
    output_dir: str,
    moving_label: str | None = None,
    fixed_label: str | None = None,
    moving_mask: str | None = None,
    fixed_mask: str | None = None,
    moving_cost_mask: str | None = None,
    fixed_cost_mask: str | None = None,
    initial_transform: str | None = None,
    affine: str | None = None,
    weights: str | None = None,
    spacing_mm: float | None = None,
    passes: int | None = None,
    optimise: int = 0,
    similarity: str = "ncc",
    never_worse: bool = True,
    same_person: bool = False,
    symmetric: bool = False,
    inverse: bool = False,
    jacobian: bool = False,
    expected_error: bool = False,
    fill: float | None = None,
    report: bool = True,
    bfloat16: bool | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Align a moving image to a fixed one.

    Writes warped.nii.gz, displacement.nii.gz, transform.h5, registration.json, overview.png, report.html and, for a
    moving label, warped_label.nii.gz. The same as running configs/inference.json on one pair.

    Args:
        moving: image to align (NIfTI, NRRD or MHA).
        fixed: image to align to; the result lies on its grid.
        output_dir: folder to write.
        moving_label: label map of the moving image, warped along.
        fixed_label: label map of the fixed image; with moving_label the Dice overlap is reported.
        moving_mask: mask of the moving image; the rest is blanked (a brain mask, say).
        fixed_mask: mask of the fixed image.
        moving_cost_mask: what does not count in the moving image (a lesion, a resection): the alignment, the network
            and the similarities leave it out, and the field runs smoothly through it.
        fixed_cost_mask: what does not count in the fixed image.
        initial_transform: linear ITK transform, fixed to moving, instead of the pre-alignment.
        affine: pre-alignment: none (trust the headers), center, rigid or affine; by default affine, or with same_person
            rigid, since a head stays as large as it is.
        weights: weights of the network. By default models/model.pt, averaged with models/any_contrast.pt where the
            images may differ in contrast, or for two like scans of one person models/one_person.pt; registration.json
            says which.
        spacing_mm: voxel size that the network works at; by default the one that suits the weights.
        passes: how often the network runs, each time on what it has aligned so far; what suits the weights by default.
        optimise: most steps of pairwise optimisation, which refines the field for this pair (5, say); none by default.
        similarity: that it goes by: ncc (local squared correlation) or mind (MIND-SSC descriptors).
        never_worse: drop the alignment, and the network's field, where it leaves the images less alike than before.
        same_person: both images are of one person: take the weights for that where the two are alike, those across
            contrasts where they are not, and keep the network's field only where it explains what differs between them,
            so that noise moves next to nothing.
        symmetric: register both ways and meet halfway, in several times the time: with the images swapped the result is
            the inverse, up to interpolation.
        inverse: also write the inverse, inverse.h5 and inverse_displacement.nii.gz.
        jacobian: also write jacobian.nii.gz, the determinant of the field (the command jacobian says more).
        expected_error: also write expected_error.nii.gz, how many mm each voxel is likely to be off; the network runs
            three times more.
        fill: value of the result where nothing of the moving image is; by default the image's lowest intensity but for
            outliers where that is below 0 (the air of a CT), else 0.
        report: write report.html, a page to look around in; with thumbnail.png, a small picture.
        bfloat16: let the network convolve in bfloat16 on a CPU; by default where the CPU has instructions for it.
        device: auto, cpu or cuda.

    Returns:
        What registration.json holds.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an option or an image that cannot be used; the message says why.
    """
    check_affine("affine" if affine is None else affine)
    check_device(device)
    flags = {"never_worse": never_worse, "same_person": same_person, "symmetric": symmetric}
    flags |= {"inverse": inverse, "jacobian": jacobian, "expected_error": expected_error, "report": report}
    flags |= {} if bfloat16 is None else {"bfloat16": bfloat16}
    check_flags(**flags)
    _check_numbers(spacing_mm, passes, optimise)
    check_similarity(similarity, optimise > 0 or symmetric)
    check_fill(fill, "--fill")
    folder = output_folder(output_dir)
    if initial_transform is not None:
        read_linear(str(initial_transform))
        if affine is not None:
            raise ValueError("--initial_transform takes the place of the pre-alignment: leave --affine out.")
    item = {"moving": moving, "fixed": fixed, "moving_label": moving_label, "fixed_label": fixed_label}
    item |= {"moving_mask": moving_mask, "fixed_mask": fixed_mask, "initial_transform": initial_transform}
    item |= {"moving_cost_mask": moving_cost_mask, "fixed_cost_mask": fixed_cost_mask}
    # absolute, since the workflow takes a string that starts with $, @ or % for an expression
    paths = {k: str(Path(str(v)).absolute()) for k, v in item.items() if v is not None}
    check_folder(folder, paths)
    overrides: dict[str, Any] = {
        "output_dir": str(folder),
        "dataset#data": [{"name": "pair"} | paths],
        "optimise": optimise,
        "similarity": similarity,
        **flags,
        "fill": fill,
        "ckpt": str(Path(str(weights)).absolute() if weights else WEIGHTS),
        "choose_weights": not weights,
        "device": DEVICES[device],
        "folder_per_pair": False,
        "tabulate": False,
        "progress": True,
    }
    suited = {"affine": affine, "spacing_mm": None if spacing_mm is None else float(spacing_mm), "passes": passes}
    infer(**overrides, **{key: value for key, value in suited.items() if value is not None})
    result: dict[str, Any] = json.loads((folder / "registration.json").read_text())
    _tell(result, folder, Path(str(weights or WEIGHTS)))
    return result


def _check_numbers(spacing_mm: float | None, passes: int | None, optimise: int) -> None:
    """Refuse what is no number of millimetres, passes or steps."""
    if spacing_mm is not None and not isinstance(spacing_mm, int | float):
        raise ValueError(f"--spacing_mm takes millimetres, not '{spacing_mm}'.")
    check_spacing(spacing_mm, "--spacing_mm")
    if passes is not None and (not isinstance(passes, int) or passes < 1):
        raise ValueError(f"--passes takes a whole number from 1 up, not '{passes}'.")
    if not isinstance(optimise, int) or isinstance(optimise, bool) or optimise < 0:
        raise ValueError(f"--optimise takes a whole number of steps from 0 up, not '{optimise}'.")


def check_similarity(similarity: str, is_used: bool = True) -> None:
    """Refuse what the optimisation cannot go by, and a choice where nothing is optimised, before any work."""
    if similarity not in SIMILARITIES:
        raise ValueError(f"--similarity is one of {', '.join(SIMILARITIES)}, not '{similarity}'.")
    if similarity != SIMILARITIES[0] and not is_used:
        raise ValueError(f"--similarity {similarity} is what the optimisation goes by: give --optimise, 25 say, too.")


def check_affine(affine: str) -> None:
    """Refuse a pre-alignment that there is not, before any work."""
    if affine not in ALIGNMENTS:
        raise ValueError(f"--affine is one of {', '.join(ALIGNMENTS)}, not '{affine}'.")


def check_device(device: str) -> None:
    """Refuse a device that is none, or that is not there, before any work."""
    if device not in DEVICES:
        raise ValueError(f"--device is one of {', '.join(DEVICES)}, not '{device}'.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "--device cuda needs a CUDA GPU and a PyTorch built for it, and finds none: give --device cpu."
        )


def output_folder(output_dir: str) -> Path:
    """Make the path of a folder to write absolute, refusing what cannot become a folder before any work."""
    folder = Path(utf8(Path(str(output_dir)).absolute()))
    if folder.is_file():
        raise ValueError(f"The output ({folder}) is a file: name a folder.")
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(f"The output ({folder}) cannot be written: {parent} is no folder that you may write to.")
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".writing_", dir=parent))
    except OSError as error:  # what the rights do not tell: a file system that makes its own files alone
        raise ValueError(f"The output ({folder}) cannot be written in {parent}: name another place.") from error
    return folder


def _tell(result: dict[str, Any], folder: Path, named: Path) -> None:
    """Print what matters of ``registration.json``; ``named``: the weights asked for."""
    for note in result["notes"]:
        print(f"note: {note}")
    rows = [("similarity (local NCC)", "similarity"), ("overlap (mean Dice)", "dice")]
    for title, name in rows:
        if f"{name}_before" in result:
            values = " → ".join(_number(result[f"{name}_{stage}"]) for stage in ("before", "aligned", "after"))
            print(f"{title}: {values}   (by headers → aligned → registered)")
    if result["weights"] != named.name:
        differ = result["weights"] == recommended(str(named), "across_contrasts")
        reason = "two contrasts" if differ else "two like scans of one person"
        contrasts, tissues = (_number(result[f"{name}_correlation"]) for name in ("contrast", "tissue"))
        also = result["settings"].get("averaged_with", {}).get("weights")
        files = f"{result['weights']} and {also}, averaged (--weights takes one)" if also else result["weights"]
        print(f"{reason} (correlation of the images {contrasts}, of their tissues {tissues}): weights {files}")
    if result.get("alignment_dropped"):
        print("the alignment found left the images less alike than their headers and was dropped: the headers count")
    if result.get("field_dropped"):
        print("the network's field left the images less alike and was dropped: the alignment alone remains")
    print(f"folding: {result['folding_percent']:.4f} %   SD of log-Jacobian: {_number(result['log_jacobian_sd'])}")
    if "expected_error_mean_mm" in result:
        mean, median, p95 = (_number(result[f"expected_error_{name}_mm"]) for name in ("mean", "median", "p95"))
        above = _number(result["expected_error_above_2mm_percent"])
        print(
            f"expected error: {mean} mm (median {median}, 95th percentile {p95}); above 2 mm at {above} % of the voxels"
        )
    print(f"verdict: {'; '.join([result['verdict'], *result['limits_missed']])}")
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in result["seconds"].items())
    memory = result["peak_memory_mb"]
    print(f"seconds: {stages}" + ("" if memory is None else f"   peak memory: {memory:.0f} MB"))
    judgement = result["judgement"]
    print(f"judgement: {judgement['level']}" + "".join(f"\n  {f['sentence']}" for f in judgement["findings"]))
    page = folder / "report.html"
    print(f"picture: {folder / 'overview.png'}" + (f"   page: {page}" if page.is_file() else ""))


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
