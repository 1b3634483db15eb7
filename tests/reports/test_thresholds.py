from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from callboard.analysis.thresholds.choice import choose_thresholds
from callboard.core.errors import UserError
from callboard.reports.thresholds import draw_thresholds, format_thresholds, judged_evidence
from tests.analysis.test_thresholds import Reviewed, cells, drawn, evidence, half


@pytest.fixture
def june(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reviewed:
    """Predictions in the default folder, in a workspace in which every result has one detector."""
    monkeypatch.chdir(tmp_path)
    made = Reviewed(tmp_path / "predictions/mine")
    made.judge(("a.wav", 0, 2, "x1", 0.4, "absent"))
    monkeypatch.setattr("callboard.scoring.result_detector.load_detector", lambda *_: made.detector)
    return made


def result(blend: str) -> Any:
    return SimpleNamespace(name="mine", params={"infer.blend": blend})


BLEND = '["first@0123456789abcdef", "second@0123456789abcdef"]'


def test_a_blend_has_thresholds_from_verdicts_alone(june: Reviewed) -> None:
    found = judged_evidence(result(BLEND), [])
    assert list(found) == ["3", "07", "x1"]
    assert {one.kind for one in found.values()} == {"verdicts"}
    assert found["x1"].cells.n_absent == 1
    (june.folder / "verdicts.csv").unlink()
    with pytest.raises(UserError, match=r"mine is a blend, which has no out-of-fold scores.*--verdicts"):
        judged_evidence(result(BLEND), [])


def test_verdicts_on_a_different_detector_are_left_out_unless_named(
    june: Reviewed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = {"x1": evidence(half(2, 3), "boxes")}
    monkeypatch.setattr("callboard.reports.thresholds.box_evidence", lambda *_: boxes)
    assert judged_evidence(result("[]"), []).keys() == {"x1"}
    june.describe(key="different")
    assert judged_evidence(result("[]"), []) == boxes
    assert "has predictions of theirs@4567, not of mine@0123" in capsys.readouterr().err
    with pytest.raises(UserError, match="has predictions of theirs@4567"):
        judged_evidence(result("[]"), [june.folder])


def test_nothing_judged_is_said(june: Reviewed) -> None:
    june.judge(("a.wav", 0, 2, "x1", 0.4, "unsure"))
    with pytest.raises(UserError, match="no species has a judged box or a verdict of present or absent"):
        judged_evidence(result(BLEND), [])


def test_table_and_plot_show_every_species(tmp_path: Path) -> None:
    wrong = cells(np.linspace(0.2, 0.9, 30), np.arange(30) % 2)
    chosen = choose_thresholds(
        {"frog": evidence(drawn(80, slope=2.0)), "03": evidence(half(2, 2), "boxes"), "owl": evidence(wrong)},
        0.7,
    )
    lines = format_thresholds(chosen).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["frog", "03", "owl"]
    assert lines[1].split()[-3:] == [
        f"{chosen[0].evidence.cells.n_present}",
        f"{chosen[0].evidence.cells.n_absent}",
        "verdicts",
    ]
    assert "too few" in lines[2]
    assert "not reached" in lines[3]
    assert "at best 0." in lines[3]
    assert lines[4] == "  1 species from boxes, out of fold: they hold for recordings like the training ones"
    assert lines[5] == "  2 species from verdicts: they hold for the recordings that were reviewed"
    assert lines[6].startswith("  too few: fewer than 20 judged")
    for name in ("once", "again"):
        draw_thresholds(chosen, 0.7, tmp_path / f"{name}.png")
    assert (tmp_path / "once.png").read_bytes() == (tmp_path / "again.png").read_bytes()
