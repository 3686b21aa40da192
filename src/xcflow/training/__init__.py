"""Module I and Module II: losses, row-sparse optimisers, loops, checkpoints."""
