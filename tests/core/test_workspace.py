import pytest

from callboard.core.errors import UserError
from callboard.core.workspace import main_workspace, refuse_unusable_name, workspace_path


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


@pytest.mark.parametrize("name", ["q?x", "a%20b"])
def test_a_folder_beside_which_mlflow_would_put_its_database_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / name / "workspace"))
    with pytest.raises(UserError, match=r"MLflow cannot have its database in a folder with '[?%]' in"):
        refuse_unusable_name()
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "a #b"))
    refuse_unusable_name()
