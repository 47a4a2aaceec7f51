"""Data, features, training, registry and model server of one machine-learning system."""
