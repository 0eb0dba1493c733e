"""The command line: one file a command. Torch and nnU-Net load inside the command that needs them."""
