"""Translation between the Messages API and chat completions; pure."""
