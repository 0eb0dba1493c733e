"""nnU-Net as the engine. Ring 2: the only importer of nnunetv2."""
