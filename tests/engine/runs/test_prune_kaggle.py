"""`cellflow prune --kaggle`, from the command to a server that answers what Kaggle's own client asks."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from fake_kaggle import KEY, FakeDataset, FakeKaggle, Version

from cellflow.cli import main
from cellflow.config import TrainConfig
from cellflow.config.catalog import PruneConfig
from cellflow.config.publishing import PublishConfig
from cellflow.engine.publishing.publish import publish
from cellflow.engine.runs.prune import plan_prune, prune
from cellflow.storage.run_folder import RunFolder

pytest.importorskip("kaggle", reason="needs the extra: pip install cellflow[kaggle]")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeKaggle]:
    monkeypatch.chdir(tmp_path)
    with FakeKaggle() as server:
        server.point_client(monkeypatch, tmp_path / "home")
        yield server


def facts(name: str = "exp", **changes: Any) -> dict[str, Any]:
    """What `metadata.json` says of a run, as far as it matters here."""
    models = [{"fold": 0, "hash": "h0"}, {"fold": 1, "hash": None}]
    return {
        "format": "cellflow-metadata", "version": 1, "experiment": name, "debug": False,
        "created": "2026-01-01T00:00:00+00:00", "data": {"hash": "d", "path": "data"},
        "split": {"id": "s", "folds": [0, 1]}, "model": {"folds": models}, **changes,
    }  # fmt: skip


def a_run(name: str = "exp", published: str | None = "ada/exp-0-4", **changes: Any) -> RunFolder:
    """A run in the folder `runs`, which was published last as a dataset."""
    run = RunFolder(Path("runs", name))
    run.fold(0).path.mkdir(parents=True)
    run.metadata.write_text(json.dumps(facts(name, **changes)))
    if published is not None:
        url = f"https://www.kaggle.com/datasets/{published}"
        run.publication.write_text(json.dumps({"to": "kaggle", "url": url}))
    return run


def a_dataset(
    server: FakeKaggle, slug: str, *versions: dict[str, Any] | None, day: int = 1, **given: Any
) -> FakeDataset:
    """A dataset with what each of its versions says of a run."""
    kept = [
        {"a.txt": b"a"} if item is None else {"metadata.json": json.dumps(item).encode()}
        for item in versions
    ]
    updated = f"2026-01-{day:02d}T00:00:00Z"
    dataset = FakeDataset(
        slug, True, "unknown", [Version(files) for files in kept], updated=updated
    )
    for name, value in given.items():
        setattr(dataset, name, value)
    server.datasets[f"ada/{slug}" if "/" not in slug else slug] = dataset
    return dataset


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit code of `cellflow prune`, and what it says."""
    with pytest.raises(SystemExit) as left:
        main(["prune", *words])
    said = "".join(capsys.readouterr())
    assert KEY not in said
    return int(left.value.code or 0), said


