"""A checkpoint of nnU-Net on its own: plans, configuration and dataset.json are inside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lnsegfm.errors import ConfigError
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.importing.model_source import ModelSource, SourceKind
from lnsegfm.models.importing.nnunet_fold import described_plainly
from lnsegfm.models.importing.recognised import NotThisForm, RecognisedFold, RecognisedModel
from lnsegfm.weights.checkpoint import checkpoint_of
from lnsegfm.weights.state_dict_names import plain_names

TAKES = frozenset({"configuration", "patch_size"})
PARTS = ("network_weights", "trainer_name", "init_args")
ARGUMENTS = ("plans", "configuration", "dataset_json")


def read(source: ModelSource, options: ImportOptions) -> RecognisedModel:
    """Recognise a checkpoint with plans inside.

    Raises:
        NotThis: It is none, or other plans are to be used.
        ConfigError: It is of another configuration than the one asked for.
        ModelError: An entry is of another kind than nnU-Net's.
    """
    if source.kind is not SourceKind.CHECKPOINT or options.plans is not None:
        raise NotThisForm
    content = source.content
    missing = [name for name in PARTS if not isinstance(content, Mapping) or name not in content]
    if not missing and isinstance(content["init_args"], Mapping):
        missing = [f"init_args.{name}" for name in ARGUMENTS if name not in content["init_args"]]
    if missing:
        raise NotThisForm(f"it has no {', no '.join(missing)}" if len(missing) < len(PARTS) else "")
    checkpoint = checkpoint_of(content, source.place)
    if options.configuration not in (None, checkpoint.configuration):
        raise ConfigError(
            f"--configuration {options.configuration}: {source.path} is of {checkpoint.configuration}. Leave it out."
        )
    as_read = described_plainly(replace(checkpoint, weights=plain_names(checkpoint.weights)))
    fold = RecognisedFold("0", source.place, lambda: as_read)
    return RecognisedModel(form="nnU-Net checkpoint with plans inside", folds=(fold,))
