"""The offline world: draws scenes and pretrains the small models that rehearse the recipe without a network."""
