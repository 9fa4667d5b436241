"""Each module of the cache manager alone: no HTCondor, no container runtime, no network beyond loopback."""
