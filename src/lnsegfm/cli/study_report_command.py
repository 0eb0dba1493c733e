"""``lnsegfm study report``."""

from __future__ import annotations

from lnsegfm.cli.shared_options import AsJson, print_json
from lnsegfm.cli.study_lines import show_figures, study_folder
from lnsegfm.cli.study_run_command import StudyFile, StudyOut


def study_report(study: StudyFile, out: StudyOut = None, as_json: AsJson = False) -> None:
    """Draw the report of what is done of a study: a page, and tables as CSV, with draws and cases as random.

    Not for clinical use.
    """
    from lnsegfm.study.study_collection import collect_results
    from lnsegfm.study.study_figures import all_differences
    from lnsegfm.study.study_files import PAGE, write_study_report

    folder = study_folder(study, out)
    collect_results(folder)
    scores = write_study_report(folder)
    differences = all_differences(scores)
    if as_json:
        print_json({"comparisons": [one.to_json() for one in differences]})
        return
    show_figures(scores, differences)
    print(f"Report   {folder / PAGE}")
    print(f"Tables   {folder / '*.csv'}")
    print("Not for clinical use.")
