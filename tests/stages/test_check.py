import subprocess
import sys
from pathlib import Path

import pytest

from callboard.core.errors import UserError
from callboard.results.mlflow.connection import tracking_uri
from stages import check

ROOT = Path(__file__).parent.parent.parent


def test_what_it_writes_does_not_depend_on_the_parameters(tmp_path: Path) -> None:
    text = (ROOT / "tests/params.yaml").read_text()
    (tmp_path / "other.yaml").write_text(text.replace("lr: 0.001", "lr: 0.002"))
    check.main([str(ROOT / "tests/params.yaml"), str(tmp_path / "deep/a.ok")])
    check.main([str(tmp_path / "other.yaml"), str(tmp_path / "b.ok")])
    assert (tmp_path / "deep/a.ok").read_text() == (tmp_path / "b.ok").read_text()


def test_unsound_parameters_leave_no_verdict(tmp_path: Path) -> None:
    text = (ROOT / "tests/params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(f"{text}\nfoo:\n  bar: 1\n")
    with pytest.raises(UserError, match="foo: unknown parameter"):
        check.main([str(tmp_path / "params.yaml"), str(tmp_path / "params.ok")])
    assert not (tmp_path / "params.ok").exists()


def test_a_folder_that_mlflow_cannot_use_stops_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "q?x"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    arguments = [str(ROOT / "tests/params.yaml"), str(tmp_path / "params.ok")]
    with pytest.raises(UserError, match=r"workspace .*/q\?x: MLflow cannot have its database"):
        check.main(arguments)
    assert not (tmp_path / "params.ok").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    check.main(arguments)
    assert tracking_uri() == "http://127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///own.db")
    with pytest.raises(UserError, match="MLflow cannot have its database"):
        tracking_uri()


def test_it_imports_nothing_heavy() -> None:
    code = "import sys, stages.check; print({'torch', 'pandas', 'numpy'} & set(sys.modules))"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "set()"
