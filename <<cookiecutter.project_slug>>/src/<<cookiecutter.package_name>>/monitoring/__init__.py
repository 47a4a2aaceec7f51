"""Is the model still right: drift, data quality, alerts and what they set off."""
