"""The model server: HTTP in front of the newest production model in the served folder."""

from .app import create_app, serve

__all__ = ["create_app", "serve"]
