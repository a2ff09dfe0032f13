"""Settings on Ray Tune: ASHA among the settings of each row, Optuna for each row. Beside `bench.sweep` all that imports ray.

One Tune trial is one setting; its worker (`worker`) supervises the setting's trials, each in a process of its own. Without ASHA and Optuna
this package is not needed: the trials of a tune are then a sweep like any other. As there, records on disk are the only state; a restarted
tune tells schedulers and searchers what the records hold.
"""
