"""Models from elsewhere: what a path holds, which form of model it is, and how that becomes a model folder."""
