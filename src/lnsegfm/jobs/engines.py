"""Where jobs run: this machine, SLURM or Ray, as ``--on`` spells it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lnsegfm.errors import ConfigError

SPELLINGS = "local, slurm[:PARTITION,KEY=VALUE,...] or ray[:ADDRESS,KEY=VALUE,...]"
_SBATCH_OPTION = re.compile(r"[a-z][a-z-]*")


@dataclass(frozen=True)
class OnThisMachine:
    """Processes of this machine.

    Args:
        at_once: Jobs at a time; 1 does them in this process, one after the other.
    """

    at_once: int = 1


@dataclass(frozen=True)
class OnSlurm:
    """A SLURM cluster, by ``sbatch``.

    Args:
        at_once: Jobs at a time; None leaves it to the cluster.
        partition: Where to; several with commas; the cluster's default unless given.
        minutes: Time limit of a job. One that reaches it is queued again, and goes on.
        memory_gb: Memory of a job.
        cpus: Cores of a job.
        gpus: GPUs of a job; none unless given.
        timeouts: How many times a job is queued again after its time limit.
        signal_s: Seconds before the time limit at which a job is asked to save its state.
        further: Other long options of ``sbatch``, such as account or qos.
    """

    at_once: int | None = None
    partition: str | None = None
    minutes: int = 24 * 60
    memory_gb: float = 16.0
    cpus: int = 4
    gpus: int | None = None
    timeouts: int = 20
    signal_s: int = 120
    further: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OnRay:
    """A Ray cluster that runs already.

    Args:
        at_once: Jobs at a time; None leaves it to the cluster.
        address: Of its head, ``HOST:PORT``; the cluster of this machine or of RAY_ADDRESS unless given.
        cpus: Cores of a job.
        gpus: GPUs of a job, also a share of one.
        retries: How many times a job is tried again whose process or node is lost.
    """

    at_once: int | None = None
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    retries: int = 5


Engine = OnThisMachine | OnSlurm | OnRay
_SLURM_KEYS: Mapping[str, tuple[str, Any]] = {
    "time": ("minutes", int),
    "mem": ("memory_gb", float),
    "cpus": ("cpus", int),
    "gpus": ("gpus", int),
    "timeouts": ("timeouts", int),
    "signal": ("signal_s", int),
}
_RAY_KEYS: Mapping[str, tuple[str, Any]] = {
    "cpus": ("cpus", float),
    "gpus": ("gpus", float),
    "retries": ("retries", int),
}


def engine_of(on: str = "local", jobs: int | None = None) -> Engine:
    """Read ``--on`` and ``--jobs``.

    Args:
        on: One of `SPELLINGS`.
        jobs: Jobs at a time; of this machine 1 unless given.

    Raises:
        ConfigError: Another spelling, or a value that cannot be.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs {jobs}: nothing would be done. Use 1 or more.")
    kind, _, rest = on.partition(":")
    words = [word.strip() for word in rest.split(",") if word.strip()]
    plain = [word for word in words if "=" not in word]
    settings = dict(_assignment(word) for word in words if "=" in word)
    if kind == "local":
        if words:
            raise ConfigError(f"--on {on}: this machine has no settings. Write --on local, and --jobs N.")
        return OnThisMachine(jobs or 1)
    if kind == "slurm":
        known = {key: value for key, value in settings.items() if key in _SLURM_KEYS}
        further = {key: value for key, value in settings.items() if key not in _SLURM_KEYS}
        if odd := [key for key in further if not _SBATCH_OPTION.fullmatch(key)]:
            raise ConfigError(f"--on {on}: {odd[0]} is no option of sbatch. Write account=NAME or another one.")
        asked = OnSlurm(jobs, ",".join(plain) or None, further=further)
        return replace(asked, **_values(known, _SLURM_KEYS, on))
    if kind == "ray":
        if odd := [key for key in settings if key not in _RAY_KEYS]:
            raise ConfigError(f"--on {on}: Ray knows no {odd[0]} here. Use: {', '.join(_RAY_KEYS)}.")
        if len(plain) > 1:
            raise ConfigError(f"--on {on}: more than one address. Write ray:HOST:PORT.")
        return replace(OnRay(jobs, plain[0] if plain else None), **_values(settings, _RAY_KEYS, on))
    raise ConfigError(f"--on {on}: there is no such place. Write {SPELLINGS}.")


def _assignment(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key.strip(), value.strip()


def _values(settings: Mapping[str, str], keys: Mapping[str, tuple[str, Any]], on: str) -> dict[str, Any]:
    values = {}
    for key, text in settings.items():
        name, kind = keys[key]
        try:
            values[name] = kind(text)
        except ValueError:
            number = "a whole number" if kind is int else "a number"
            raise ConfigError(f"--on {on}: {key}={text} is not {number}. Write {key}=1 or another one.") from None
        if not 0 <= values[name] < float("inf") or (values[name] == 0 and key in ("time", "mem", "cpus")):
            raise ConfigError(f"--on {on}: {key}={text} cannot be. Write {key}=1 or another number above 0.")
    return values
