"""MLflow's pages as a person sees them: driven in a headless Chromium on results of known numbers."""

import json
import os
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from callboard.params.base import read_tree
from callboard.results.mlflow.record import Origin
from callboard.results.mlflow.track import record
from tests.conftest import ROOT, merge, start_callboard
from tests.toy_browser import IN_BROWSER, SCREENSHOTS, WAIT_MS, chromium
from tests.toy_results import result_in, write_workspace

pytestmark = IN_BROWSER

EXPERIMENTS: dict[str, tuple[dict[str, Any], float, float | None]] = {
    "exp0001": ({"loss": {"neg_mask": "none"}, "seed": 1}, 0.61234, 0.58123),
    "exp0005": ({"loss": {"neg_mask": "none"}, "seed": 5}, 0.61534, 0.53923),
    "exp0014": ({"optim": {"lr": 0.0005}}, 0.56789, 0.55111),
    "exp0031": ({"mixup": {"mode": "none"}}, 0.63456, 0.60222),
    "exp0045": ({"clip": {"n_frames": 320}}, 0.66001, 0.61333),
    "exp0051": ({"train": {"epochs": 20}}, 0.70123, 0.65444),
    "exp0058": ({"loss": {"neg_mask": "seq"}}, 0.71357, 0.66555),
    "exp0059": ({"loss": {"neg_mask": "clip"}}, 0.72468, None),
}
"""Overrides, CV, public LB; private LB is 0.01 below. The last one has no LB yet."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A main workspace with a database of EXPERIMENTS, and nothing else."""
    main = tmp_path_factory.mktemp("main")
    shutil.copy(empty_database, main / "mlflow.db")
    (main / "dvc.yaml").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(main))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name, (changes, cv, lb) in EXPERIMENTS.items():
            folder = write_workspace(main / "runs" / name, name)
            tree = read_tree(ROOT / "tests/params.yaml")
            merge(tree, {"split": {"folds": [0, 1]}} | changes)
            YAML().dump(tree, folder / "params.yaml")
            (folder / "metrics/cv.json").write_text(json.dumps({"cv": {"lwlrap": cv}}))
            scores = {} if lb is None else {"public": lb, "private": round(lb - 0.01, 5)}
            (folder / "metrics/lb.json").write_text(json.dumps({"lb": scores}))
            record(result_in(folder), Origin(name, "c0ffee0"))
    return main


@pytest.fixture(scope="module")
def addresses(workspace: Path) -> Iterator[list[str]]:
    """The two that `callboard ui` prints; it is interrupted at the end and must take its server along."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "PYTHONPATH"))}
    ui = start_callboard(["ui", "--no-browser", "--port", str(port)], workspace, clean)
    assert ui.stdout
    printed = []
    for line in ui.stdout:
        printed.append(line)
        if line.startswith("Ctrl-C"):
            break
    else:
        pytest.fail("".join(printed))
    yield re.findall(r"http://\S+", "".join(printed))
    ui.send_signal(signal.SIGINT)
    assert ui.wait(20) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)), "the server outlived callboard ui"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page of a person who has never been here; its last look becomes a screenshot."""
    page = browser.new_page(viewport={"width": 1400, "height": 800})
    page.set_default_timeout(WAIT_MS)
    yield page
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{request.node.name.removeprefix('test_')}.png")
    page.close()


def open_table(page: Any, address: str) -> None:
    page.goto(address)
    page.get_by_role("link", name="exp0058").wait_for()
    close_assistant(page)


def close_assistant(page: Any) -> None:
    """MLflow opens a chat window on the first visit, over a third of the page."""
    close = page.get_by_role("button", name="Close")
    if close.count():
        close.first.click()


def column(page: Any, name: str) -> list[str]:
    """Texts of a column of the table, from above."""
    cells = page.locator(f'.ag-center-cols-container [role=gridcell][col-id="{name}"]')
    rows = cells.evaluate_all(
        "cells => cells.map(c => [+c.closest('[role=row]').getAttribute('row-index'), c.innerText.trim()])"
    )
    return [text for _, text in sorted(rows)]


def compare(page: Any, address: str, *names: str) -> None:
    """Tick runs by name and press Compare."""
    open_table(page, address)
    for name in names:
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))
        row.locator(".ag-selection-checkbox").click()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text(f"Comparing {len(names)} Runs from 1 Experiment").wait_for()


