"""Exact optimal transport between embeddings: what the selectors that match a target share."""
