"""``lnsegfm methods``."""

from __future__ import annotations

import dataclasses

from lnsegfm.cli.options import AsJson, print_json


def methods(as_json: AsJson = False) -> None:
    """Show the methods of adaptation: what moves, their settings, their source."""
    from lnsegfm.methods.table import METHODS

    if as_json:
        print_json(
            {
                name: {
                    "summary": cls.summary,
                    "source": cls.source,
                    "trains": sorted(cls.trains),
                    "settings": {
                        field.name: {"default": field.default, "meaning": field.metadata["meaning"]}
                        for field in dataclasses.fields(cls)
                    },
                }
                for name, cls in METHODS.items()
            }
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("method", "what moves", "settings (--set NAME=VALUE)", "source", show_lines=True)
    for name, cls in METHODS.items():
        settings = "\n".join(
            f"{field.name}={'' if field.default is None else field.default}: {field.metadata['meaning']}"
            for field in dataclasses.fields(cls)
        )
        table.add_row(name, cls.summary, settings, cls.source)
    Console().print(table)
