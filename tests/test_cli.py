from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cellflow import cli
from cellflow.cli.parsing import parse
from cellflow.config import (
    CalibrateConfig,
    ChainConfig,
    DemoConfig,
    FoldsConfig,
    GridConfig,
    InferenceConfig,
    MaskConfig,
    ModelConfig,
    OofConfig,
    OptimConfig,
    OutputConfig,
    PredictConfig,
    TrainConfig,
    check_config,
    config_differences,
    config_to_dict,
)
from cellflow.config.recipes import CELLPOSE, filled
from cellflow.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]


def parsed(monkeypatch: pytest.MonkeyPatch, *words: str) -> TrainConfig:
    """The config that `cellflow train` hands to the engine for these words."""
    seen: list[TrainConfig] = []
    command = cli.Command(TrainConfig, seen.append)
    monkeypatch.setitem(cli.COMMANDS, "train", command)
    cli.run_command("train", words)
    return seen[0]


@pytest.mark.parametrize(
    ("words", "optimizer", "rate"),
    [
        ((), "sgd", 0.2),
        (("--sgd",), "sgd", 0.2),
        (("--SGD",), "sgd", 0.2),
        (("--SGD", "1"), "sgd", 0.2),
        (("--SGD=0",), "adamw", 0.005),
        (("--sgd", "0"), "adamw", 0.005),
        (("--SGD", "0"), "adamw", 0.005),
        (("--adam",), "adamw", 0.005),
        (("--adam", "--learning_rate", "0.01"), "adamw", 0.01),
    ],
)
def test_optimizer_flags(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], optimizer: str, rate: float
) -> None:
    optim = filled(parsed(monkeypatch, *words), CELLPOSE).optim
    assert (optim.optimizer, optim.peak_learning_rate) == (optimizer, rate)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--SGD=False",), "--SGD takes 0, 1 or nothing, found 'False'"),
        (("--adam=0",), "--adam takes no value"),
        (("--sgd", "--adam"), "contradict"),
    ],
)
def test_optimizer_flags_that_make_no_sense(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as stop:
        parsed(monkeypatch, *words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_as_the_user_wrote_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parsed(monkeypatch, "--fold", "2", "--sgd")
    assert config.fold == ("2",)
    assert config.optim.optimizer == "sgd"
    assert config.eval_every == 50


def test_hyphens_underscores_and_cellpose_names(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "--dir d --pretrained_model m --chan 2 --chan2 1 --n-epochs 3 --batch_size 2 --min_train_masks 1"
    config = parsed(monkeypatch, *words.split(), "--cellprob_threshold", "-1", "--fold", "0", "1")
    assert config.data == Path("d")
    assert (config.model.pretrained_model, config.model.chan, config.model.chan2) == ("m", 2, 1)
    assert (config.optim.n_epochs, config.optim.batch_size) == (3, 2)
    assert config.mask.cellprob_threshold == -1
    assert config.fold == ("0", "1")
    assert parsed(monkeypatch, "--init", "x").model.pretrained_model == "x"


@pytest.mark.parametrize("flag", ["--model", "--pretrained_model", "--pretrained-model"])
def test_the_model_of_a_prediction_by_cellposes_name(flag: str) -> None:
    config = parse("predict", ["images", flag, "cyto3"], config=PredictConfig)
    assert config.model == "cyto3"


def test_all_problems_at_once() -> None:
    config = TrainConfig(
        fold=("two",),
        name="a/b",
        optim=OptimConfig(batch_size=0),
        model=ModelConfig(chan=0, chan2=2),
    )
    with pytest.raises(ConfigError) as error:
        check_config(config)
    text = str(error.value)
    for part in ("--fold", "two", "--name", "--batch_size", "--chan2", "4 problems"):
        assert part in text


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(seed=2**64),
        TrainConfig(fold=("²",)),
        TrainConfig(mask=MaskConfig(cellprob_threshold=float("nan"))),
        TrainConfig(optim=OptimConfig(learning_rate=float("inf"))),
        TrainConfig(optim=OptimConfig(schedule="cellpose", n_epochs=1)),
        DemoConfig(unseen=0),
        FoldsConfig(k=1),
        FoldsConfig(calibration=1.0),
        InferenceConfig(diameter=-1),
        InferenceConfig(scales=()),
        OutputConfig(name="a/b"),
        OutputConfig(export=()),
        GridConfig(n_thresholds=0),
        GridConfig(min_sizes=()),
        GridConfig(n_thresholds=3000, threshold_step=0.01),
        CalibrateConfig(runs=("a", "a")),
        CalibrateConfig(shrinkage=-1),
        OofConfig(diameter=3, policy="type"),
        ChainConfig(train=TrainConfig(fold=("1",))),
    ],
)
def test_single_problems(config: object) -> None:
    with pytest.raises(
        ConfigError,
        match=r"found|learning rate of 0|needs at least|exclude|nothing would|named twice|one fold",
    ):
        check_config(config)


def test_config_as_plain_types_and_differences() -> None:
    old = config_to_dict(TrainConfig())
    new = config_to_dict(TrainConfig(seed=1, optim=OptimConfig(n_epochs=7)))
    assert old["data"] == "cellflow-data"
    assert config_differences(old, new) == ["optim.n_epochs: 500 -> 7", "seed: 0 -> 1"]


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cellflow", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def test_help_and_unknown_command(tmp_path: Path) -> None:
    shown = run("--help", cwd=tmp_path)
    assert shown.returncode == 0
    for name in cli.COMMANDS:
        assert f"  {name} " in shown.stdout
    wrong = run("trian", cwd=tmp_path)
    assert wrong.returncode != 0
    assert "no command 'trian'" in wrong.stderr
    assert run("--version", cwd=tmp_path).stdout.startswith("cellflow ")


def test_nothing_prepared_yet(tmp_path: Path) -> None:
    wrong = run("train", "--fold", "2", "--sgd", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "cellflow-data" in wrong.stderr
    assert "cellflow prepare" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert list(tmp_path.iterdir()) == []


def test_import_is_light() -> None:
    code = (
        "import sys, cellflow; dir(cellflow)\n"
        "heavy = {'torch', 'numba', 'pandas', 'cv2', 'skimage', 'zarr'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names_exist_and_are_in_the_stub() -> None:
    import cellflow

    stub = (ROOT / "cellflow" / "__init__.pyi").read_text()
    for name in cellflow.__all__:
        assert getattr(cellflow, name) is not None
        assert f" as {name}\n" in stub
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        cellflow.nothing  # noqa: B018


@pytest.mark.parametrize("script", ["train_folds", "oof", "ensemble"])
def test_scripts_are_real_entry_points(script: str) -> None:
    path = ROOT / "scripts" / f"{script}.py"
    done = subprocess.run(
        [sys.executable, str(path), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{script}.py" in done.stdout
    assert len(path.read_text().splitlines()) <= 30


def test_flags_go_on_top_of_a_config_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("command: train\nn_epochs: 7\noptim: {optimizer: adamw}\nseed: 3\n")
    found = parsed(monkeypatch, "--config", str(path), "--seed", "4")
    assert (found.optim.n_epochs, found.optim.optimizer, found.seed) == (7, "adamw", 4)
    assert parsed(monkeypatch, f"--config={path}", "--sgd").optim.optimizer == "sgd"


def test_a_config_file_that_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("epochs: 7\n")
    for words, message in (
        (["--config", str(path)], "epochs: no such setting; did you mean n_epochs?"),
        (["--config"], "--config takes a YAML file"),
        (["--config", str(tmp_path / "none")], "there is no such file"),
    ):
        with pytest.raises(SystemExit) as caught:
            cli.run_command("train", words)
        assert caught.value.code == 2
        assert message in capsys.readouterr().err


def test_after_prepare_comes_what_runs(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dataset that is written anew keeps its folds, so `folds` would refuse it."""
    for fix, source in (("keep", tiny_data), (None, tiny_data.parent / "source")):
        out = tmp_path / f"data-{fix}"
        words = ["prepare", str(source), "--out", str(out), *(["--fix", fix] if fix else [])]
        with pytest.raises(SystemExit) as end:
            cli.main(words)
        said = capsys.readouterr().out
        assert end.value.code in (0, None), said
        step = said[said.index("Next: cellflow ") :].split()[2]
        assert step == ("train" if fix else "folds"), said
        assert (out / "folds.csv").exists() == (step == "train")
