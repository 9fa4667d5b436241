"""Tests. They mirror the modules; contract/ runs the hook as a process, pool/ a real HTCondor."""
