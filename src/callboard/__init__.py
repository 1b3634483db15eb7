"""An experiment board for species-call detectors.

For notebooks: `board`, `parameters`, `oof_scores`, `oof_truth` and `compare` read the results of the
workspace that Python runs in; `lwlrap`, `log_mel` and `FrontEndParams` need no workspace. docs/notebook.md
shows all of them. `Detector` runs a file of `callboard export`, also without torch; see docs/export.md.
"""

from typing import Any

_HOMES = {
    "Detector": "scoring.detector",
    "FrontEndParams": "params.features",
    "UserError": "core.errors",
    "board": "reports.notebook",
    "compare": "analysis.pair",
    "log_mel": "features.log_mel",
    "lwlrap": "scoring.metrics",
    "oof_scores": "reports.notebook",
    "oof_truth": "reports.notebook",
    "parameters": "reports.notebook",
}
"""Public name to its module below `callboard`; `__init__.pyi` has the types.

Names are imported when first used. With import statements here, every stage of the pipeline would depend on
the code of the board, and `callboard --help` would wait for pandas.
"""

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'callboard' has no attribute {name!r}")
    return getattr(import_module(f"callboard.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
