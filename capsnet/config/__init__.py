"""params.yaml as validated models (`load`), and the configuration of one run (`resolve`)."""

from capsnet.config.file import load
from capsnet.config.params import Params, Run
from capsnet.config.run import RunConfig, resolve

__all__ = ["Params", "Run", "RunConfig", "load", "resolve"]
