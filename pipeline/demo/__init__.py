"""The embedded default: a generated corpus with planted defects, and the small models it is scored and trained with."""
