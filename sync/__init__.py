"""The publisher: registry images become a CVMFS sandbox and a SIF of the same digest, and are published."""
