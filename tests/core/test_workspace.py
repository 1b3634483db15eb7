import pytest

from callboard.core.workspace import main_workspace, workspace_path


def test_the_main_workspace_is_the_one_dvc_names(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "a" / ".."))
    assert main_workspace() == tmp_path.resolve()
    assert workspace_path("calls/labels.csv") == tmp_path.resolve() / "calls" / "labels.csv"
    assert workspace_path("/elsewhere/x").as_posix() == "/elsewhere/x"


@pytest.mark.parametrize("value", ["", None])
def test_without_dvc_it_is_the_current_folder(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    if value is not None:
        monkeypatch.setenv("DVC_ROOT", value)
    assert main_workspace() == tmp_path.resolve()
