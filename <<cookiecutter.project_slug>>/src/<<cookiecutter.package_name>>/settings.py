"""Every setting of the project, in one place, read from the environment.

Each setting is an environment variable with the prefix ``ML_`` (``ML_AS_OF=1998-06-30``), or a line
of the file ``.env``. ``.env.example`` lists them all. Only MLflow's address keeps its own name.
"""

from __future__ import annotations

import json
import textwrap
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PACKAGE = __name__.partition(".")[0]


class Settings(BaseSettings):
    """What differs between a laptop, a test and production; the code is the same."""

    model_config = SettingsConfigDict(
        env_prefix="ML_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    home: Path = Field(Path(), description="Folder that holds data, models and the local stores.")
    fixed_clock: datetime | None = Field(
        None,
        validation_alias=AliasChoices("ML_AS_OF", "fixed_clock"),
        description="The instant that counts as now (UTC); default: the newest event of the data "
        "taken in, else the clock.",
    )
    seed: int = Field(7, ge=0, description="Seed of everything random.")

    model_name: str = Field(
        PACKAGE.replace("_", "-"), min_length=1, description="Name in the model registry."
    )
    mlflow_tracking_uri: str = Field(
        "",
        validation_alias=AliasChoices("MLFLOW_TRACKING_URI", "mlflow_tracking_uri"),
        description="MLflow store; default: an SQLite file in the home folder.",
    )
    promotion_database: str = Field(
        "",
        description="SQLAlchemy address of the lock and the audit record of promotions; default: "
        "an SQLite file in the home folder. Several machines need PostgreSQL.",
    )
    actor: str = Field(
        "", description="Who moves production, for the record; default: the user and the machine."
    )

    model_parameters: dict[str, int | float | str | bool | None] = Field(
        {}, description="Hyper-parameters that replace model.py's defaults, as JSON."
    )
    holdout_times: int = Field(
        2, ge=1, description="How many of the newest example times are kept for the hold-out."
    )
    training_times: int | None = Field(
        None,
        ge=1,
        description="How many of the newest example times before the hold-out are trained on; "
        "default: all. Few forget sooner how things were.",
    )
    folds: int = Field(3, ge=1, description="Validation folds in time before the hold-out.")
    training_rows: int = Field(
        2_000_000, ge=100, description="Most examples in a training frame; a sample by key above."
    )
    evaluation_rows: int = Field(
        100_000, ge=100, description="Most hold-out rows that are stored with a model version."
    )
    bootstrap_resamples: int = Field(
        200, ge=20, description="Resamples behind each confidence interval."
    )
    allowed_regression: float = Field(
        0.02,
        ge=0,
        description="How far the lower end of the interval of (candidate minus baseline or "
        "production) may lie below zero in the task's primary metric.",
    )
    metric_limits: dict[str, float] = Field(
        {},
        description='Limits of the gate by metric, as JSON: {"roc_auc": 0.7, "log_loss": 0.6}. The '
        "interval's lower end must reach it; its upper end where less is better.",
    )
    allowed_calibration_error: float = Field(
        0.1,
        ge=0,
        description="Mean distance of predicted and observed frequencies (in a regression: of "
        "means, in the outcomes' standard deviations) beyond which the gate fails a model.",
    )
    allowed_segment_harm: float = Field(
        0.02,
        ge=0,
        description="How much larger than production's a segment's mean loss may certainly be: the "
        "Brier score; in a regression squared errors over the outcomes' variance.",
    )
    segment_rows: int = Field(
        200, ge=30, description="Fewest rows of a segment, and of newest labels, to be judged on."
    )
    row_milliseconds: float = Field(
        20, gt=0, description="Slowest single row (p99) that the gate lets the exported model take."
    )
    batch_milliseconds: float = Field(
        500, gt=0, description="Slowest batch of ML_MAX_BATCH_ROWS rows that the gate lets pass."
    )
    largest_model_megabytes: float = Field(
        200, gt=0, description="Largest exported model that the gate lets pass."
    )

    search_budget: int = Field(
        4, ge=1, description="How many hyper-parameter candidates a pipeline run tries."
    )
    freshness_days: float = Field(
        3, ge=0, description="How old the newest raw event may be when a pipeline run begins."
    )
    rarest_class: float = Field(
        0.001, ge=0, lt=0.5, description="Smallest share of the examples that a class may have."
    )
    raw_data: str = Field(
        "",
        description="Folder or s3://bucket/folder that pipeline runs take raw data from; default: "
        "data/ of the home folder.",
    )
    pipeline_image: str = Field(
        f"{PACKAGE.replace('_', '-')}-jobs:local",
        min_length=1,
        description="Image of the pipeline's steps; pin it by digest on a cluster.",
    )
    pipeline_root: str = Field(
        "", description="Cluster: where artifacts go, as in s3://bucket/pipelines."
    )
    pipeline_cpu: str = Field("2", description="Cluster: cores of a step that trains.")
    pipeline_memory: str = Field("4G", description="Cluster: memory of each step.")
    pipeline_accelerator: str = Field(
        "", description="Cluster: accelerator of a step that trains, such as nvidia.com/gpu."
    )
    pipeline_retries: int = Field(2, ge=0, description="Cluster: how often a lost step is retried.")
    pipeline_timeout_seconds: int = Field(
        7_200, ge=1, description="Cluster: longest time of one step."
    )
    pipeline_secret: str = Field(
        "", description="Cluster: Kubernetes secret whose keys become the steps' variables."
    )
    pipeline_secret_keys: list[str] = Field(
        ["MLFLOW_TRACKING_URI", "ML_PROMOTION_DATABASE"],
        description="Cluster: the keys of that secret, as JSON; add AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY where artifacts lie in S3.",
    )
    kubeflow_host: str = Field("", description="Address of Kubeflow Pipelines.")
    kubeflow_namespace: str = Field("kubeflow", description="Namespace of runs.")
    kubeflow_token: SecretStr = Field(SecretStr(""), description="Bearer token for Kubeflow.")
    kubeflow_service_account: str = Field("", description="Service account of the steps.")

    feature_store: str = Field(
        "",
        pattern=r"^[a-z0-9_-]*$",
        description="Which feature_store.NAME.yaml of the feature repo counts, such as production; "
        "default: feature_store.yaml, everything in the home folder.",
    )
    feature_repo: Path | None = Field(
        None, description="Folder of Feast's files; default: the project's own feature_repo/."
    )
    feature_server: str = Field(
        "",
        description="Address of Feast's own feature server that this server asks for a user's "
        "features; default: this process reads the online store, where Feast is installed.",
    )
    feature_timeout_seconds: float = Field(
        1.0, gt=0, description="How long a prediction waits for a user's features (else 503)."
    )
    feature_registry: str = Field(
        "", description="Production: address of Feast's registry in PostgreSQL (postgresql://...)."
    )
    feature_redis: str = Field("", description="Production: Redis, as host:port[,password=...].")
    redshift_cluster: str = Field("", description="Production: Redshift cluster.")
    redshift_user: str = Field("", description="Production: Redshift user.")
    redshift_database: str = Field("", description="Production: Redshift database.")
    redshift_region: str = Field("", description="Production: AWS region of the cluster.")
    redshift_staging: str = Field("", description="Production: S3 folder for its transfers.")
    redshift_role: str = Field("", description="Production: IAM role by which it reaches S3.")

    duckdb_memory_limit: str = Field(
        "3GB", pattern=r"^\d+(\.\d+)? ?[KMGT]i?B$", description="Memory that DuckDB may use."
    )
    duckdb_threads: int | None = Field(None, ge=1, description="Threads; default: all cores.")

    serving_dir: Path = Field(
        Path("served"), description="Folder that `registry sync` fills and the server watches."
    )
    host: str = Field("127.0.0.1", description="Address that the server listens on.")
    port: int = Field(8000, ge=1, le=65_535, description="Port that the server listens on.")
    workers: int = Field(1, ge=1, description="Server processes.")
    model_poll_seconds: float = Field(
        1.0, gt=0, description="How often the server looks for a new model."
    )
    max_body_bytes: int = Field(1_000_000, ge=100, description="Largest request body (else 413).")
    max_batch_rows: int = Field(1_000, ge=1, description="Most instances in one request.")
    max_in_flight: int = Field(
        1_000, ge=1, description="Most requests under way in a worker (else 503, Retry-After)."
    )
    max_in_flight_bytes: int = Field(
        64_000_000, ge=100, description="Most bytes of their bodies together (else 503)."
    )
    api_keys: SecretStr = Field(
        SecretStr(""),
        description="Keys, separated by commas, of which clients must show one as X-API-Key or as "
        "bearer token; default: none is asked for.",
    )
    server_log: Literal["text", "json"] = Field("text", description="Form of the server's log.")
    traces_endpoint: str = Field(
        "",
        description="Address that takes the server's OpenTelemetry traces over HTTP, such as "
        "http://localhost:4318/v1/traces; needs the extra `tracing`.",
    )

    scoring_threads: int | None = Field(
        None, ge=1, description="Threads of batch scoring; default: all cores."
    )

    log_predictions: bool = Field(
        True, description="Whether the server logs what it answers and takes feedback."
    )
    log_dir: Path = Field(Path("prediction_log"), description="Folder of the prediction log.")
    log_segment_seconds: float = Field(
        300.0, gt=0, description="Age at which a worker begins a new file of its log."
    )
    log_retention_days: int = Field(
        365, ge=1, description="Days of predictions and feedback that `log compact` keeps."
    )
    experiment_file: Path = Field(
        Path("experiment.json"), description="The running A/B test; none without the file."
    )

    drift_window_days: int = Field(
        7, ge=1, description="Days of predictions up to now that `drift run` judges."
    )
    drift_threshold: float = Field(
        0.1,
        ge=0,
        description="Distance (PSI) from which a column that chance does not explain has drifted.",
    )
    drift_false_alarms: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="Share of runs without drift in which chance may raise an "
        "alarm, over all columns together.",
    )
    drift_share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Share of drifted columns from which the data has drifted; a "
        "drifted prediction or a fallen metric suffice alone.",
    )
    drift_missing_share: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Share of missing values above the reference's from which a column is broken.",
    )
    drift_minimum_rows: int = Field(300, ge=50, description="Fewer rows than that are not judged.")
    drift_sample_rows: int = Field(
        20_000, ge=100, description="Rows of each side in Evidently's report."
    )
    drift_textfile: Path | None = Field(
        None,
        description="File (*.prom) of the drift job's metrics for node_exporter's textfile "
        "collector.",
    )
    drift_pushgateway: str = Field(
        "", description="Pushgateway that takes the drift job's metrics, as host:port."
    )

    alertmanager_url: str = Field("", description="Alertmanager, as http://host:9093.")
    alert_webhook_url: SecretStr = Field(
        SecretStr(""), description="Address that takes alerts as JSON."
    )
    alert_slack_url: SecretStr = Field(
        SecretStr(""), description="Incoming webhook of Slack, or of a chat that understands it."
    )
    alert_repeat_hours: float = Field(
        24, gt=0, description="After so long an alert that has not changed is sent again."
    )
    alert_retry_seconds: float = Field(
        1.0, ge=0, description="First pause between attempts to deliver; it doubles each time."
    )
    report_url: str = Field(
        "",
        description="Where the folder drift/ can be looked at, for links in alerts; default: "
        "its path.",
    )

    retrain_on: Literal["here", "kubeflow"] = Field(
        "here", description="Where drift runs the pipeline."
    )
    retrain_promotes: bool = Field(
        True,
        description="Whether a retrained model that is better goes to production, or waits "
        "in staging.",
    )
    retrain_wait_days: float | None = Field(
        None,
        ge=0,
        description="Days from the first sight of drift to the retraining that it starts; default: "
        "until examples from then on can be trained on and later ones judged on.",
    )
    retrain_recent_times: int = Field(
        1,
        ge=0,
        description="Newest example times that a retraining's second attempt is trained on, where "
        "older ones tell of habits that are over; 0: no second attempt.",
    )
    retrain_cooldown_days: float = Field(
        14, ge=0, description="Days between two retrainings that drift starts."
    )
    retrain_budget: int = Field(
        4, ge=0, description="Most retrainings that drift may start within 90 days."
    )

    @field_validator("fixed_clock")
    @classmethod
    def _to_utc(cls, value: datetime | None) -> datetime | None:
        if value is None or value.tzinfo is None:
            return value
        return value.astimezone(timezone.utc).replace(tzinfo=None)

    @property
    def data_clock(self) -> datetime | None:
        """The instant that counts as now; None where the machine's clock does."""
        if self.fixed_clock is not None:
            return self.fixed_clock
        if self.data_manifest.exists():
            manifest = json.loads(self.data_manifest.read_text(encoding="utf-8"))
            return datetime.fromisoformat(manifest["newest_event"])
        return None

    @property
    def as_of(self) -> datetime:
        """Now, in UTC without a zone: the one owner of time (labels, freshness, windows)."""
        return self.data_clock or utc_now()

    @property
    def clock_offset(self) -> timedelta:
        """How far ``as_of`` is from the clock at this moment: what the server adds to the clock."""
        now = utc_now()
        return (self.data_clock or now) - now

    @property
    def data_dir(self) -> Path:
        """Raw data, the feature table and the labels."""
        return self.home.resolve() / "data"

    @property
    def data_manifest(self) -> Path:
        """What was taken in last: its kind, rows, fingerprint and newest event."""
        return self.data_dir / "manifest.json"

    @property
    def feature_table(self) -> Path:
        """The features known at each instant, one Parquet file for each."""
        return self.data_dir / "features"

    @property
    def feature_registry_file(self) -> Path:
        """What is registered in the embedded feature store."""
        return self.home.resolve() / "feature_registry.db"

    @property
    def feature_repo_dir(self) -> Path:
        """Where feature_store.yaml and definitions.py lie."""
        return (self.feature_repo or Path(__file__).parents[2] / "feature_repo").resolve()

    @property
    def models_dir(self) -> Path:
        """One folder for each trained model, before it is registered."""
        return self.home.resolve() / "models"

    @property
    def pipeline_dir(self) -> Path:
        """Runs, artifacts and the cache of pipelines on this machine."""
        return self.home.resolve() / "pipeline"

    @property
    def served_dir(self) -> Path:
        """Absolute folder of the bundles that the server may load."""
        return self.home.resolve() / self.serving_dir

    @property
    def prediction_log_dir(self) -> Path:
        """Absolute folder of the prediction log."""
        return self.home.resolve() / self.log_dir

    @property
    def experiment_path(self) -> Path:
        """Absolute path of the running experiment's description."""
        return self.home.resolve() / self.experiment_file

    @property
    def experiments_dir(self) -> Path:
        """Ended experiments and the reports' pictures."""
        return self.home.resolve() / "experiments"

    @property
    def drift_dir(self) -> Path:
        """One folder for each run of the drift job, and what it remembers (monitoring.db)."""
        return self.home.resolve() / "drift"

    @property
    def tracking_uri(self) -> str:
        """MLflow's store, an absolute address."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.home.resolve() / 'mlflow.db'}"

    @property
    def artifacts_dir(self) -> Path:
        """Where the embedded MLflow store keeps artifacts; a server has its own place."""
        return self.home.resolve() / "mlartifacts"

    @property
    def promotions_uri(self) -> str:
        """The database of the promotion lock and audit record."""
        return self.promotion_database or f"sqlite:///{self.home.resolve() / 'promotions.db'}"


def utc_now() -> datetime:
    """The machine's clock, in UTC without a zone."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


def variable_name(name: str) -> str:
    """The environment variable of a setting."""
    alias = Settings.model_fields[name].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"ML_{name.upper()}"


def environment_file() -> str:
    """Every setting as a commented line of a ``.env`` file, with its default."""
    lines = ["# Every setting with its default; copy to .env and uncomment what should differ."]
    for name, field in Settings.model_fields.items():
        variable = variable_name(name)
        default = field.get_default()
        value = "" if default is None else str(default)
        if isinstance(default, dict | list):
            value = json.dumps(default)
        lines += ["", *textwrap.wrap(f"# {field.description}", 98, subsequent_indent="# ")]
        lines.append(f"# {variable}={value}")
    return "\n".join(lines) + "\n"
