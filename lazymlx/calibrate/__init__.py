"""Which schedule a model bears: found by comparing lazy with dense answers, without labels.

plan         what to calibrate for
prompts      questions whose answer stands somewhere in a long text
measure      one configuration on one prompt: does the answer differ, and by how much
trials       candidates against prompts, every outcome kept
search       from a scan of the layers to a schedule
calibration  search, check on fresh prompts, result
"""
