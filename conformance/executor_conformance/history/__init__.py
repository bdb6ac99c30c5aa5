"""Event logs: checking one against the specification, and making one from Airflow's database."""
