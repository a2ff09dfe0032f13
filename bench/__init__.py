"""The experiment: everything that is equal for all methods.

A suite (bench.suites) returns trials (bench.config). bench.sweep hands the trials that have no record to Ray Tune, or runs them here.
bench.trial turns one trial into one record: data (bench.data) -> backbone, method, decoders (bench.model, methods) -> fit (bench.training)
-> metrics and costs (bench.measure) -> JSON (bench.record). bench.report makes tables and plots from the records alone. The disk is the
only state: no record = still to do.

Shape letters: B images, S streams, T tasks, C channels, H W height and width (h w of a feature map), N tokens, K classes.
"""
