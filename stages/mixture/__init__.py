"""How much of each source?"""
