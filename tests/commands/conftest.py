from collections.abc import Callable

import pytest

from callboard.cli import main
from tests.conftest import Workspace


@pytest.fixture
def callboard(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run the command in a finished workspace, and return what it printed."""
    monkeypatch.chdir(workspace.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(workspace.root))
    monkeypatch.setenv("CALLBOARD_DEVICE", "cpu")

    def run(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["callboard", *arguments])
        main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(callboard: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail, and return its error."""

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            callboard(*arguments)
        assert ended.value.code == 1
        return capsys.readouterr().err

    return run
