"""Which schedule a model bears: found by comparing lazy with dense answers, without labels. Outside, use
`CalibrationPlan`, `Calibrator` and, for maps, `looking.Fitting`.

plan         what to calibrate for
kinds        prompts of several kinds, made of `material`
shared       a prompt read once for all configurations
loss         what a configuration costs: nats a token of the dense answers
trials       candidates against prompts, every outcome kept
search       from a scan of the layers to a schedule
calibration  search, check on fresh prompts, result
fit          maps, from hidden states at cuts to keys and values behind them
"""
