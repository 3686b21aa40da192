"""Text to vector: a bag of embeddings or a transformer, behind one interface."""
