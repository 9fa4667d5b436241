"""Rows of jobs as condor_submit makes them."""

ROWS = ()
