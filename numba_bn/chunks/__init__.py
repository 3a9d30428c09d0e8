"""Data larger than memory: read, computed on and written in blocks, with jobs that go on."""
