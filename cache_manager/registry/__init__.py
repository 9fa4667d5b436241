"""Registries of container images, as the OCI specifications say: what the cache and the publisher share."""
