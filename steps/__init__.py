"""What happens: one file per step of the recipe, in the order the steps run."""
