"""Which embeddings are close: exact cosines, clusters that say what is worth comparing, and pairs inside clusters."""
