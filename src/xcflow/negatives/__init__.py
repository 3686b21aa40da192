"""Where hard negatives come from: clustered batches and nearest-neighbour mining."""
