"""The performance tool: the same request to a provider directly and through the proxy, measured side by side."""
