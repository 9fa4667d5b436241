"""The execution point's image cache: a daemon under condor_master and its admin commands."""

__version__ = "0.1.0"
