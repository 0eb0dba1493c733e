"""What is written of a prediction, one module a kind."""
