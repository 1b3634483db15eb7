"""Fingerprint the code of each stage, so that an edit reruns only the stages that import the edited file."""

import argparse
from pathlib import Path

from callboard.core.code_fingerprint import code_fingerprint
from callboard.core.console import run_guarded, summarize
from callboard.core.files import replaced_folder


def main(argv: list[str] | None = None) -> None:
    """Write `<stage>.txt` for every stage script of this workspace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args(argv)

    scripts = Path(__file__).resolve().parent
    stages = sorted(path.stem for path in scripts.glob("*.py") if path.stem != "__init__")
    with replaced_folder(args.folder) as folder:
        for stage in stages:
            text = code_fingerprint(scripts.parent, f"stages.{stage}")
            (folder / f"{stage}.txt").write_text(text, encoding="utf-8")
    summarize("code", f"imports of {len(stages)} stages")


if __name__ == "__main__":
    run_guarded(main)
