"""The whole way of a few-shot job, ours beside nnU-Net 2.8.1 with its defaults and with its best flags."""
