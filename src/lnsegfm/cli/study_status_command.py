"""``lnsegfm study status``."""

from __future__ import annotations

from lnsegfm.cli.shared_options import AsJson, print_json
from lnsegfm.cli.study_lines import show_outcome, study_folder
from lnsegfm.cli.study_run_command import StudyFile, StudyOut


def study_status(study: StudyFile, out: StudyOut = None, as_json: AsJson = False) -> None:
    """Say which runs of a study are done, failed or lacking, and about how long the lacking ones take.

    Not for clinical use.
    """
    from lnsegfm.study.study_collection import study_outcome
    from lnsegfm.study.study_file import read_study

    folder = study_folder(study, out)
    outcome = study_outcome(read_study(study), folder)
    if as_json:
        print_json(outcome.to_json())
    else:
        show_outcome(outcome, folder)
