"""Configuration: the settings table, .env and models.yaml, the built-in providers."""
