"""Read configs as ``python -m monai.bundle run --config_file`` merges them."""

from monai.bundle import ConfigParser


def load(bundle_root, names):
    parser = ConfigParser()
    parser.read_config([str(bundle_root / "configs" / f"{name}.json") for name in names])
    return parser
