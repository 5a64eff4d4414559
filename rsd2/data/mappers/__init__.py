"""From dataset dicts to what a model takes: mappers, transforms and augmentations."""
