"""The doctor (data check): what is suspicious about labelled scans, why it matters, and what can be fixed in a copy.

It finds more than the check before a training (:mod:`lnsegfm.datasets.check`) and takes longer, so it runs on request
only. It never changes what it looks at.
"""

from lnsegfm.datasets.doctor.diagnose import CaseArrays, DiagnosedCase, Diagnosis, diagnose
from lnsegfm.datasets.doctor.finding import FIXES, SEVERITIES, Finding, Severity
from lnsegfm.datasets.doctor.fixes import require_fixable, write_fixed_copy

__all__ = [
    "FIXES",
    "SEVERITIES",
    "CaseArrays",
    "DiagnosedCase",
    "Diagnosis",
    "Finding",
    "Severity",
    "diagnose",
    "require_fixable",
    "write_fixed_copy",
]
