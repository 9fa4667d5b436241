"""A real HTCondor pool, and what runs on it."""
