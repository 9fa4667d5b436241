"""The contract: the hook as a real process, against the real manager and against hostile ones."""
