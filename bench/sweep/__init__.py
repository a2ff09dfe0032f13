"""From trials to records: who runs where, what happens when one dies, and what a launch may count on.

`jobs` says what is to run. `supervise` runs one job in a fresh process of a `nursery`, watches it, keeps its `attempts` and records a death
that the trial could not. `serial` supervises one job after the other; `on_ray` lets Ray Tune place the supervisors, and is with `preflight`
and `room` all that imports ray. `lock` holds the results directory, `interrupt` turns Ctrl-C into an orderly end.

Records on disk are the only state: each launch runs what has none. Nothing in this package is imported before it is needed: a supervisor
needs neither torch nor timm.
"""
