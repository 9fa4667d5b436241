"""What HTCondor runs before each job. Imports nothing of the other packages."""
