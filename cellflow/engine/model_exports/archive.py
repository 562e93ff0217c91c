"""A run as one file: `predict`, `ensemble` and `load_model` take it in place of the run."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from cellflow import __version__
from cellflow.engine.model_exports.job import ModelExportJob
from cellflow.engine.runs.contents import vouching_run
from cellflow.engine.runs.thresholds import read_thresholds
from cellflow.io.model_archive import write_archive
from cellflow.report.text.model_card import model_card
from cellflow.storage.atomic import write_json, write_text
from cellflow.storage.records import read_json
from cellflow.storage.run_folder import RunFolder, ensemble_record

__all__ = ["export_archive"]

_NO_DATA = "not in the archive"
_USAGE = """With cellflow {version} or newer, without the data and without network:

```console
$ cellflow predict FOLDER --model {file}      # label maps and tables of new images
$ cellflow ensemble {file} OTHER_RUN --images FOLDER
```

```python
import cellflow
model = cellflow.load_model("{file}")
labels = model.predict(image).labels
```

Everything here is used without being asked for: all folds, diameters, thresholds, and cell types where it
knows them. The zip holds the files of the run under their own names; `fold_N/best.pt` are model files that
Cellpose 3 loads."""


def export_archive(job: ModelExportJob, path: Path) -> list[Path]:
    """Write the archive; what is in it says nothing of the machine, the data's place or anybody's name."""
    with TemporaryDirectory() as scratch:
        copy = RunFolder(Path(scratch) / job.run.name)
        record = job.run.read_record()
        copy.write_record(record | {"data": _NO_DATA, "folds": list(job.members)})
        card = Path(scratch) / "README.md"
        write_text(card, model_card(job.facts, _USAGE.format(file=path.name, version=__version__)))
        files = {"README.md": card, copy.record_path.name: copy.record_path} | _files(job)
        made = (vouching_run(job.run) or job.run).oof_record
        if made.is_file():
            passed = read_json(made) or {}
            write_json(copy.oof_record, {key: passed[key] for key in passed if key != "machine"})
            files[copy.oof_record.relative_to(copy.path).as_posix()] = copy.oof_record
        facts = {
            "name": job.run.name,
            "cellflow": __version__,
            "versions": dict(job.facts.versions),
            "data_hash": record["data_hash"],
            "folds_hash": record["folds_hash"],
            "folds": list(job.members),
            "folds_of_run": len(record["folds"]),
        }
        write_archive(path, files, facts)
    return [path]


def _files(job: ModelExportJob) -> dict[str, Path]:
    """What predictions are made with; no logs, no tables of images, nothing of the host."""
    run = job.run
    paths = [run.cv, run.thresholds]
    for fold in job.members:
        paths += [run.fold(fold).best, run.fold(fold).styles]
    found = {path.relative_to(run.path).as_posix(): path for path in paths if path.is_file()}
    keeper = vouching_run(run)
    if keeper is not None and keeper.thresholds.is_file():
        found[keeper.thresholds.name] = keeper.thresholds
    return found | _calibration(job)


def _calibration(job: ModelExportJob) -> dict[str, Path]:
    """Thresholds for all of these models together, where they were calibrated for exactly these."""
    record = ensemble_record(job.config.ensembles_dir, [job.run.name])
    places = [record, *sorted(job.run.path.glob("ensembles/*/ensemble.json"))]
    hashes = sorted(member.hash for member in job.opened.members)
    for place in places:
        if place.is_file() and sorted(read_thresholds(place).members) == hashes:
            return {f"ensembles/{job.run.name}/{record.name}": place}
    return {}
