"""Where both forms are published: CVMFS or a plain directory; a directory, an HTTP server or a command for SIFs."""
