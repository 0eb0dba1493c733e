"""Models on disk: folders, plans, adapters, export, training domain; `importing` reads models from elsewhere."""
