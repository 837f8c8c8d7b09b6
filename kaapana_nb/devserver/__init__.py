"""JupyterLab sessions: configuration, start, readiness, and an end that leaves no process."""
