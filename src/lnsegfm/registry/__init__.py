"""Models by name: their cards, where they are stored, how their files arrive and are unpacked. Ring 0: no torch."""
