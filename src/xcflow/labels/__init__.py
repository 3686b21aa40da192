"""The label side: balanced clustering and the map to auxiliary vectors."""
