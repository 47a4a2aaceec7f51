"""The folder that a training run leaves, and that the tracker and the registry take up.

::

    bundle/               what the server loads (bundle.py)
    evaluation.parquet    hold-out rows, on which later candidates are judged (holdout.py)
    reports/              pictures and tables, for the model card
    model_uri             the model's address, where the tracker's store is the registry's
"""

BUNDLE_FOLDER = "bundle"
EVALUATION_FILE = "evaluation.parquet"
REPORTS_FOLDER = "reports"
MODEL_URI_FILE = "model_uri"
