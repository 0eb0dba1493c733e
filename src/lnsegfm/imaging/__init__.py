"""Images and their geometry. Ring 0: no torch."""
