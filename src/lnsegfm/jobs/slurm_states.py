"""What SLURM says of jobs, with accounting and without.

Without accounting ``sacct`` knows nothing, and a job that was killed would look for ever as if it had not begun. The
controller itself knows it for ``MinJobAge`` seconds (300 unless configured): it is asked first, by ``scontrol``, and
accounting for what it has forgotten.

Source: manual pages scontrol(1), sacct(1) and squeue(1), "JOB STATE CODES", of SLURM 22.05.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_PATIENCE_S = 60
_UNDER_WAY = frozenset(
    {
        *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD"),
        *("RESIZING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "PREEMPTED"),
    }
)
_WAITS_AS_USUAL = frozenset({"None", "Priority", "Resources", "BeginTime", "JobArrayTaskLimit", "Dependency", ""})
_WORDS = {
    "TIMEOUT": "it reached its time limit",
    "OUT_OF_MEMORY": "it needed more memory than it was given",
    "CANCELLED": "it was cancelled",
    "NODE_FAIL": "its node was lost",
    "DEADLINE": "it reached its deadline",
    "BOOT_FAIL": "its node did not start",
}


class SlurmUnreachable(Exception):
    """The controller does not answer just now."""


@dataclass(frozen=True)
class SlurmState:
    """What SLURM says of a job.

    Args:
        state: Its state, such as ``RUNNING``.
        job_name: What it is called.
        exit_code: ``CODE:SIGNAL``; "" where it is not known.
        reason: Why it waits.
    """

    state: str
    job_name: str = ""
    exit_code: str = ""
    reason: str = ""

    @property
    def under_way(self) -> bool:
        """Whether it runs, or will."""
        return self.state in _UNDER_WAY

    @property
    def held(self) -> str:
        """Why it waits, where that is not its turn; else ""."""
        return self.reason if self.state == "PENDING" and self.reason not in _WAITS_AS_USUAL else ""

    def words(self) -> str:
        """Why it ended, in words."""
        code, _, number = self.exit_code.partition(":")
        signalled = int(number) if number.isdigit() else 0
        status = int(code) if code.isdigit() else 0
        signalled = signalled or (status - 128 if status > 128 else 0)
        how = f"killed by signal {signalled}" if signalled else f"exit code {status}" if status else ""
        why = _WORDS.get(self.state, how or "it left no result")
        return f"SLURM: {self.state}: {why}"


def slurm_states(ids: Iterable[str]) -> dict[str, SlurmState]:
    """The states of jobs; one that SLURM does not know is left out.

    Args:
        ids: As ``sbatch`` gave them, with ``_INDEX`` for a job of an array.

    Raises:
        SlurmUnreachable: It does not answer.
    """
    wanted = set(ids)
    found: dict[str, SlurmState] = {}
    for number in sorted({each.partition("_")[0] for each in wanted}):
        answer = _asked("scontrol", "-o", "show", "job", number)
        found |= dict(_of_scontrol(answer))
    if missing := sorted(wanted - found.keys()):
        numbers = ",".join(sorted({each.partition("_")[0] for each in missing}))
        accounted = _accounted(_asked("sacct", "-X", "-n", "-P", "-o", "JobID,JobName,State,ExitCode", "-j", numbers))
        found |= {each: state for each, state in accounted if each in missing}
    return {each: found[each] for each in wanted if each in found}


def largest_array(otherwise: int = 1000) -> int:
    """How many jobs an array may have."""
    match = re.search(r"MaxArraySize\s*=\s*(\d+)", _asked("scontrol", "show", "config"))
    return max(1, int(match[1]) - 1) if match else otherwise


def _asked(*command: str) -> str:
    """What a program of SLURM answers; "" where it knows no such job, or has no accounting."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except FileNotFoundError:
        return ""
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmUnreachable(str(error)) from None
    if answer.returncode == 0 or command[0] == "sacct" or "Invalid job id" in answer.stderr:
        return answer.stdout if answer.returncode == 0 else ""
    raise SlurmUnreachable(" ".join(answer.stderr.split()))


def _of_scontrol(text: str) -> Iterator[tuple[str, SlurmState]]:
    for line in text.splitlines():
        facts = dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", line))
        if "JobId" not in facts:
            continue
        state = SlurmState(
            facts.get("JobState", ""), facts.get("JobName", ""), facts.get("ExitCode", ""), facts.get("Reason", "")
        )
        if "ArrayTaskId" in facts:
            for index in _indices(facts["ArrayTaskId"]):
                yield f"{facts['ArrayJobId']}_{index}", state
        else:
            yield facts["JobId"], state


def _accounted(text: str) -> Iterator[tuple[str, SlurmState]]:
    for line in text.splitlines():
        number, name, state, code = [*line.split("|"), "", "", ""][:4]
        if re.fullmatch(r"\d+(_\d+)?", number) and state:
            yield number, SlurmState(state.split()[0], name, code)


def _indices(text: str) -> Iterator[int]:
    """``0-2,5%4`` as 0, 1, 2 and 5."""
    for piece in text.partition("%")[0].split(","):
        first, _, last = piece.partition("-")
        if first.isdigit():
            yield from range(int(first), int(last or first) + 1)


def by_array(ids: Mapping[str, str]) -> str:
    """The numbers that ``scancel`` takes to end jobs, by what they are called here."""
    return " ".join(sorted({each.partition("_")[0] for each in ids.values()}))
