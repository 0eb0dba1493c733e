"""Members of a run: trainings that each leave patients out and predict their scans, which they have not seen.

With few patients each is left out once (leave-one-out), with more they are left out in folds (K-fold cross-validation:
Stone, Journal of the Royal Statistical Society B 36, 1974): a member then trains on nearly as many scans as the run
itself, which halves of the shots would not. Scans of one patient are never parted; copies of one scan are refused
before a training. What was settled before on all shots is the run's: a learning rate chosen on them, and the range of
intensities of a base with other channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lnsegfm.datasets.dataset import Case
from lnsegfm.messages import counted
from lnsegfm.methods.method import Method
from lnsegfm.models.model_folder import Model, read_model
from lnsegfm.models.trained_scans import TrainedScans, Training
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.training.schedule import Schedule
from lnsegfm.training.train_model import train_model
from lnsegfm.training.training_job import TrainingJob
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.workflows.held_out_comparison import predict_masks
from lnsegfm.workflows.training_run import RunContext

MOST = 5
"""Members at most: up to as many patients each is left out once, more are left out in as many folds."""


@dataclass(frozen=True)
class Member:
    """Who is trained on, and who is left out and predicted.

    Args:
        trained: Scans of the other patients.
        left_out: Scans of the patients left out.
    """

    trained: tuple[Case, ...]
    left_out: tuple[Case, ...]


def members(cases: Sequence[Case], subjects: Mapping[str, str], most: int = MOST) -> tuple[Member, ...]:
    """Members that leave out every scan once; none where there are not two patients.

    Args:
        cases: The scans, in the order in which they were drawn.
        subjects: The patient of each case where known; else a case is a patient.
        most: Members at most; every patient is left out alone where there are no more.
    """
    patients = list(dict.fromkeys(subjects.get(case.name, case.name) for case in cases))
    number = min(len(patients), most)
    if number < 2:
        return ()
    fold = {patient: place % number for place, patient in enumerate(patients)}
    of_case = {case.name: fold[subjects.get(case.name, case.name)] for case in cases}
    return tuple(
        Member(
            tuple(case for case in cases if of_case[case.name] != own),
            tuple(case for case in cases if of_case[case.name] == own),
        )
        for own in range(number)
    )


def members_text(some: Sequence[Member]) -> str:
    """What members cost, in words: ``5 further trainings, each without one of the 5 shots``."""
    sizes = sorted({len(member.left_out) for member in some})
    each = "one" if sizes == [1] else " to ".join(map(str, dict.fromkeys((sizes[0], sizes[-1]))))
    shots = sum(len(member.left_out) for member in some)
    return f"{counted(len(some), 'further training')}, each without {each} of the {shots} shots"


@dataclass(frozen=True, kw_only=True)
class MemberTraining:
    """How every member is trained.

    Args:
        start: What the run starts from; `recorded` says of a member which scans trained it.
        method: What is trained.
        schedule: Of the run.
        before: Scans that trained the base, as far as they are part of the result.
        scan_hashes: The hash of each scan.
        subjects: The patient of each case, where known.
        folder: Of all members; one that is finished there is kept, one that was stopped continues.
    """

    start: Checkpoint
    method: Method
    schedule: Schedule
    before: TrainedScans
    scan_hashes: Mapping[str, str]
    subjects: Mapping[str, str]
    folder: Path

    def recorded(self, cases: Sequence[Case]) -> Checkpoint:
        """The start of a member, with the scans of that member in its plans."""
        names = [case.name for case in cases]
        own = Training.on(
            (self.scan_hashes[name] for name in names),
            (self.subjects[name] for name in names if name in self.subjects),
        )
        trained = self.before.after(own if self.method.learns else None)
        described = {**self.start.dataset_json, "numTraining": len(cases)}
        return replace(self.start, plans=trained.in_plans(self.start.plans), dataset_json=described)


@dataclass(frozen=True)
class MemberPredictions:
    """What a member predicts of the scans that it has not seen.

    Args:
        member: Who was left out.
        model: The member's model.
        masks: The folder of its masks.
    """

    member: Member
    model: Model
    masks: Path


def predict_left_out(
    some: Sequence[Member], training: MemberTraining, context: RunContext, options: PredictOptions, what: str
) -> tuple[MemberPredictions, ...]:
    """Train each member on its scans, and predict those that it leaves out.

    Args:
        some: The members.
        training: How each is trained.
        context: Where it is computed and reported.
        options: How they predict.
        what: What it is for, as the beginning of a line.

    Raises:
        ConfigError: As `train_model`.
        DataError: A scan that cannot be predicted.
        Interrupted: Asked to stop; the state is saved.
    """
    predicted = []
    for number, member in enumerate(some):
        folder = training.folder / str(number)
        left_out = counted(len(member.left_out), "shot")
        context.progress.stage(f"{what}: training without {left_out}, {number + 1} of {len(some)}")
        job = TrainingJob(
            start=training.recorded(member.trained),
            method=training.method,
            cases=member.trained,
            schedule=training.schedule,
            out=folder,
            device=context.device,
            workers=context.workers,
            clock=context.clock,
        )
        train_model(job, context.progress)
        model, masks = read_model(job.model), folder / "predictions"
        predict_masks(model, "model", member.left_out, masks, options=options, progress=context.progress)
        predicted.append(MemberPredictions(member, model, masks))
    return tuple(predicted)
