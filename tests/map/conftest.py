"""The folder that builds the image is no package: its modules import each other flat, and so do their tests."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "deploy_app"), str(ROOT / "deploy_app" / "map"), str(ROOT / "tests" / "deploy_app")]
