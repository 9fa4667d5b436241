"""Where images come from. A source answers `locate` with a value and brings an image in through a sink."""
