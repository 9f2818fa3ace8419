"""The application runs as a folder, not as a package: its modules import each other flat, and so do its tests."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "deploy_app"), str(Path(__file__).parent)]
