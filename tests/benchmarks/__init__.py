"""Speed, as tables and ratios within one run. Nothing here is a test: a busy machine fails nobody."""