def test_a_run_that_was_published_again(
    server: FakeKaggle,
    trained: TrainConfig,
    copied: TrainConfig,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From publishing to removing, with all that a published run has."""
    place = ["--runs_dir", str(copied.runs_dir), "--kaggle"]
    config = PublishConfig("tiny", runs_dir=copied.runs_dir, title="tiny run", wheels="none")
    publish(config)
    publish(PublishConfig("tiny", runs_dir=copied.runs_dir, title="tiny again", wheels="none"))
    server.datasets["ada/tiny-again"].updated = "2026-02-01T00:00:00Z"
    assert sorted(server.datasets) == ["ada/tiny-again", "ada/tiny-run"]

    code, said = command(capsys, *place)
    assert code == 0 and "Nothing was removed" in said
    assert "dataset tiny run, https://www.kaggle.com/datasets/ada/tiny-run" in said
    assert (
        "superseded by https://www.kaggle.com/datasets/ada/tiny-again; private, 1 version" in said
    )
    assert "its models are those of" in said and len(server.datasets) == 2

    code, said = command(capsys, *place, "--yes")
    assert code == 0 and "Removed elsewhere: 1 item" in said
    assert list(server.datasets) == ["ada/tiny-again"]


OTHER_MODELS = {"model": {"folds": [{"fold": 0, "hash": "of before"}]}}


@pytest.mark.parametrize(
    ("said", "dataset"),
    [
        ("of a debug run; private, 1 version", [facts("gone-debug", debug=True)]),
        ("of a debug run; private, 2 versions", [facts("exp", debug=True)] * 2),
        ("are those of", [facts()]),
        ("are not those of", [facts(**OTHER_MODELS), facts()]),
        ("are not those of", [facts(**OTHER_MODELS)]),
    ],
)  # fmt: skip
def test_what_goes(
    server: FakeKaggle, capsys: pytest.CaptureFixture[str], said: str, dataset: list[dict[str, Any]]
) -> None:
    a_run()
    a_dataset(server, "exp-0-4", facts(), day=2)
    a_dataset(server, "exp-0-3", *dataset[::-1])
    code, text = command(capsys, "--kaggle", "--yes")
    assert code == 0 and said in text
    assert list(server.datasets) == ["ada/exp-0-4"]


@pytest.mark.parametrize(
    ("why", "versions", "given"),
    [
        ("nothing in them says", [None], {}),
        ("nothing in them says", [facts(format="else")], {}),
        ("runs are not here", [facts("gone")], {}),
        ("runs are not here", [facts(created="2025-12-01T00:00:00+00:00")], {}),
        ("runs are not here", [facts(data={"hash": "e"})], {}),
        ("published since", [facts()], {"day": 3}),
        ("notebooks read them", [facts()], {"notebooks": 1}),
        ("notebooks read them", [facts(debug=True)], {"notebooks": 1}),
        ("not every version", [None, facts()], {}),
        ("not every version", [facts("other"), facts()], {}),
        ("not every version", [facts(), facts(debug=True)], {}),
    ],
)
def test_what_is_left_alone(
    server: FakeKaggle,
    capsys: pytest.CaptureFixture[str],
    why: str,
    versions: list[Any],
    given: dict[str, Any],
) -> None:
    a_run()
    a_dataset(server, "exp-0-4", facts(), day=2)
    a_dataset(server, "exp-0-3", *versions, **given)
    code, said = command(capsys, "--kaggle", "--yes")
    assert code == 0 and len(server.datasets) == 2 and "elsewhere" not in said
    assert why in said and "ada/exp-0-3" in said


def test_versions_that_the_list_does_not_tell(
    server: FakeKaggle, capsys: pytest.CaptureFixture[str]
) -> None:
    server.lists_versions = False
    a_dataset(server, "mine-and-debug", facts("mine"), facts(debug=True))
    a_dataset(server, "only-debug", facts(debug=True))
    code, said = command(capsys, "--kaggle", "--yes")
    assert code == 0 and "not every version" in said
    assert list(server.datasets) == ["ada/mine-and-debug"]


@pytest.mark.parametrize("published", [None, "ada/gone", "ada/exp-0-4/versions/2", "bob/exp-0-4"])
def test_where_nothing_says_what_is_newer(
    server: FakeKaggle, capsys: pytest.CaptureFixture[str], published: str | None
) -> None:
    a_run(published=published)
    for day, slug in enumerate(("exp-0-4", "exp-0-3", "bob/exp-0-4"), 1):
        a_dataset(server, slug, facts(), day=day)
    code, said = command(capsys, "--kaggle", "--yes")
    assert code == 0 and len(server.datasets) == 3 and "published since" in said


def test_older_versions_are_for_people(
    server: FakeKaggle, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run()
    a_dataset(server, "exp-0-4", facts(), facts())
    code, said = command(capsys, "--kaggle", "--yes")
    assert code == 0 and server.datasets
    assert "has 1 older version, left alone" in said
    assert "https://www.kaggle.com/datasets/ada/exp-0-4/settings" in said


def test_nothing_is_removed_that_was_not_listed(server: FakeKaggle) -> None:
    a_run()
    a_run("second", "ada/dataset-7")
    rng = random.Random(0)
    known = [
        None,
        *(
            facts(name, debug=debug)
            for name in ("exp", "second", "gone")
            for debug in (True, False)
        ),
    ]
    for place in range(40):
        versions = [rng.choice(known)] * rng.choice([1, 1, 2])
        versions[0] = rng.choice([versions[0], versions[0], rng.choice(known)])
        owner = rng.choice(["ada", "ada", "bob"])
        notebooks = rng.choice([0, 0, 0, 3])
        slug = f"{owner}/dataset-{place}"
        a_dataset(server, slug, *versions, day=rng.randrange(1, 28), notebooks=notebooks)
    a_dataset(server, "exp-0-4", facts(), day=28)
    a_dataset(server, "dataset-7", facts("second"), day=14)
    before = deepcopy(server.datasets)
    plan = plan_prune(PruneConfig(kaggle=True))
    assert server.datasets == before
    prune(plan)
    listed = {item.url.partition("/datasets/")[2] for item in plan.remote}
    assert listed == set(before) - set(server.datasets)
    assert all(server.datasets[name] == before[name] for name in server.datasets)
    assert not listed & {"ada/exp-0-4", "ada/dataset-7"}
    whys = {item.why.split()[0] for item in plan.remote}
    assert whys == {"of", "superseded"}
    for name in listed:
        said = [json.loads(item.files["metadata.json"]) for item in before[name].versions]
        assert name.startswith("ada/") and before[name].notebooks == 0
        assert all(item == said[0] for item in said)
        assert said[0]["debug"] or said[0]["experiment"] in ("exp", "second")


@pytest.mark.parametrize("change", ["version", "notebooks", "gone", "newer", "published"])
def test_what_changes_after_the_listing_stays(
    server: FakeKaggle, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    run = a_run()
    a_dataset(server, "exp-0-4", facts(), day=2)
    old = a_dataset(server, "exp-0-3", facts())
    plan = plan_prune(PruneConfig(kaggle=True))
    assert len(plan.remote) == 1
    if change == "version":
        old.versions.append(Version({}))
    elif change == "notebooks":
        old.notebooks = 1
    elif change == "published":
        run.publication.write_text(run.publication.read_text().replace("exp-0-4", "exp-0-3"))
    else:
        del server.datasets["ada/exp-0-4" if change == "newer" else "ada/exp-0-3"]
    result = prune(plan)
    assert not result.remote and "has changed since it was listed" in result.kept[-1]
    assert "DeleteDataset" not in server.calls


def test_only_runs_that_are_named(server: FakeKaggle, capsys: pytest.CaptureFixture[str]) -> None:
    a_run()
    (run := a_run("second", None)).write_record(
        {"data": "d", "data_hash": "d", "folds_hash": "f", "folds": [0], "config": {}}
    )
    a_dataset(server, "one-debug", facts("exp", debug=True))
    a_dataset(server, "two-debug", facts("second", debug=True))
    command(capsys, run.name, "--kaggle", "--yes")
    assert list(server.datasets) == ["ada/one-debug"]


def test_kaggle_refuses_or_is_not_asked(
    server: FakeKaggle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run()
    a_dataset(server, "one-debug", facts(debug=True))
    assert command(capsys, "--yes")[0] == 0
    assert not server.calls
    server.refusal = f"not now, said {KEY}"
    code, said = command(capsys, "--kaggle", "--yes")
    assert code == 0 and "Kaggle did not delete ada/one-debug" in said and server.datasets
    monkeypatch.setenv("KAGGLE_KEY", "a-wrong-key")
    code, said = command(capsys, "--kaggle", "--yes")
    assert code == 1 and "kaggle.com/settings" in said and "a-wrong-key" not in said
