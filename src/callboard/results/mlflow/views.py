"""What MLflow's pages open on: a table of CV and LB, and CV drawn against LB.

MLflow keeps a shared view as a tag of the experiment. The format is not documented; it is that of mlflow
3.17.2 (`static/js` of its server: `sharedViewState`, and the classes that have `type=c.SCATTER`,
`type=c.PARALLEL`). A page that cannot read it shows its own default table.
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
"""To be raised with every change of what is written below."""

TAG = "mlflow.sharedViewState."
MARK = "callboardVersion"
"""MLflow's pages leave this key out of the views that they save, so a person's view never has it."""

RESULTS_FILTER = f"tags.`{tag.KIND}` = '{tag.RESULT}' and attributes.status = 'FINISHED'"
"""Leaves out folds, the author's rows, and runs that are half written."""

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
"""Columns and axes that a person sees first; any other can be ticked in MLflow."""


class View(NamedTuple):
    """A page of MLflow with its settings."""

    key: str
    """Last part of its tag, and in its address."""
    name: str
    mode: str
    """TABLE or CHART."""


VIEWS = (View("callboard-table", "CV | LB", "TABLE"), View("callboard-chart", "CV against LB", "CHART"))


def address(server: str, experiment_id: str, view: View) -> str:
    """Where the server shows a view, below the server's address."""
    query = f"workflowType=machine_learning&compareRunsMode={view.mode}&viewStateShareKey={view.key}"
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?{query}"


def write_views(client: "MlflowClient", experiment_id: str) -> list[str]:
    """Write the views that are missing or of an older version; one that a person has changed stays.

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
    """A view as MLflow keeps it, of milliseconds since 1970."""
    state = base64.b64encode(zlib.compress(json.dumps(page_state(), sort_keys=True).encode())).decode()
    payload: dict[str, Any] = {"name": view.name, "createdAt": now_ms, "updatedAt": now_ms}
    return json.dumps(payload | {"state": f"deflate;{state}", MARK: VIEWS_VERSION})


def decode(tag: str) -> dict[str, Any]:
    """The settings inside a tag."""
    packed = json.loads(tag)["state"].removeprefix("deflate;")
    return dict(json.loads(zlib.decompress(base64.b64decode(packed))))


def page_state() -> dict[str, Any]:
    """Settings of the page of runs; table and charts take what concerns them."""
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
        "isAccordionReordered": True,  # MLflow adds a section of bars, and would put it first by its name
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
