"""What each parameter of a network is. Ring 1: torch, no nnU-Net."""
