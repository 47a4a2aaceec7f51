"""What Feast knows of this project, built from the key and the features that data.py declares.

`features apply` registers it. Another feature means editing data.py alone; another table, view or
service is declared here.
"""

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_format import ParquetFormat
from feast.infra.offline_stores.redshift_source import RedshiftSource
from feast.types import Float32, Int64, String

from <<cookiecutter.package_name>> import data, feature_store
from <<cookiecutter.package_name>>.online_features import FEATURE_SERVICE
from <<cookiecutter.package_name>>.settings import Settings

TYPES = {"float": Float32, "int": Int64, "string": String}

# `features apply` brings its own settings; Feast's commands have those of the environment.
settings = globals().get("settings") or Settings()

if feature_store.repo_config(settings)["offline_store"]["type"] == "redshift":
    table = RedshiftSource(
        name="feature_table", table="features", timestamp_field=feature_store.TIMESTAMP
    )
else:
    table = FileSource(
        name="feature_table",
        path=str(settings.feature_table / "*.parquet"),
        file_format=ParquetFormat(),
        timestamp_field=feature_store.TIMESTAMP,
    )

fresh_values = PushSource(name=feature_store.PUSH_SOURCE, batch_source=table)

entity = Entity(
    name=data.KEY,
    join_keys=[data.KEY],
    value_type=ValueType.STRING,
    description="Whom or what a row of features describes.",
)

view = FeatureView(
    name=feature_store.VIEW,
    entities=[entity],
    ttl=data.TTL,
    schema=[
        Field(name=data.KEY, dtype=String),
        *(
            Field(name=feature.name, dtype=TYPES[feature.type], description=feature.description)
            for feature in data.FEATURES
        ),
    ],
    source=fresh_values,
    description="What was known of each entity at an instant.",
)

service = FeatureService(
    name=FEATURE_SERVICE,
    features=[view],
    description="What the model reads, in training and in the server.",
)
