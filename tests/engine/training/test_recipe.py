"""What a training does where no setting says so."""

from __future__ import annotations

import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from cellflow.cli import main
from cellflow.config import ModelConfig, OptimConfig, SamplingConfig, TrainConfig
from cellflow.engine.training.recipe import settled_config
from cellflow.engine.training.train import train
from cellflow.errors import ConfigError, RunError
from cellflow.storage.run_folder import RunFolder


def cellflow(*words: str) -> int:
    """A command, and what it ends with."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)


def with_diameters(data: Path, folder: Path, diameters: list[float]) -> Path:
    """A copy of a dataset whose images have other diameters, as far as its table says."""
    shutil.copytree(data, folder)
    images = pd.read_csv(folder / "images.csv", dtype={"id": str})
    images["median_diameter"] = diameters
    images.to_csv(folder / "images.csv", index=False)
    return folder


@pytest.fixture
def begun(tiny_config: TrainConfig, tmp_path: Path) -> TrainConfig:
    """A fold that was trained for three epochs, by the recipe of a new run."""
    config = replace(tiny_config, runs_dir=tmp_path, fold=("0",), recipe=None)
    config = replace(config, optim=OptimConfig(n_epochs=3))
    train(config)
    return config


def test_cellpose_s_recipe_is_cellpose_s(tiny_data: Path) -> None:
    settled = settled_config(TrainConfig(data=tiny_data, recipe="cellpose"))
    optim, sampling = settled.optim, settled.sampling
    assert (optim.optimizer, optim.peak_learning_rate, optim.schedule) == ("sgd", 0.2, "cellpose")
    assert (optim.ema, optim.batch_size, optim.n_epochs) == (0.0, 8, 500)
    assert (sampling.rescale, sampling.targets, sampling.intensity) == ("image", "warp", 0.0)
    assert settled.eval_diameter == "dataset"
    assert settled_config(settled) == settled


def test_what_is_given_stays_under_every_recipe(
    tiny_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    optim = OptimConfig(
        optimizer="adamw", learning_rate=0.2, schedule="cosine", ema=0.0, batch_size=3
    )
    sampling = SamplingConfig(rescale="image", targets="recompute", intensity=0.5)
    config = TrainConfig(
        data=tiny_data, recipe="auto", optim=optim, sampling=sampling, eval_diameter="image"
    )
    with caplog.at_level("INFO"):
        settled = settled_config(config)
        assert settled == config
        assert settled.optim.peak_learning_rate == 0.2
        assert "recipe" not in caplog.text
        settled_config(replace(config, eval_diameter=None))
    assert "recipe auto: --eval_diameter dataset" in caplog.text
    assert "--optimizer" not in caplog.text


def test_a_new_run_takes_auto_and_with_sgd_what_cellpose_does(tiny_data: Path) -> None:
    plain = TrainConfig(data=tiny_data)
    assert settled_config(plain).optim == settled_config(replace(plain, recipe="auto")).optim
    assert settled_config(plain).optim.schedule == "constant"
    adam = replace(plain, optim=OptimConfig(optimizer="adamw"))  # --adam
    assert settled_config(adam) == settled_config(plain)
    sgd = replace(plain, optim=OptimConfig(optimizer="sgd"))  # --sgd
    of_cellpose = settled_config(replace(plain, recipe="cellpose"))
    for recipe in (None, "auto", "cellpose"):
        settled = settled_config(replace(sgd, recipe=recipe))
        assert replace(settled, recipe="cellpose") == of_cellpose


def test_auto_averages_more_weights_and_takes_whole_batches_in_long_trainings(
    tiny_data: Path,
) -> None:
    def auto(n_epochs: int, crops: int) -> OptimConfig:
        config = TrainConfig(
            data=tiny_data,
            recipe="auto",
            optim=OptimConfig(n_epochs=n_epochs),
            sampling=SamplingConfig(nimg_per_epoch=crops),
        )
        return settled_config(config).optim

    short, long = auto(70, 16), auto(500, 160)
    assert (short.optimizer, short.schedule, short.batch_size) == ("adamw", "constant", 4)
    assert long.batch_size == 8
    # a fifth of 280 steps
    assert short.ema == pytest.approx(1 - 1 / 56, abs=1e-4)
    assert long.ema == 0.999


def test_auto_takes_crops_at_the_scale_of_prediction(tiny_data: Path, tmp_path: Path) -> None:
    scales = {}
    for name, diameters in {"like": [20, 21, 22, 20, 21, 22], "apart": [9, 60, 25, 8, 50, 20]}.items():  # fmt: skip
        data = with_diameters(tiny_data, tmp_path / name, [float(each) for each in diameters])
        settled = settled_config(TrainConfig(data=data, recipe="auto"))
        scales[name] = settled.sampling.rescale, settled.eval_diameter
    assert scales == {"like": ("dataset", "dataset"), "apart": ("image", "image")}


def test_auto_goes_on_from_a_model_at_a_lower_rate(tiny_data: Path) -> None:
    def rate(**settings: object) -> float:
        model = ModelConfig(pretrained_model="some_model")
        optim = OptimConfig(**settings)  # type: ignore[arg-type]
        config = TrainConfig(data=tiny_data, recipe="auto", model=model, optim=optim)
        return settled_config(config).optim.peak_learning_rate

    assert rate() == 0.001
    assert rate(learning_rate=0.004) == 0.004
    assert rate(optimizer="sgd") == 0.2
    fresh = settled_config(TrainConfig(data=tiny_data, recipe="auto"))
    assert fresh.optim.peak_learning_rate == 0.005


def test_settings_that_do_not_go_with_the_recipe_are_refused(tiny_data: Path) -> None:
    config = TrainConfig(data=tiny_data, recipe="auto", optim=OptimConfig(momentum=0.8))
    with pytest.raises(ConfigError, match="--momentum has no effect on adamw"):
        settled_config(config)
    assert settled_config(replace(config, recipe="cellpose")).optim.momentum == 0.8


def test_a_run_of_the_recipe_from_files_to_files(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--data", str(tiny_data), "--runs_dir", str(tmp_path), "--fold", "0"]
    words += [
        "--n_epochs",
        "3",
        "--bsize",
        "64",
        "--diam_mean",
        "17",
        "--min_train_masks",
        "1",
        "--device",
        "cpu",
    ]
    assert cellflow(*words, "--recipe", "auto") == 0
    run = RunFolder(tmp_path / "exp")
    said = capsys.readouterr().err
    assert "recipe auto: --eval_diameter dataset --optimizer adamw --schedule constant" in said
    optim = run.read_record()["config"]["optim"]
    assert (optim["optimizer"], optim["batch_size"]) == ("adamw", 4)
    kept = yaml.safe_load(run.settings("train").read_text())
    assert kept["recipe"] == "auto"
    history = run.fold(0).history.read_bytes()

    assert cellflow(*words, "--recipe", "auto") == 0  # what is finished is not trained again
    assert cellflow("train", "--config", str(run.settings("train")), "--fold", "0") == 0
    assert cellflow(*words) == 0  # what is not said is as it was begun
    assert run.fold(0).history.read_bytes() == history
    capsys.readouterr()
    assert cellflow(*words, "--recipe", "cellpose") != 0
    assert "optim.optimizer: adamw -> sgd" in capsys.readouterr().err

    # for more epochs its settings stay what they are, and its warm-up takes as many
    words[words.index("--n_epochs") + 1] = "5"
    for recipe in (["--recipe", "auto"], []):
        assert cellflow(*words, *recipe) == 0
        longer = run.read_record()["config"]["optim"]
        assert longer["ema"] == optim["ema"]
        assert longer["warmup"] == pytest.approx(0.1 * 3 / 5)
    kept = pd.read_csv(run.fold(0).history, index_col="epoch")
    before = pd.read_csv(io.BytesIO(history), index_col="epoch")
    assert list(kept.index) == [1, 2, 3, 4, 5]
    assert (kept["train_loss"][:3] == before["train_loss"]).all()
    words[words.index("--n_epochs") + 1] = "7"  # a second time
    assert cellflow(*words, "--recipe", "auto") == 0
    assert run.read_record()["config"]["optim"]["warmup"] == pytest.approx(0.1 * 3 / 7)


def test_a_run_goes_on_as_it_was_begun_whatever_is_left_open(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    """Cellpose's recipe too, and what its owner gave; a new name has a new choice."""
    given = OptimConfig(optimizer="adamw", batch_size=3, n_epochs=1, ema=0.5, schedule="step")
    begun = replace(tiny_config, runs_dir=tmp_path, fold=("0",), recipe="cellpose", optim=given)
    train(begun)
    again = replace(begun, recipe=None, optim=OptimConfig(n_epochs=1))
    settled = settled_config(again)
    assert settled == settled_config(begun)
    assert settled.recipe == "cellpose"
    (result,) = train(again)
    assert result.finished == "epochs"
    other = settled_config(replace(again, name="other", optim=OptimConfig(n_epochs=3)))
    assert (other.optim.ema, other.optim.batch_size) != (0.5, 3)
    assert other.recipe == "auto"


