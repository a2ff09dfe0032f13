"""Makes a Python process see something otherwise than others do: a node of the cluster tests that is not like the others. BROKEN says what.

`package`: numpy is of another version. `code`: the checkout is another one. A path: reading below it fails, as on a mount that was lost.
"""

import errno
import importlib.abc
import importlib.machinery
import importlib.metadata
import os
import sys

BROKEN = os.environ.get("BROKEN", "")


class OtherCode(importlib.abc.MetaPathFinder):
    """Changes the hash of the code once its module is imported."""

    def find_spec(self, name, path, target=None):
        if name != "bench.provenance":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def changed(module):
            execute(module)
            module.code_id = lambda: "0ther0c0de00"

        spec.loader.exec_module = changed
        return spec


def lost(event, arguments):
    """Fail where a file or folder below the path is opened."""
    if event in ("open", "os.scandir", "os.listdir") and str(arguments[0]).startswith(BROKEN):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(arguments[0]))


if BROKEN == "package":
    real = importlib.metadata.version
    importlib.metadata.version = lambda name: "0.0.1" if name == "numpy" else real(name)
elif BROKEN == "code":
    sys.meta_path.insert(0, OtherCode())
elif BROKEN:
    sys.addaudithook(lost)
