"""One module per command: ``add_options`` says what it takes, ``run`` does it and returns the exit code."""
