"""The tuning protocol: every row of a table gets the same effort, and what that was is written down.

Each row tries the same number of settings of its learning rate, and of at most two dials that its method declares (`tunable`). The
settings are the same points of one quasi-random sequence in the unit cube, whatever the row (`space`). A setting is scored on images held
out of the training split; the validation split is never opened (`bench.training.held_out`). A setting of a row of single-task models trains
all its tasks and is scored by their mean. Trials of a tune are ordinary trials with ordinary records, in `results/<suite>/tuning/`, so that
a killed tune goes on and a larger budget extends a smaller one (`plan`, `launch`). Ray Tune may stop settings early, by ASHA, always among
the settings of one row (`on_ray`). `outcome` turns the records into `tuning.json` and a suite into a tuned one.
"""
