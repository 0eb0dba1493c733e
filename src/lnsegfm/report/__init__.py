"""What a person reads after a run. Ring 2."""
