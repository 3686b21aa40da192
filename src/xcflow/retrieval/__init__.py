"""Exact and approximate search, neighbour votes, score fusion."""