def axes(page: Any) -> list[str]:
    """Titles of the axes of the scatter that is seen."""
    titles = page.locator(".js-plotly-plot:visible .xtitle, .js-plotly-plot:visible .ytitle")
    return list(titles.all_text_contents())


def test_the_table_shows_cv_and_lb_of_every_result_sorted_by_lb(page: Any, addresses: list[str]) -> None:
    open_table(page, addresses[0])
    page.get_by_text("8 matching runs").wait_for()
    by_lb = sorted(EXPERIMENTS.values(), key=lambda row: -(row[2] or 0))
    assert column(page, "metrics.`lb.public`") == [str(lb or "-") for _, _, lb in by_lb]
    assert column(page, "metrics.`cv.lwlrap`") == [str(cv) for _, cv, _ in by_lb]
    assert column(page, "metrics.`lb.private`")[0] == "0.65555"
    assert column(page, "params.`loss.neg_mask`")[0] == "seq"


def test_the_chart_draws_cv_against_lb(page: Any, addresses: list[str]) -> None:
    page.goto(addresses[1])
    page.get_by_role("link", name="exp0058").wait_for()
    close_assistant(page)
    page.locator(".js-plotly-plot .ytitle", has_text="lb.private").wait_for()
    assert {"cv.lwlrap", "lb.public", "lb.private"} <= set(axes(page))
    points = page.locator(".js-plotly-plot").first.locator(".scatterlayer .point").all()
    visible = [point for point in points if point.is_visible()]
    assert len(visible) == 7  # the one without LB is left out


def test_compared_runs_show_cv_and_lb_as_parallel_coordinates(page: Any, addresses: list[str]) -> None:
    compare(page, addresses[0], "exp0058", "exp0051", "exp0031")
    page.get_by_text("Metrics:").wait_for()
    titles = page.locator(".js-plotly-plot:visible .axis-title")
    titles.first.wait_for()
    shown = titles.all_text_contents()  # MLflow chooses some parameters and one metric by itself
    page.locator("#dubois-select-2").click()
    for metric in {"cv.lwlrap", "lb.public", "lb.private"} - set(shown):
        page.locator(f'[class*="select-item-option"][title="{metric}"]').click()
    for metric in ("cv.lwlrap", "lb.public", "lb.private"):
        titles.filter(has_text=metric).wait_for()
    page.keyboard.press("Escape")
    assert "loss.neg_mask" in titles.all_text_contents()


def test_compared_runs_show_cv_against_lb_as_points(page: Any, addresses: list[str]) -> None:
    compare(page, addresses[0], "exp0058", "exp0051", "exp0031")
    page.get_by_role("tab", name="Scatter Plot").click()
    for axis, metric in (("x", "cv.lwlrap"), ("y", "lb.public")):
        page.locator(f"#{axis}-axis-selector").click()
        page.get_by_role("option", name=metric, exact=True).click()
    page.locator(".js-plotly-plot:visible .ytitle", has_text="lb.public").wait_for()
    assert sorted(axes(page)) == ["cv.lwlrap", "lb.public"]
    plot = page.locator(".js-plotly-plot:visible")
    drawn = plot.evaluate(
        "plot => plot.data.flatMap(d => d.x.map((x, i) => [x, d.y[i]]))"
    )  # on a WebGL canvas
    assert sorted(drawn) == [[0.63456, 0.60222], [0.70123, 0.65444], [0.71357, 0.66555]]


def test_folds_fold_under_their_run_where_the_filter_is_cleared(page: Any, addresses: list[str]) -> None:
    open_table(page, addresses[0])
    assert not page.get_by_role("link", name="r0-fold0").count()
    search = page.get_by_placeholder(re.compile("metrics"))
    search.fill("")
    search.press("Enter")
    page.get_by_text("24 matching runs").wait_for()
    page.locator(
        '[role=columnheader][col-id="runDateAndNestInfo"]'
    ).click()  # sorted by a metric, MLflow nests nothing
    parent = page.get_by_role("row").filter(has=page.get_by_role("link", name="exp0058", exact=True))
    parent.get_by_role("button").first.click()
    page.get_by_role("link", name="r0-fold0").first.wait_for()


def test_a_runs_page_has_note_parameters_metrics_and_dataset(page: Any, addresses: list[str]) -> None:
    open_table(page, addresses[0])
    page.get_by_role("link", name="exp0058").click()
    page.get_by_role("heading", name="exp0058").wait_for()
    for text in ("loss.neg_mask", "lb.public", "0.71357", "0.66555", "demo", "Against c0ffee0"):
        page.get_by_text(text).first.wait_for()
