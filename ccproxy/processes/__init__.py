"""The processes that serve: how they start, follow signals and the configuration, are replaced, and end."""
