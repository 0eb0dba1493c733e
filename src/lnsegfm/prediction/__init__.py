"""From scans to masks: inputs, the predictor, the pipeline, and what is written."""
