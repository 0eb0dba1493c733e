"""What a user of nnU-Net may set, and which of it serves best on two cores."""

from __future__ import annotations

from benchmarks.whole.stock import Flags

ONE = {"nnUNet_def_n_proc": "1"}
LEAST = 1e-9
"""One iteration of validation an epoch."""

DEFAULT_FLAGS = Flags()
CANDIDATES = {
    "defaults": DEFAULT_FLAGS,
    "np 1, DA 0": Flags(processes=1, validation_share=LEAST, environment=ONE, training={"nnUNet_n_proc_DA": "0"}),
    "np 1, DA 1": Flags(processes=1, validation_share=LEAST, environment=ONE, training={"nnUNet_n_proc_DA": "1"}),
    "np 2, DA 2": Flags(
        processes=2,
        validation_share=LEAST,
        environment={"nnUNet_def_n_proc": "2"},
        training={"nnUNet_n_proc_DA": "2"},
    ),
    "np 1, DA 1, passive": Flags(
        processes=1,
        validation_share=LEAST,
        environment=ONE | {"OMP_WAIT_POLICY": "PASSIVE"},
        training={"nnUNet_n_proc_DA": "1"},
    ),
    "np 1, DA 1, passive, one thread": Flags(
        processes=1,
        validation_share=LEAST,
        environment=ONE | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"},
        training={"nnUNet_n_proc_DA": "1"},
    ),
}
BEST_FLAGS = CANDIDATES["np 1, DA 1, passive"]
