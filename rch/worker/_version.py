"""The version that the zipapp was built from; replaced by the builder."""

VERSION = "source"
