"""From a model, or from other people's numbers, to a Run."""
