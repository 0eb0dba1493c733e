"""One file a form of model. A form reads what is its own and says of anything else why it is not."""
