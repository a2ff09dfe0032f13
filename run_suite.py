#!/usr/bin/env python
"""The command line of the suite, see `bench.cli`. `list`, `status` and `report` import neither torch nor ray."""

from bench.cli import main

if __name__ == "__main__":
    main()
