"""How many tokens a request is, before a provider says so."""
