"""Views that MLflow's pages open with: a table of CV and LB, and plots of CV against LB.

MLflow stores a shared view as a tag of the experiment. The format is undocumented; this is that of mlflow
3.17.2 (`static/js` of its server: `sharedViewState`, and the classes that have `type=c.SCATTER`,
`type=c.PARALLEL`). A page that cannot read it shows its default table.
"""

import base64
import json
import time
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from callboard.results.mlflow import record as tag

if TYPE_CHECKING:
    from mlflow import MlflowClient

VIEWS_VERSION = 2
"""Version of the views below, to be raised with every change."""

TAG = "mlflow.sharedViewState."
MARK = "callboardVersion"
"""Key that MLflow's pages drop from the views that they save, so a person's view never has it."""

RESULTS_FILTER = f"tags.`{tag.KIND}` = '{tag.RESULT}' and attributes.status = 'FINISHED'"
"""Filter that leaves out folds, the author's rows, and half-written runs."""

VIEW_METRICS = ["cv.lwlrap", "lb.public", "lb.private"]
PARAMS = [
    "loss.neg_mask",
    "train.labels",
    "mixup.mode",
    "clip.n_frames",
    "optim.lr",
    "train.epochs",
    "seed",
]
"""Initial columns and axes; others can be ticked in MLflow."""


class View(NamedTuple):
    """A page of MLflow with its settings."""

    key: str
    """Last part of its tag, which is also in its address."""
    name: str
    mode: str
    """TABLE or CHART."""


VIEWS = (View("callboard-table", "CV | LB", "TABLE"), View("callboard-chart", "CV against LB", "CHART"))


def address(server: str, experiment_id: str, view: View) -> str:
    """Return the address at which a server shows a view."""
    query = f"workflowType=machine_learning&compareRunsMode={view.mode}&viewStateShareKey={view.key}"
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?{query}"


def write_views(client: "MlflowClient", experiment_id: str) -> list[str]:
    """Write the views that are missing or have an older version; one that a person has changed stays.

    Returns:
        Names of the views that were written.

    Raises:
        MlflowException: the server is down or refuses.
    """
    tags = client.get_experiment(experiment_id).tags
    due = [view for view in VIEWS if _is_due(tags.get(TAG + view.key))]
    for view in due:
        client.set_experiment_tag(experiment_id, TAG + view.key, encode(view, int(time.time() * 1000)))
    return [view.name for view in due]


def _is_due(tag: str | None) -> bool:
    if tag is None:
        return True
    try:
        found = json.loads(tag)
    except ValueError:
        return False  # not written here
    return isinstance(found, dict) and MARK in found and found[MARK] < VIEWS_VERSION


def encode(view: View, now_ms: int) -> str:
    """Encode a view as the text of its tag, created at `now_ms` in milliseconds since 1970."""
    state = base64.b64encode(zlib.compress(json.dumps(page_state(), sort_keys=True).encode())).decode()
    payload: dict[str, Any] = {"name": view.name, "createdAt": now_ms, "updatedAt": now_ms}
    return json.dumps(payload | {"state": f"deflate;{state}", MARK: VIEWS_VERSION})


def decode(tag: str) -> dict[str, Any]:
    """Return the settings inside a tag."""
    packed = json.loads(tag)["state"].removeprefix("deflate;")
    return dict(json.loads(zlib.decompress(base64.b64decode(packed))))


def page_state() -> dict[str, Any]:
    """Return the settings of the page of runs, shared by table and charts."""
    columns = [f"metrics.`{key}`" for key in VIEW_METRICS]
    columns += [f"tags.`{tag.NAMES}`"] + [f"params.`{key}`" for key in PARAMS]
    section = {"name": "CV and LB", "uuid": "callboard-section", "display": True, "isReordered": False}
    section |= {"columns": 2, "cardHeight": 420}
    charts = [
        _scatter("lb.public", section["uuid"]),
        _scatter("lb.private", section["uuid"]),
        _parallel(section["uuid"]),
    ]
    return {
        "searchFilter": RESULTS_FILTER,
        "orderByKey": "metrics.`lb.public`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": columns,
        "runsHiddenMode": "SHOW_ALL",  # the default draws ten runs only
        "compareRunSections": [section],
        "compareRunCharts": charts,
        "isAccordionReordered": True,  # else MLflow's own section of bars comes first, by name
    }


def _scatter(lb: str, section: Any) -> dict[str, Any]:
    return {
        "type": "SCATTER",
        "uuid": f"callboard-{lb}",
        "metricSectionId": section,
        "displayName": f"CV against {lb}",
        "xaxis": {"key": "cv.lwlrap", "type": "METRIC"},
        "yaxis": {"key": lb, "type": "METRIC"},
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
    }


def _parallel(section: Any) -> dict[str, Any]:
    return {
        "type": "PARALLEL",
        "uuid": "callboard-parallel",
        "metricSectionId": section,
        "displayName": "parameters, CV and LB",
        "selectedParams": PARAMS[:5],
        "selectedMetrics": VIEW_METRICS,
        "showAllRuns": False,
        "deleted": False,
        "isGenerated": False,
    }
