"""``lnsegfm demo``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from lnsegfm.cli.console import console
from lnsegfm.cli.shared_options import Device, require_folder

SHOTS, HELD_OUT = 5, 6
BASE_CASES, BASE_HELD_OUT = 24, 4


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for everything; the same command continues a demo that was stopped.")
    ],
    base_iterations: Annotated[int, typer.Option(min=1, help="Training steps of the base model.")] = 800,
    iterations: Annotated[int, typer.Option(min=1, help="Training steps of its adaptation.")] = 400,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            help="Seed of everything random: phantoms, weights, patches. The same seed gives the same result.",
        ),
    ] = 0,
    device: Device = "auto",
) -> None:
    """Show the whole loop on made-up CT scans, without any download: minutes on two CPU cores.

    Makes CT phantoms of two domains, trains a tiny base on the one, adapts it to the other with DGST on 5 labelled
    scans, predicts the scans held out with both, and compares. Everything stays under --out to look at. The numbers
    are those of phantoms: they say that the loop works, nothing about patients.
    """
    from lnsegfm.datasets.phantom import preset, write_dataset
    from lnsegfm.methods.table import load_method
    from lnsegfm.recipe import Recipe

    require_folder(out)
    method = load_method("dgst")
    recipe = Recipe(settings=method.settings(), shots=SHOTS, iterations=iterations, seed=seed, mirroring=False)
    started = time.monotonic()
    with console() as progress:
        from lnsegfm.nnunet.environment import choose_device  # torch loads only now

        device = choose_device(device)
        for name, domain, cases in (("base", "base", BASE_CASES), ("clinic", "far", SHOTS + HELD_OUT)):
            progress.stage(f"Making {cases} phantoms of the domain {domain}")
            write_dataset(out / f"phantoms-{name}", cases=cases, domain=preset(domain), seed=seed, progress=progress)
        from lnsegfm.cli.finetune_lines import announce, show
        from lnsegfm.cli.pretrain_command import show as show_base
        from lnsegfm.workflows.finetune import finetune
        from lnsegfm.workflows.finetune_plan import plan
        from lnsegfm.workflows.pretrain import Afterwards, pretrain
        from lnsegfm.workflows.pretrain_plan import PretrainSettings

        training = PretrainSettings(
            preset="tiny", iterations=base_iterations, held_out=BASE_HELD_OUT, seed=seed, mirroring=False
        )
        then = Afterwards(iterations, 2 * HELD_OUT, ("fewer --base-iterations", "fewer --iterations"))
        base = pretrain(out / "phantoms-base", out / "base", training, device=device, progress=progress, then=then)
        planned = plan(out / "phantoms-clinic", out / "base", recipe, progress=progress)
        announce(planned, progress.stage)
        run = finetune(planned, out / "run", device=device, progress=progress)
    print("The base, on phantoms of its own domain:")
    show_base(base)
    print("\nBase against adapted, on phantoms of the other domain:")
    show(run)
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    print(f"{minutes} min {seconds} s. Next: open {out / 'run' / 'report.html'}, or try your own scans:")
    print(f"  lnsegfm predict {out / 'run'} SCANS --out MASKS")