def test_a_final_network_takes_what_its_folds_have_unless_it_is_another(
    begun: TrainConfig,
) -> None:
    final = replace(begun, fold=("none",))
    assert settled_config(final).optim == settled_config(begun).optim
    assert settled_config(replace(final, name="tiny-final")).optim == settled_config(begun).optim
    sgd = settled_config(replace(final, optim=OptimConfig(optimizer="sgd", n_epochs=3)))
    assert (sgd.optim.schedule, sgd.optim.ema, sgd.recipe) == ("cellpose", 0.0, "cellpose")
    cosine = settled_config(replace(final, optim=OptimConfig(schedule="cosine", n_epochs=3)))
    assert cosine.optim.warmup is None
    longer = replace(final, recipe="auto", optim=OptimConfig(n_epochs=5))
    (first,) = train(longer)
    assert train(longer) == [first]


def test_another_schedule_of_a_begun_run_is_refused_by_its_name(begun: TrainConfig) -> None:
    with pytest.raises(RunError, match="schedule: constant -> cellpose") as error:
        train(replace(begun, optim=OptimConfig(n_epochs=3, schedule="cellpose")))
    assert "ema" not in str(error.value)


def test_a_debug_run_of_auto_goes_on(tiny_config: TrainConfig, tmp_path: Path) -> None:
    """Its epochs are not those that its settings were chosen for."""
    config = replace(tiny_config, runs_dir=tmp_path, fold=("0",), debug=True, optim=OptimConfig())
    for recipe in (None, "auto"):
        named = replace(config, name=f"of_{recipe}", recipe=recipe)
        assert train(named) == train(named)


