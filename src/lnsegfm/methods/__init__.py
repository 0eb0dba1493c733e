"""How a network is adapted. Ring 1: torch, no nnU-Net."""
