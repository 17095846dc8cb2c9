"""Models that say how likely a caption is, with its image and without: any of transformers, or our connector."""
