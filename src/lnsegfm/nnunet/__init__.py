"""The bridge to nnU-Net: the only importer of nnunetv2 beside the trainers."""
