"""One file, one DVC stage: read params.yaml, load, call, save, print."""
