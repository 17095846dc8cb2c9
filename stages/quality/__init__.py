"""What a sample is worth on its own: is the image sound, is the caption a caption."""
