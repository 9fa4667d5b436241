"""Tests mirror the modules; pool/ runs them on a real HTCondor."""
