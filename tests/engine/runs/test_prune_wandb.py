"""`cellflow prune --wandb`, from the command to a server that answers what wandb's own client asks."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from fake_wandb import KEY, FakeRun, FakeWandb
from wandb_file import recorded

from cellflow.cli import main
from cellflow.config import TrackingConfig, TrainConfig, config_to_dict
from cellflow.config.catalog import PruneConfig
from cellflow.engine.runs.prune import plan_prune, prune
from cellflow.storage.run_folder import RunFolder
from cellflow.tracking import open_trackers, read_journal

HERE, GONE, OTHER = "0" * 12, "1" * 12, "2" * 12
"""What ids begin with: of the run that is on this disk, and of runs that are not."""
PROJECT = "ada/cells"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeWandb]:
    import wandb

    monkeypatch.chdir(tmp_path)
    with FakeWandb() as server:
        server.point_client(monkeypatch, tmp_path / "home")
        wandb.teardown()  # an earlier test's settings
        yield server
        wandb.teardown()


def a_run(name: str = "exp", uid: str = HERE, *, debug: bool = False, **tracking: Any) -> RunFolder:
    """A complete run in the folder `runs`, recorded in wandb's project `cells`."""
    run = RunFolder(Path("runs", name))
    run.fold(0).path.mkdir(parents=True)
    run.folds.write_text("id,fold\na,0\n")
    record = {"data": "data", "data_hash": "d", "folds_hash": "f", "folds": [0]}
    run.write_record({**record, "config": {"debug": debug}})
    with zipfile.ZipFile(run.fold(0).best, "w") as file:
        file.writestr("model", "weights")
    run.fold(0).summary.write_text(json.dumps({"finished": "epochs", "best_epoch": 1}))
    settings = {"wandb": True, "wandb_project": "cells", **tracking}
    run.tracking.write_text(json.dumps({"uid": uid, "settings": settings}))
    return run


