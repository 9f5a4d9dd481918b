"""Evaluation of predictions: metrics with confidence intervals, curves, thresholds, paired tests and conformal sets.

Everything here is computed from arrays, without files or networks. The definitions are scikit-learn's. An undefined value is
None with a reason beside it, never 0.
"""

from sightline.evaluation.curves import (
    CALIBRATION_BINS,
    CalibrationBin,
    auc,
    calibration_curve,
    equal_error_rate,
    expected_calibration_error,
    roc_curve,
)
from sightline.evaluation.intervals import auc_interval, macro_auc_interval, wilson
from sightline.evaluation.metrics import CLASS_METRICS, METRICS, PRIMARY_METRIC, TOP, Metric
from sightline.evaluation.mistakes import confused_pairs, mistakes
from sightline.evaluation.paired import SIGNIFICANT, alike, expanded_tail, holm, mcnemar, paired_bootstrap, sign_flip
from sightline.evaluation.ranking import average_precision, rank_scores
from sightline.evaluation.resampling import accuracy_interval
from sightline.evaluation.sample import rarer_class
from sightline.evaluation.scores import inversion, metric_of, score
from sightline.evaluation.thresholds import CRITERIA, HALF, check_criterion, costs, threshold
from sightline.evaluation.tradeoffs import (
    ThresholdCurve,
    accuracy_coverage,
    curve_tables,
    det_curve,
    precision_recall_curve,
    thinned,
    threshold_curve,
)

__all__ = [
    "CALIBRATION_BINS",
    "CLASS_METRICS",
    "CRITERIA",
    "HALF",
    "METRICS",
    "PRIMARY_METRIC",
    "SIGNIFICANT",
    "TOP",
    "CalibrationBin",
    "Metric",
    "ThresholdCurve",
    "accuracy_coverage",
    "accuracy_interval",
    "alike",
    "auc",
    "auc_interval",
    "average_precision",
    "calibration_curve",
    "check_criterion",
    "confused_pairs",
    "costs",
    "curve_tables",
    "det_curve",
    "equal_error_rate",
    "expanded_tail",
    "expected_calibration_error",
    "holm",
    "inversion",
    "macro_auc_interval",
    "mcnemar",
    "metric_of",
    "mistakes",
    "paired_bootstrap",
    "precision_recall_curve",
    "rank_scores",
    "rarer_class",
    "roc_curve",
    "score",
    "sign_flip",
    "thinned",
    "threshold",
    "threshold_curve",
    "wilson",
]
