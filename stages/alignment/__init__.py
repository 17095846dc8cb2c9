"""Do image and caption belong together."""
