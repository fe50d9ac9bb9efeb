"""The folder of a run: the paths of its files, and reading them.

RUN/
  space.yaml        the space with overrides applied
  manifest.json     versions, seed, hardware, teacher and its scores, seconds used so far
  study.journal     Optuna's storage
  ray/              Ray Tune's own
  trials/0007/      spec.json, size.json, measurements.jsonl, workers.jsonl, outcome.json;
                    checkpoint-<step>/ and .pace while it runs, then student/ until that is kept or
                    dropped; if they apply, origin, accumulation, bad_examples.json,
                    fine_tuned.json, test.json, error.txt
  teacher/          measurements.jsonl of a teacher that the run trains; its model on a cluster
  latencies/        latencies of each architecture on each device
  confirmation.json results of the best trials with other seeds
  ablation.json     results of the best trial without each of its loss terms
  students/0007/    a kept student: a Hugging Face folder and student.json
  leaderboard.csv, leaderboard.json
  report/           report.html and its plots as SVG and PNG
  tensorboard/, wandb/, trackers.json   what was logged to trackers, and which trials completely
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import Version
from pydantic import ValidationError

from lkd_tune.config.errors import Problem, SpecError
from lkd_tune.config.trial import TrialSpec
from lkd_tune.records.trial_folder import TrialFolder
from lkd_tune.records.trial_record import LABELS_ALONE, TrialRecord
from lkd_tune.version import __version__

# How many runs the message about a folder without one names, the last ones first.
_MOST_NAMED = 10


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run's files, and reading them.

    Attributes:
        path: The folder.
        remote_uri: Where the folder is mirrored to, for example `s3://bucket/runs/first`; None if
            it is not mirrored.
    """

    path: Path
    remote_uri: str | None = None

    @property
    def where(self) -> str:
        """The run's location as the user names it."""
        return self.remote_uri or str(self.path)

    @property
    def resume_command(self) -> str:
        """The command that resumes the search, for a shell."""
        return f"lkd-tune search --resume {shlex.quote(self.where)}"

    def absolute(self) -> RunFolder:
        """Returns the same run with an absolute path."""
        return RunFolder(self.path.absolute(), self.remote_uri)

    def below(self, name: str) -> RunFolder:
        """Returns the run of that name inside this folder."""
        remote_uri = self.remote_uri and f"{self.remote_uri}/{name}"
        return RunFolder(self.path / name, remote_uri)

    @property
    def space(self) -> Path:
        """The space file of the search, with overrides applied."""
        return self.path / "space.yaml"

    @property
    def manifest(self) -> Path:
        """The facts about the run, as JSON."""
        return self.path / "manifest.json"

    @property
    def study(self) -> Path:
        """Optuna's journal."""
        return self.path / "study.journal"

    @property
    def students(self) -> Path:
        """The folder of kept students."""
        return self.path / "students"

    @property
    def latencies(self) -> Path:
        """The folder of measured latencies, one file for each architecture and device."""
        return self.path / "latencies"

    @property
    def confirmation(self) -> Path:
        """The results of the best trials with other seeds, as JSON."""
        return self.path / "confirmation.json"

    @property
    def ablation(self) -> Path:
        """The results of the best trial without each of its loss terms, as JSON."""
        return self.path / "ablation.json"

    @property
    def report(self) -> Path:
        """The folder of the report and its plots."""
        return self.path / "report"

    @property
    def leaderboard_csv(self) -> Path:
        """The leaderboard as CSV, one row per trial."""
        return self.path / "leaderboard.csv"

    @property
    def leaderboard_json(self) -> Path:
        """The leaderboard as JSON, with facts about the run."""
        return self.path / "leaderboard.json"

    def trial(self, name: str) -> Path:
        """Returns the folder of a trial."""
        return self.path / "trials" / name

    def student(self, name: str) -> Path:
        """Returns the folder of a kept student."""
        return self.students / name

    def read_manifest(self) -> dict[str, Any]:
        """Returns the manifest.

        Raises:
            SpecError: If the folder is not a run folder.
        """
        try:
            return json.loads(self.manifest.read_text(encoding="utf-8"))
        except FileNotFoundError:
            message = f"is not a run folder: it has no manifest.json{self._others()}"
            raise SpecError(Problem(self.where, "", message)) from None
        except (OSError, json.JSONDecodeError) as error:
            raise SpecError(Problem(str(self.manifest), "", f"can't be read: {error}")) from None

    def _others(self) -> str:
        """Returns '; … has the runs …' with the runs in this folder or beside it, '' if none."""
        for folder in (self.path, self.path.parent):
            found = sorted(folder.glob("*/manifest.json"), key=lambda path: -path.stat().st_mtime)
            names = [path.parent.name for path in found[:_MOST_NAMED]]
            if names:
                more = ", …" if len(found) > len(names) else ""
                return f"; {folder} has the runs {', '.join(names)}{more}"
        return ""

    def read_confirmation(self) -> list[dict[str, Any]]:
        """Returns the results of the best trials with other seeds, best first; [] without them."""
        if not self.confirmation.exists():
            return []
        return json.loads(self.confirmation.read_text("utf-8"))["trials"]

    def read_trials(self) -> list[TrialRecord]:
        """Returns all trials that were started, by name, without those that can't be read."""
        return [trial for trial in self._read_each().values() if isinstance(trial, TrialRecord)]

    def unreadable_trials(self) -> list[str]:
        """Returns a line for each trial that can't be read, and one if a newer version wrote it."""
        lines = [
            f"trial {name} can't be read and is left out: {found}"
            for name, found in self._read_each().items()
            if isinstance(found, str)
        ]
        written = self.read_manifest().get("versions", {}).get("lkd_tune", __version__)
        if lines and Version(written) > Version(__version__):
            lines.append(
                f"{self.where} was written by lkd-tune {written}, this is {__version__}: update it"
            )
        return lines

    def _read_each(self) -> dict[str, TrialRecord | str]:
        """Returns each trial that was started, or in one line why it can't be read, by name."""
        found: dict[str, TrialRecord | str] = {}
        for spec in sorted((self.path / "trials").glob("*/spec.json")):
            name = spec.parent.name
            try:
                found[name] = self.read_trial(name)
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(["", *map(str, first["loc"])])
                found[name] = f"{error.title}{place}: {first['msg']}"
            except ValueError as error:  # not JSON, or not UTF-8
                found[name] = str(error)
        return found

    def read_comparisons(self) -> dict[str, TrialSpec]:
        """Returns the specs of the numbered trials that no sampler drew, by name."""
        folders = [TrialFolder(path.parent) for path in (self.path / "trials").glob("*/origin")]
        specs = {f.path.name: f.read_spec() for f in folders if f.read_origin() == LABELS_ALONE}
        return {name: spec for name, spec in sorted(specs.items()) if spec is not None}

    def read_trial(self, name: str) -> TrialRecord:
        """Returns one trial."""
        kept = (self.student(name) / "student.json").exists()
        return TrialFolder(self.trial(name)).read_record(kept=kept)
