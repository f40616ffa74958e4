"""One module per command: ``EXAMPLES`` for its help, ``add_options``, and ``run``, which returns the exit code."""
