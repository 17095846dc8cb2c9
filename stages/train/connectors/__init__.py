"""Connectors: what stands between the image tower and the language model; one file, or folder, each."""
