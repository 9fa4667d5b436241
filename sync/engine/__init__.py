"""Where conversions run: on this machine, or as HTCondor jobs."""