def test_the_settings_of_a_run_serve_for_more_epochs(
    begun: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(begun.runs_dir / begun.name)
    words = ["train", "--config", str(run.settings("train")), "--n_epochs", "4"]
    assert cellflow(*words) == 0, capsys.readouterr().err
    assert len(pd.read_csv(run.fold(0).history)) == 4
    # of the same learning rates as before, unless one asks for others
    words[-1] = "6"
    assert cellflow(*words, "--warmup", "0.5") != 0
    assert "with --warmup 0.5 gives a run of 4 epochs" in capsys.readouterr().err
    text = run.record_path.read_text()
    run.record_path.write_text(re.sub("warmup: .*", "warmup: many", text))
    assert cellflow(*words) != 0
    assert "Traceback" not in capsys.readouterr().err


def test_a_begun_run_of_which_the_record_is_damaged(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = replace(tiny_config, runs_dir=tmp_path, fold=("0",))
    train(replace(config, optim=replace(config.optim, n_epochs=1)))
    record = RunFolder(tmp_path / config.name).record_path
    text = record.read_text()
    record.write_text(re.sub("batch_size: .*", "batch_size: many", text))
    with pytest.raises(ConfigError, match=f"{record}(.|\\n)*batch_size: expected .*'many'"):
        train(replace(config, recipe=None, optim=OptimConfig(n_epochs=1)))
