"""Run a study: what its table lacks becomes jobs, and their results become rows of the table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lnsegfm.errors import ConfigError, RunMismatch
from lnsegfm.jobs.engines import Engine
from lnsegfm.jobs.job import Job
from lnsegfm.jobs.parts import ListPart
from lnsegfm.jobs.run_jobs import JobOutcomes, run_jobs
from lnsegfm.messages import counted, differences
from lnsegfm.progress import Progress, Silent
from lnsegfm.storage import write_json
from lnsegfm.study.study_collection import JOBS, StudyOutcome, collect_results, declared, study_outcome
from lnsegfm.study.study_content import StudyContent, read_content
from lnsegfm.study.study_file import BASE, Study
from lnsegfm.study.study_job import OPTIONS
from lnsegfm.study.study_runs import StudyRun, planned_study_runs, rate_owner, recipe_fields
from lnsegfm.study.study_table import DONE, FAILED, TABLE, RunRecord, StudyTable


def run_study(
    study: Study,
    out: Path,
    *,
    on: Engine | str = "local",
    part: ListPart | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> StudyOutcome:
    """Do the runs that the table lacks; one that fails becomes a row with its reason.

    Args:
        study: What to do.
        out: Folder of the table and of the jobs.
        on: Where jobs run (`lnsegfm.jobs.engines.engine_of`).
        part: Only these of the runs.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``, wherever a job runs.
        workers: Processes that make batches.
        progress: Where progress is reported.

    Raises:
        RunMismatch: Runs that are done have other settings or other data, or ``out`` holds something else.
        DataError: A folder that cannot be read.
        ConfigError: Settings or scans that cannot be.
        Interrupted: Asked to stop; the same call goes on.
    """
    progress = progress or Silent()
    running = RunningStudy(study, out, on, part, read_content(study, progress), progress)
    collect_results(out)
    running.require_same()
    write_json(out / JOBS / OPTIONS, {"device": device, "workers": workers})
    return running.run()


@dataclass(frozen=True)
class RunningStudy:
    """A study with all that its runs share.

    Args:
        study: What to do.
        out: Its folder.
        on: Where jobs run.
        part: Only these of the runs.
        content: Its scans and bases.
        progress: Where progress is reported.
    """

    study: Study
    out: Path
    on: Engine | str
    part: ListPart | None
    content: StudyContent
    progress: Progress

    @cached_property
    def table(self) -> StudyTable:
        """The results."""
        return StudyTable(self.out / TABLE)

    @cached_property
    def planned(self) -> tuple[StudyRun, ...]:
        """All runs."""
        return planned_study_runs(self.study)

    def require_same(self) -> None:
        """Refuse a folder of something else, or runs that are done under other terms than the study's file has now.

        Raises:
            RunMismatch: There are some; what differs is said.
        """
        if self.out.exists() and not self.out.is_dir():
            raise ConfigError(f"--out {self.out}: it is a file. Name a folder.")
        known = (TABLE, JOBS)
        if self.out.is_dir() and any(self.out.iterdir()) and not any((self.out / name).exists() for name in known):
            raise RunMismatch(f"{self.out}: it is not empty, and holds no study. Name another --out.")
        there = self.table.runs()
        for run in self.planned:
            record = there.get(run.name)
            if record is None or record.state != DONE or dict(record.terms) == self.terms(run):
                continue
            changed = "; ".join(differences(_flat(record.terms), _flat(self.terms(run)))) or "other settings"
            raise RunMismatch(
                f"{self.study.file}: {run.name} is done with {changed}. Put it back, give the method or the data "
                "another name, or name another --out."
            )

    def run(self) -> StudyOutcome:
        """Choose rates, then do what lacks."""
        there = self.table.runs()
        mine = self.part.take(self.planned) if self.part is not None else self.planned
        todo = [run for run in mine if run.name not in there or there[run.name].state == FAILED]
        if todo:
            rates, unchosen = self._rates(todo)
            self._add_failed(unchosen)
            jobs = {run: self._job(run, rates.get(run)) for run in todo if run not in unchosen}
            try:
                failed = self._jobs(list(jobs.values()), counted(len(jobs), "run")).failed
            finally:
                collect_results(self.out, declared(self.study))
            self._add_failed({run: failed[job.name] for run, job in jobs.items() if job.name in failed})
        return study_outcome(self.study, self.out)

    def terms(self, run: StudyRun) -> dict[str, Any]:
        """What the result of a run depends on: its recipe, its scans, its base; where they lie plays no part."""
        data, content = self.study.of_data(run.data), self.content.data[run.data]
        fields = recipe_fields(self.study, data, run.method)
        owner = rate_owner(self.study, run)
        terms: dict[str, Any] = {
            "recipe": fields,
            "held_out": list(content.held_out),
            "content": {**content.hashes, "base": self.content.bases[run.base]},
        }
        if owner is not None:
            terms["rate_choice"] = [owner.method, owner.shots, owner.draw]
        return dict(json.loads(json.dumps(terms)))

    def _rates(self, todo: Sequence[StudyRun]) -> tuple[dict[StudyRun, float], dict[StudyRun, str]]:
        """The learning rate of each run for which it is chosen once; and why runs have none."""
        owners = {run: owner for run in todo if (owner := rate_owner(self.study, run)) is not None}
        if not owners:
            return {}, {}
        jobs = {owner: self._job(owner, None, kind="rate") for owner in dict.fromkeys(owners.values())}
        found = self._jobs(list(jobs.values()), f"{counted(len(jobs), 'choice')} of a learning rate")
        rates, failed = {}, {}
        for run, owner in owners.items():
            name = jobs[owner].name
            if name in found.done:
                rates[run] = float(found.done[name].content["lr"])
            else:
                failed[run] = f"no learning rate could be chosen: {found.failed.get(name, 'its job was not done')}"
        return rates, failed

    def _jobs(self, jobs: Sequence[Job], what: str) -> JobOutcomes:
        self.progress.stage(what)
        return run_jobs(jobs, self.out / JOBS, on=self.on, progress=self.progress)

    def _job(self, run: StudyRun, rate: float | None, kind: str = "run") -> Job:
        data, content = self.study.of_data(run.data), self.content.data[run.data]
        recipe = recipe_fields(self.study, data, run.method)
        recipe |= {"shots": max(1, run.shots), "draw": run.draw, "held_out": 0, "exclude": content.excluded}
        if rate is not None:
            recipe = {key: value for key, value in recipe.items() if key != "lr_grid"} | {"lr": rate}
        inputs = {
            "data": {
                "folder": str(data.folder.resolve()),
                "held_out_data": str(data.held_out_data.resolve()) if data.held_out_data else None,
                "held_out": list(content.held_out),
                "source_data": str(data.source_data.resolve()) if data.source_data else None,
            },
            "base": str(_absolute(self.study.base_place(run.base))),
            "recipe": recipe,
            "keep_model": self.study.keep_models,
            "terms": self.terms(run),
            **({"run": vars(run)} if kind == "run" else {}),
        }
        body = "study-rate" if kind == "rate" else "study-base" if run.method == BASE else "study-run"
        return Job(run.job_name(inputs, kind), body, inputs)

    def _add_failed(self, failed: Mapping[StudyRun, str]) -> None:
        records = [RunRecord(run, FAILED, self.terms(run), {}, reason) for run, reason in failed.items()]
        if records:
            self.table.add(records, {}, declared(self.study))


def _absolute(place: Path) -> Path:
    return place.resolve() if place.exists() else place


def _flat(terms: Mapping[str, Any]) -> dict[str, Any]:
    """Terms with the recipe's own keys beside the others, so that differences name them."""
    content = {f"content of {key}": value for key, value in terms["content"].items()}
    settings = {f"setting {key}": value for key, value in terms["recipe"].get("settings", {}).items()}
    recipe = {key: value for key, value in terms["recipe"].items() if key != "settings"}
    return {**recipe, **settings, **content, **{k: v for k, v in terms.items() if k not in ("content", "recipe")}}
