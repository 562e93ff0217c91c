from __future__ import annotations

import logging
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import cellflow
from cellflow.config import (
    FoldsConfig,
    ModelConfig,
    OofConfig,
    OptimConfig,
    PrepareConfig,
    RuntimeConfig,
    SamplingConfig,
    TrainConfig,
)

# Crops of tests are too small to share between threads, and threads that wait for each other are slow
# beside whatever else the machine does. Before torch is imported; child processes take it over.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Hundreds of tests make networks of their own, and each conversion takes a second; tests of the engines
# name theirs.
os.environ.setdefault("CELLFLOW_ENGINE", "torch")

sys.path.insert(0, str(Path(__file__).parent))  # model_server, narrow
sys.path.insert(0, str(Path(__file__).parent / "storage"))  # faults
sys.path.insert(0, str(Path(__file__).parent / "io"))  # fake_kaggle, zarr_files
sys.path.insert(0, str(Path(__file__).parent / "package"))  # docker_steps
sys.path.insert(0, str(Path(__file__).parent / "tracking"))  # fake_wandb, wandb_file

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that train and predict most come first: one that comes last keeps one process busy and the others idle."""
    cost: Counter[Path] = Counter()
    for item in items:
        works = not {"tiny_config", "shared"}.isdisjoint(getattr(item, "fixturenames", ()))
        cost[item.path] += 10 if item.get_closest_marker("slow") else int(works)
    items.sort(key=lambda item: -cost[item.path])


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Files of tests need not outlive a power cut; what commands in processes of their own write is synced."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True)
def _torch_keeps_its_threads() -> Iterator[None]:
    """Other tests compare bytes, which differ between numbers of threads; napari changes it as it starts."""
    import torch  # not before the number of threads is set above

    threads = torch.get_num_threads()
    yield
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def _conversions_of_tests_lie_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's folder of conversions keeps those that the user needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELLFLOW_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _new_networks_are_narrow() -> Iterator[None]:
    """A training takes a third of the time. Commands in processes of their own make networks of full width."""
    from narrow import NarrowUNet, new_networks

    with new_networks(NarrowUNet):
        yield


@pytest.fixture
def full_width() -> Iterator[None]:
    """New networks are of Cellpose's size, as a user's are."""
    from narrow import new_networks

    from cellflow.nn.networks import UNet

    with new_networks(UNet):
        yield


@pytest.fixture(autouse=True)
def fresh_logger() -> None:
    """What a command of an earlier test set up for its console does not change what this one logs."""
    logger = logging.getLogger("cellflow")
    logger.setLevel(logging.NOTSET)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real images and a real model, kept outside the repository."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"needs the real images and models in {SHARED}, which are not there")
    return SHARED


# What tests share: heavy modules are imported where they are needed, for the many tests that need none.


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small images of three types as a person would bring them, with their masks and a table."""
    import pandas as pd
    from skimage.io import imsave

    from cellflow.io.images import write_labels
    from cellflow.synthetic import synthetic_dataset

    folder = tmp_path_factory.mktemp("tiny") / "source"
    (folder / "images").mkdir(parents=True)
    rows = []
    for item in synthetic_dataset(6, shape=(96, 112), seed=5, per_group=1):
        imsave(folder / "images" / f"{item.id}.png", item.image, check_contrast=False)
        write_labels(folder / "masks" / f"{item.id}.tif", item.labels)
        rows.append({"id": item.id, "cell_type": item.cell_type, "group": item.group})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def tiny_data(tiny_source: Path) -> Path:
    """Prepared and split in two folds."""
    data = tiny_source.parent / "data"
    cellflow.prepare(PrepareConfig(source=tiny_source, out=data, table=tiny_source / "table.csv"))
    cellflow.make_folds(FoldsConfig(data=data, k=2))
    return data


@pytest.fixture(scope="session")
def tiny_config(tiny_data: Path) -> TrainConfig:
    """A training of seconds."""
    return TrainConfig(
        data=tiny_data,
        runs_dir=tiny_data.parent / "runs",
        name="tiny",
        eval_every=2,
        recipe="cellpose",
        model=ModelConfig(diam_mean=17.0),
        optim=OptimConfig(optimizer="adamw", schedule="cosine", n_epochs=3, batch_size=2),
        sampling=SamplingConfig(bsize=64, min_train_masks=1),
        runtime=RuntimeConfig(device="cpu", amp="off"),
    )


@pytest.fixture(scope="session")
def trained(tiny_config: TrainConfig) -> TrainConfig:
    """Config of a run whose two folds are trained; tests read it, or copy it with `copied`."""
    cellflow.train(tiny_config)
    return tiny_config


@pytest.fixture(scope="session")
def predicted_once(trained: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """The trained run, predicted out of fold at the dataset's diameter; copy it with `predicted`."""
    return predict_out_of_fold(copy_runs(trained, tmp_path_factory.mktemp("predicted")))


@pytest.fixture(scope="session")
def second_once(trained: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """The run of another seed, `second`, likewise."""
    folder = tmp_path_factory.mktemp("second")
    config = replace(trained, name="second", seed=1, runs_dir=folder / "runs")
    cellflow.train(config)
    return predict_out_of_fold(config)


@pytest.fixture
def copied(trained: TrainConfig, tmp_path: Path) -> TrainConfig:
    """The trained run in a folder of its own, free to be broken."""
    return copy_runs(trained, tmp_path)


@pytest.fixture
def predicted(predicted_once: TrainConfig, tmp_path: Path) -> TrainConfig:
    """The trained run with its out-of-fold predictions, free to be broken."""
    return copy_runs(predicted_once, tmp_path)


@pytest.fixture
def two_runs(predicted: TrainConfig, second_once: TrainConfig) -> TrainConfig:
    """The same with the run of another seed, `second`, beside it."""
    shutil.copytree(second_once.runs_dir / "second", predicted.runs_dir / "second")
    return predicted


def copy_runs(config: TrainConfig, folder: Path) -> TrainConfig:
    shutil.copytree(config.runs_dir, folder / "runs")
    return replace(config, runs_dir=folder / "runs")


def predict_out_of_fold(config: TrainConfig) -> TrainConfig:
    runtime = RuntimeConfig(device="cpu", amp="off")
    cellflow.oof(
        OofConfig(config.name, runs_dir=config.runs_dir, policy="dataset", runtime=runtime)
    )
    return config
