"""How far a selection is from another, from the target and from sameness, whatever method made it."""
