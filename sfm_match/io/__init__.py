"""Files: images, stores, pair lists, databases, models, results."""
