"""The doctor: what is odd about labelled scans, why it matters, and what may be mended in a copy.

It finds more than the check before a training (:mod:`lnsegfm.datasets.check`) and takes longer, so it runs on request
only. It never changes what it looks at.
"""

from lnsegfm.datasets.doctor.diagnose import Diagnosis, Looked, Shown, diagnose
from lnsegfm.datasets.doctor.finding import FIXES, SEVERITIES, Finding, Severity
from lnsegfm.datasets.doctor.fixes import mend, require_mendable

__all__ = [
    "FIXES",
    "SEVERITIES",
    "Diagnosis",
    "Finding",
    "Looked",
    "Severity",
    "Shown",
    "diagnose",
    "mend",
    "require_mendable",
]
