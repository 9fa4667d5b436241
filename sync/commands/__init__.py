"""One file for each sub-command of condor_image_sync."""
