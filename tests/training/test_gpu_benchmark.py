"""benchmarks/gpu.py, on the CPU device."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import Measured, Recipe, measure, noise, read_recipe, report, steps_of
from callboard.training.batches import BatchSource
from tests.toy_training import CPU

PRESET = """
set:
  audio.sample_rate: 24000
  features.hop_length: 384
  features.n_mels: 32
  split.folds: [0, 1]
  clip.n_frames: 64
  clip.offsets: [16, 32]
  model.pretrained: true
  model.backbone: resnet18
  model.backbone_args: {layers: [1, 1, 1, 1], channels: [8, 8, 8, 8], stem_type: deep, stem_width: 4}
  train.epochs: 3
  train.batch_size: 4
  train.fp_per_epoch: 2
"""


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(PRESET)
    return path


@pytest.fixture
def recipe(preset: Path) -> Recipe:
    return read_recipe(preset, 30)


def test_without_a_gpu_one_sentence_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(gpu.DEVICES, "cuda", lambda: False)
    assert gpu.main([]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert printed.err.startswith("no cuda device here")


def test_the_data_have_the_size_of_the_preset(recipe: Recipe) -> None:
    data = noise(recipe)
    assert data.frames.shape == (30 * 3751, 32)
    source = BatchSource(data, recipe.params, 0, CPU, 1).epoch(0)
    assert source.n_items == recipe.n_shown == 6
    assert recipe.clips_per_step("folds") == source.n_items / source.n_batches
    assert recipe.clips_per_step("bare") == len(next(source).image)


def test_a_report_by_hand(recipe: Recipe) -> None:
    rates = {("bare", 1): [100.0], ("folds", 1): [80.0], ("folds", 2): [64.0, 56.0]}

    def run(kind: str, n: int) -> list[Measured] | None:
        return [Measured(rate, 8.0) for rate in rates[kind, n]] if (kind, n) in rates else None

    assert list(report(recipe, torch.device("cuda"), [1, 2, 4, 8], run)) == [
        "resnet18, batches of 4, 8 clips an epoch, 2 folds of 3 epochs",
        "bare step: 100 clips/s",
        "1 fold at a time: 80 clips/s in all, 0.80 of the bare step, 8.0 GB of the card each",
        "2 folds at a time: 120 clips/s in all, 1.20 of the bare step, 4.0 GB of the card each",
        "4 folds at a time: memory does not suffice",
        "best: 2 folds at a time on a card (--gpus-per-job 0.5); "
        f"the full recipe takes {2 * 3 * 8 / 120 / 60:.1f} minutes of the card",
    ]


@pytest.mark.parametrize("kind", gpu.TURNS)
def test_steps_are_counted_in_clips(recipe: Recipe, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 2.0, 3.0])
    steps = steps_of(recipe, kind, CPU)
    monkeypatch.setattr(gpu.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(gpu, "N_STEPS", 1)
    assert measure(3.0, steps, CPU, 2.5).clips_per_s == 2 * 3.0 / 3.0


@pytest.mark.slow
def test_several_folds_are_processes_that_measure_at_once(preset: Path) -> None:
    script = Path(gpu.__file__)
    small = ["--device", "cpu", "--folds", "1", "2", "--seconds", "0.5", "--recordings", "30"]
    command = [sys.executable, str(script), *small, "--preset", str(preset)]
    done = subprocess.run(command, cwd=preset.parent, capture_output=True, text=True, check=True)
    assert len(re.findall(r"folds? at a time: [1-9]\d* clips/s in all", done.stdout)) == 2
    assert re.search(r"^best: . folds? at a time .* \d+\.\d minutes of the card$", done.stdout, re.MULTILINE)
