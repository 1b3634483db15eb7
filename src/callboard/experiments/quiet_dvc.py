"""`python -m callboard.experiments.quiet_dvc`: `dvc` without a warning that a first experiment repeats.

An experiment begins with a checkout of every output. Of each stage that has never run, DVC warns that the
output "won't be created": several dozen lines in a new clone, above the first line of the pipeline.
"""

import logging
import sys

CHECKOUTS = ("dvc_data.hashfile.checkout", "dvc_data.index.checkout")
"""Loggers of the modules that warn."""


def says_more(record: logging.LogRecord) -> bool:
    """Return whether a log record is anything but that warning."""
    return not str(record.msg).startswith("No file hash info found for")


if __name__ == "__main__":
    from dvc.cli import main

    for name in CHECKOUTS:
        logging.getLogger(name).addFilter(says_more)
    sys.exit(main(sys.argv[1:]))
