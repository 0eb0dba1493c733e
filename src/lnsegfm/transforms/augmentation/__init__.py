"""nnU-Net's default augmentation: parameters drawn first, then applied to the voxels that a patch needs."""
