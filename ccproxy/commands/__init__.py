"""One module per command: ``EXAMPLES`` for its help, ``add_options`` says what it takes, ``run`` returns the exit code."""
