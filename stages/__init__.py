"""One thin script per stage, run as `python -m stages.<name>` from the root of a workspace.

An installed package would make a queued or `--temp` experiment import the main workspace's code, so the
workspace that holds this file puts its own `src` first.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
