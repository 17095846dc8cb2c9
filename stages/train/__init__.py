"""Connector training: frozen image tower, frozen language model, a small trained bridge between them."""
