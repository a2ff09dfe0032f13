"""Makes a Python process believe that numpy is of another version: a node of the cluster test that is not like the others."""

import importlib.metadata

real = importlib.metadata.version
importlib.metadata.version = lambda name: "0.0.1" if name == "numpy" else real(name)
