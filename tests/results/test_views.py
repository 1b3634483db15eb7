import json
from types import SimpleNamespace
from typing import Any

import pytest

from callboard.results.mlflow.views import (
    TAG,
    VIEW_METRICS,
    VIEWS,
    VIEWS_VERSION,
    address,
    decode,
    encode,
    page_state,
    write_views,
)

TABLE, CHART = VIEWS


class Client:
    """As much of MLflow's client as is used."""

    def __init__(self, **tags: str) -> None:
        self.tags = {TAG + key.replace("_", "-"): value for key, value in tags.items()}

    def get_experiment(self, experiment_id: str) -> Any:
        return SimpleNamespace(tags=dict(self.tags))

    def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        self.tags[key] = value


def written(client: Client) -> list[str]:
    return write_views(client, "1")  # type: ignore[arg-type]


def test_a_tag_holds_the_settings_in_the_form_that_mlflow_reads() -> None:
    tag = encode(TABLE, 1000)
    payload = json.loads(tag)
    assert payload["name"] == "CV | LB"
    assert payload["createdAt"] == payload["updatedAt"] == 1000
    assert payload["state"].startswith("deflate;eJ")  # base64 of a zlib header
    assert decode(tag) == page_state()
    assert len(tag) < 5000  # the most that MLflow takes in a tag of an experiment


def test_the_settings_show_results_with_cv_and_lb_and_draw_one_against_the_other() -> None:
    state = page_state()
    assert state["searchFilter"] == "tags.`callboard.kind` = 'cv' and attributes.status = 'FINISHED'"
    assert state["selectedColumns"][:3] == [f"metrics.`{key}`" for key in VIEW_METRICS]
    scatters = [chart for chart in state["compareRunCharts"] if chart["type"] == "SCATTER"]
    assert [(chart["xaxis"]["key"], chart["yaxis"]["key"]) for chart in scatters] == [
        ("cv.lwlrap", "lb.public"),
        ("cv.lwlrap", "lb.private"),
    ]
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} <= sections


def test_missing_views_are_written_once() -> None:
    client = Client()
    assert written(client) == ["CV | LB", "CV against LB"]
    assert written(client) == []


def test_an_older_view_of_ours_is_replaced() -> None:
    older = json.dumps(json.loads(encode(TABLE, 0)) | {"callboardVersion": VIEWS_VERSION - 1})
    client = Client(callboard_table=older, callboard_chart=encode(CHART, 0))
    assert written(client) == ["CV | LB"]


@pytest.mark.parametrize("theirs", ['{"name": "mine", "state": "deflate;eJyrrgUAAXUA+Q=="}', "no JSON", "[]"])
def test_a_view_that_a_person_has_saved_stays(theirs: str) -> None:
    client = Client(callboard_table=theirs, callboard_chart=encode(CHART, 0), other="theirs")
    assert written(client) == []
    assert client.tags[TAG + "callboard-table"] == theirs


def test_a_newer_view_stays() -> None:
    newer = json.dumps(json.loads(encode(TABLE, 0)) | {"callboardVersion": VIEWS_VERSION + 1})
    assert written(Client(callboard_table=newer, callboard_chart=newer)) == []


def test_an_address_names_the_view_and_its_mode() -> None:
    found = address("http://127.0.0.1:5000/", "1", CHART)
    assert found.startswith("http://127.0.0.1:5000/#/experiments/1/runs?")
    assert "compareRunsMode=CHART" in found
    assert "viewStateShareKey=callboard-chart" in found