def a_fold(
    server: FakeWandb, uid: str, day: int = 1, name: str = "exp fold 0", **given: Any
) -> FakeRun:
    """A record of a fold in the project, of three epochs, finished."""
    group, _, fold = name.partition(" fold ")
    config = {"experiment": group, "fold": int(fold), "seed": 0, "data_hash": "d", "debug": False}
    config |= given.pop("config", {})
    given = {"summary": {"finished": "epochs"}, "epochs": [1, 2, 3]} | given
    created = f"2026-01-{day:02d}T00:00:00Z"
    id = f"{uid}-fold_{fold}{given.pop('ending', '')}"
    return server.add(PROJECT, id, name, config=config, createdAt=created, **given)


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit code of `cellflow prune`, and what it says."""
    with pytest.raises(SystemExit) as left:
        main(["prune", *words])
    said = "".join(capsys.readouterr())
    assert KEY not in said
    return int(left.value.code or 0), said


def test_records_of_a_debug_run_as_the_tracker_makes_them(
    server: FakeWandb, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recorded offline by wandb itself, uploaded, and removed, here and there."""
    run = a_run("exp-debug", debug=True)
    tracking = TrackingConfig(wandb=True, wandb_offline=True, wandb_project="cells")
    start = {"config": config_to_dict(TrainConfig(name="exp-debug", debug=True)), "data_hash": "d"}
    with open_trackers(tracking, run.path, experiment="exp-debug") as trackers:
        trackers.start_fold(0, start)
        trackers.log_epoch(0, {"epoch": 1, "train_loss": 0.5})
        trackers.end_fold(0, {"finished": "epochs"}, Path("none"))
        trackers.finish({"experiment": "exp-debug", "debug": True, "status": "trained"})
    folders = sorted((run.path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    for found in recorded(run.path):
        made = found.run
        group = {"group": made.run_group, "jobType": made.job_type}
        parts = {"config": found.config, "summary": found.summary}
        server.add(PROJECT, made.run_id, made.display_name, **parts, **group)
    (mine := run.path / "wandb" / "offline-run-20260101_000000-abcd1234").mkdir()
    ids = server.ids()

    record = server.projects[PROJECT][f"{HERE}-fold_0"]
    assert (record.config["data_hash"], record.summary["finished"]) == ("d", "epochs")

    code, said = command(capsys, "--wandb")
    assert code == 0 and "Nothing was removed" in said
    assert said.count("of a debug run; its curves") == said.count("recorded offline for wandb") == 2
    assert all(f"{server.url}/{PROJECT}/runs/{id}" in said for id in ids)
    assert server.ids() == ids and not server.deleted and folders[0].exists()

    code, said = command(capsys, "--wandb", "--yes")
    assert code == 0 and "Removed elsewhere: 2 items" in said
    assert set(server.deleted) == {(id, True) for id in ids}
    assert [folder.exists() for folder in folders] == [False, False]
    assert mine.exists() and run.fold(0).best.exists()


def test_a_training_tells_trackers_what_it_learns_from(trained: TrainConfig) -> None:
    """Without that, a later record of the same settings may be one of other images."""
    run = RunFolder(trained.runs_dir / trained.name)
    starts = [event["start"] for event in read_journal(run.journal) if event["event"] == "start"]
    hashes = {name: run.read_record()[name] for name in ("data_hash", "folds_hash")}
    assert len(starts) == 2 and all(start | hashes == start for start in starts)


def test_a_fold_that_was_recorded_again(
    server: FakeWandb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")  # of what is recorded; this asks all the same
    a_run()
    old = a_fold(server, GONE, 1, state="crashed", summary={}, epochs=[1, 2])
    a_fold(server, HERE, 2)
    code, said = command(capsys, "--wandb", "--yes")
    assert f"{old.id}  (superseded by {server.url}/{PROJECT}/runs/{HERE}-fold_0" in said, said
    assert (code, server.deleted) == (0, [(old.id, False)])


@pytest.mark.parametrize(
    ("why", "old", "new"),
    [
        ("not every epoch", {"epochs": [1, 2]}, {"epochs": [3, 4]}),  # goes on where the other stopped
        ("", {}, {"summary": {}}),  # has no end
        ("", {}, {"state": "failed"}),
        ("", {}, {"config": {"seed": 1}}),
        ("", {}, {"config": {"data_hash": "e"}}),
        ("", {}, {"name": "other fold 0"}),
        ("", {}, {"name": "exp fold 1"}),
        ("are running", {"state": "running"}, {}),
        ("tags", {"tags": ["paper"]}, {}),
        ("another user", {"user": {"username": "bob", "name": "Bob"}}, {}),
        ("another user", {"user": {"username": None, "name": ""}}, {}),
        ("as cellflow writes it", {"displayName": "my best"}, {}),
        ("as cellflow writes it", {"group": "moved"}, {}),
        ("as cellflow writes it", {"config": {"experiment": "else"}}, {}),
        ("not every epoch", {"historyLineCount": None}, {}),
        ("not every epoch", {}, {"historyLineCount": 9}),
    ],
)  # fmt: skip
def test_what_is_left_alone(
    server: FakeWandb,
    capsys: pytest.CaptureFixture[str],
    why: str,
    old: dict[str, Any],
    new: dict[str, Any],
) -> None:
    a_run()
    a_fold(server, GONE, 1, **old)
    a_fold(server, HERE, 2, **new)
    code, said = command(capsys, "--wandb", "--yes")
    assert (code, server.deleted) == (0, []) and "elsewhere" not in said
    assert why in said and (not why or f"{GONE}-fold_0" in said)


def test_the_record_of_a_run_that_is_here_is_superseded_by_none_of_another_run(
    server: FakeWandb, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run()
    a_fold(server, HERE, 1)
    a_fold(server, OTHER, 2)
    command(capsys, "--wandb", "--yes")
    assert not server.deleted
    a_fold(server, HERE, 3, ending="-offline")  # the same run, with all of it
    command(capsys, "--wandb", "--yes")
    assert {id for id, _ in server.deleted} == {f"{HERE}-fold_0", f"{OTHER}-fold_0"}


def random_record(server: FakeWandb, rng: random.Random, place: int) -> FakeRun:
    """A record of any kind, good or strange."""
    unusual: dict[str, Any] = rng.choice([
        {}, {}, {}, {"state": "crashed", "summary": {}}, {"state": "running"}, {"tags": ["keep"]},
        {"user": {"username": "bob", "name": "Bob"}}, {"displayName": "mine"}, {"jobType": "train"},
        {"epochs": rng.sample(range(1, 5), 2)}, {"historyLineCount": rng.choice([None, 7])},
    ])  # fmt: skip
    config = {"seed": rng.randrange(2), "debug": rng.random() < 0.2}
    name = f"{rng.choice(['exp', 'other'])} fold {rng.randrange(2)}"
    uid = rng.choice([HERE, f"{place:012x}", f"x{place}"])
    ending = f"-offline{'' if rng.random() < 0.5 else place}"
    return a_fold(server, uid, 1 + place % 28, name, ending=ending, config=config, **unusual)


def test_nothing_is_removed_that_was_not_listed_and_every_complete_fold_stays(
    server: FakeWandb,
) -> None:
    a_run()
    rng = random.Random(0)
    records = [random_record(server, rng, place) for place in range(120)]
    before = deepcopy(server.projects[PROJECT])
    plan = plan_prune(PruneConfig(wandb=True))
    assert plan.remote and server.projects[PROJECT] == before and not server.deleted
    prune(plan)
    after = server.projects[PROJECT]
    listed = {item.url.rpartition("/")[2] for item in plan.remote}
    assert {id for id, _ in server.deleted} == listed == set(before) - set(after)
    assert all(after[id] == before[id] for id in after)

    def kind(run: FakeRun) -> tuple[Any, ...]:
        return run.fields["group"], run.config["fold"], run.config["seed"]

    kept_kinds = {kind(run) for run in after.values() if not run.config["debug"]}
    for run in (before[id] for id in listed):
        assert run.fields["user"]["username"] == "ada" and "tags" not in run.fields
        assert run.fields["state"] != "running" and not run.id.startswith("x")
        assert run.config["debug"] or kind(run) in kept_kinds
        if not run.config["debug"]:
            assert any(
                kind(other) == kind(run) and other.summary and set(run.epochs) <= set(other.epochs)
                and other.fields["createdAt"] > run.fields["createdAt"]
                for other in before.values() if not other.config["debug"]
            )  # fmt: skip
    debug = [run for run in records if run.config["debug"] and run.id in before]
    assert {run.id for run in debug} & listed  # some of each
    assert listed - {run.id for run in debug}


@pytest.mark.parametrize("change", ["tags", "state", "config", "gone", "newer is gone"])
def test_what_changes_after_the_listing_stays(
    server: FakeWandb, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    """The server changes when the command looks for the last time."""
    a_run()
    old, new = a_fold(server, GONE, 1), a_fold(server, HERE, 2)

    def happens() -> None:
        if "RunSampledHistory" not in server.calls:  # still listing
            return
        if change == "tags":
            old.fields["tags"] = ["keep"]
        elif change == "state":
            old.fields["state"] = "running"
        elif change == "config":
            old.config["note"] = "mine"
        else:
            server.projects[PROJECT].pop((old if change == "gone" else new).id, None)

    server.before["GetViewer"] = happens
    code, said = command(capsys, "--wandb", "--yes")
    assert code == 0 and not server.deleted
    assert "superseded by" in said and "has changed since it was listed" in said


def test_projects_of_links_and_only_the_runs_that_are_named(
    server: FakeWandb, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a run was recorded earlier, links tell it; a project that is gone holds nothing."""
    run = a_run(wandb=False)
    tracking = json.loads(run.tracking.read_text())
    link = "https://wandb.ai/team/old%20cells/runs/x"
    tracking["links"] = {"wandb": {"fold_0": link, "run": "wandb/offline-run-1"}}
    run.tracking.write_text(json.dumps(tracking))
    a_run("second", OTHER, wandb_entity="team", wandb_project="gone")
    config = {"fold": 0, "debug": True}
    for name in ("exp", "second"):
        server.add(
            "team/old cells",
            f"{len(name):012x}-fold_0",
            f"{name} fold 0",
            config=config | {"experiment": name},
        )
    _, said = command(capsys, "--wandb")
    assert said.count("of a debug run") == 2
    _, said = command(capsys, "exp", "--wandb")
    assert said.count("of a debug run") == 1 and "record exp fold 0" in said
    _, said = command(capsys, "second", "--wandb")
    assert "of a debug run" not in said


def test_nobody_is_asked_without_need(
    server: FakeWandb, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(wandb=False)
    assert command(capsys, "--yes")[0] == 0
    code, said = command(capsys, "--wandb", "--yes")
    assert code == 0 and "no run here was recorded there" in said
    assert not server.calls


def test_no_key_a_wrong_one_and_no_network(
    server: FakeWandb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    a_run()
    server.failing["Runs"] = "the server is out of order"
    code, said = command(capsys, "--wandb")
    assert code == 1 and "out of order" in said and len(said.splitlines()) == 1
    for variable, value, expected in (
        ("WANDB_API_KEY", "f" * 40, "Check WANDB_API_KEY"),
        ("WANDB_API_KEY", "", "wandb login"),
        ("WANDB_BASE_URL", "http://127.0.0.1:9", "cannot be reached at http://127.0.0.1:9"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            wandb.teardown()
            code, said = command(capsys, "--wandb", "--yes")
        assert code == 1 and expected in said and "f" * 40 not in said
        assert len(said.splitlines()) == 1, said
    assert not server.deleted
