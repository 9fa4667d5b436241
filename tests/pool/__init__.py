"""The disposable HTCondor pool that the tests and the demo run on."""
