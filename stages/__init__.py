"""One file, one DVC stage: read params.yaml, load, call, save, print."""

import capsnet  # noqa: F401 - it checks Python and its packages before a stage imports any
