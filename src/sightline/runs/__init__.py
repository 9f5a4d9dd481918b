"""Run folders: plan, candidates, data set, resume, test-set log, error analysis."""
