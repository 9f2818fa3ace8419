"""The MR scans of Learn2Reg's AbdomenMRCT: abdomens on one grid of 2 mm, with four organs."""

from pathlib import Path

from bundle.recipes.recipe import Item, Recipe, tell_missing

__all__ = ["ABDOMENMRCT"]

PUBLISHED = {"training": 34, "validation": 4, "test": 10}
MR = "_0000.nii.gz"  # the CT scans end in _0001


def find(source: Path) -> dict[str, list[Item]]:
    """List the MR scans of ``imagesTr`` with their labels: every fifth to test, four to validate."""
    root = source / "AbdomenMRCT" if (source / "AbdomenMRCT").is_dir() else source
    items = [
        {"image": str(path), "label": str(root / "labelsTr" / path.name)}
        for path in sorted((root / "imagesTr").glob(f"AbdomenMRCT_*{MR}"))
    ]
    if len(items) < 4:
        raise ValueError(
            f"{source} holds {len(items)} scans imagesTr/AbdomenMRCT_*{MR}: name the folder AbdomenMRCT of Learn2Reg."
        )
    missing = [item["label"] for item in items if not Path(item["label"]).is_file()]
    if missing:
        raise FileNotFoundError(f"There is no {missing[0]}.")
    test, validation = items[::5], items[1::5][:4]
    training = [item for item in items if item not in test and item not in validation]
    splits = {"training": training, "validation": validation, "test": test}
    tell_missing(source, splits, PUBLISHED)
    return splits


ABDOMENMRCT = Recipe(
    reference="https://learn2reg.grand-challenge.org/Datasets",
    labels={1: "liver", 2: "spleen", 3: "right kidney", 4: "left kidney"},  # of its AbdomenMRCT_dataset.json
    find=find,
)
